"""In: the shape of a synthetic model. Out: a folder below model_base that the engine can load.

Built before anything is measured: nothing else may run beside a measurement.
"""


rule checkpoint:
    """Build the weights of a synthetic model in one format."""
    output:
        directory(workbench.synthetic_folder(matrix) + "/{checkpoint}"),
    params:
        arguments=lambda wildcards, output: workbench.checkpoint_arguments(matrix, output[0]),
    log:
        "logs/checkpoint/{checkpoint}.log",
    priority: 1_000_000_000
    threads: workflow.cores
    shell:
        "exec {engine.python:q} {SCRIPTS:q}/build_checkpoint.py {params.arguments:q} --out {output:q} > {log:q} 2>&1"
