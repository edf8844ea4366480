"""In: spec.json and the weights. Out: the record of one launch; what the mode writes besides lies beside it."""


rule launch:
    """Measure one launch: start the engine once, do what the mode does, write the record."""
    input:
        lambda wildcards: ancient(snakefile.needed(matrix, wildcards)),
    output:
        kept("results/{mode}/{experiment}/launch-{launch}.json"),
    log:
        "logs/{mode}/{experiment}/launch-{launch}.log",
    wildcard_constraints:
        mode="|".join(MODES),
        experiment="[^/]+",
        launch="[0-9]+",
    priority: lambda wildcards: snakefile.priority(matrix, wildcards)
    conda:
        "../../environment.yml"
    threads: side_by_side.threads
    resources:
        **side_by_side.resources,
        **slurm.asked_for_launches(matrix, ON_CLUSTER),
        attempt=lambda wildcards, attempt: attempt,
    params:
        command=[engine.python, "-m", "rollout_bench", "measure"],
        spec="results/{mode}/{experiment}/spec.json",
        model=lambda wildcards, output: matrix.launch_of(output[0]).experiment.model_path,
        dataset=lambda wildcards, output: snakefile.dataset_arguments(matrix, output[0]),
        timeout_s=matrix.timeout_s,
        progress=snakefile.PLAN_FILE,
        placing=side_by_side.arguments,
    shell:
        # Snakemake's thread variables would bind the engine to as many threads as this job has
        "exec env -u OMP_NUM_THREADS -u MKL_NUM_THREADS -u OPENBLAS_NUM_THREADS -u GOTO_NUM_THREADS"
        " -u NUMEXPR_NUM_THREADS -u VECLIB_MAXIMUM_THREADS {params.command:q}"
        " --spec {params.spec:q}"
        " --model={params.model:q}"
        " {params.dataset:q}"
        " --launch {wildcards.launch}"
        " --out {output:q}"
        " --log {log:q}"
        " --timeout-s {params.timeout_s}"
        " --progress {params.progress:q}"
        " {params.placing:q}"
        " --attempt {resources.attempt}"
        " --die-with-parent $PPID"
