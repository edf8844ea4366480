"""In: what a model is trained with. Out: folders below model_base: its bf16 weights, and each format made of them.

As synthetic models these are made before anything is measured, and on a cluster in jobs of their own, without a device.
"""


rule training:
    """Train a small model on problems whose answers can be checked."""
    output:
        directory(snakefile.checkpoint_pattern(matrix, "trained/{model}-bf16")),
    log:
        "logs/training/{model}.log",
    wildcard_constraints:
        model=".+-[0-9a-f]{8}",
    priority: 1_000_000_000
    conda:
        "../../environment.yml"
    threads: side_by_side.all_cores
    resources:
        **slurm.asked_for_building(matrix, ON_CLUSTER),
    params:
        command=[engine.python, SCRIPTS / "train_model.py"],
        arguments=lambda wildcards, output: snakefile.checkpoint_arguments(matrix, output[0]),
    shell:
        "{params.command:q} {params.arguments:q} --out {output:q} 2>&1 | tee {log:q}"


rule trained_checkpoint:
    """Store the weights of a trained model in another format."""
    input:
        rules.training.output,
    output:
        directory(snakefile.checkpoint_pattern(matrix, "trained/{model}-{format}")),
    log:
        "logs/checkpoint/{model}-{format}.log",
    wildcard_constraints:
        model=".+-[0-9a-f]{8}",
        format="(?!bf16$)[^/]+",
    priority: 1_000_000_000
    conda:
        "../../environment.yml"
    threads: side_by_side.all_cores
    resources:
        **slurm.asked_for_building(matrix, ON_CLUSTER),
    params:
        command=[engine.python, SCRIPTS / "build_checkpoint.py"],
        arguments=lambda wildcards, output: snakefile.checkpoint_arguments(matrix, output[0]),
    shell:
        "{params.command:q} {params.arguments:q} --out {output:q} 2>&1 | tee {log:q}"
