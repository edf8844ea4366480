"""In: spec.json and the weights. Out: the record of one launch, and its side file with one row per sequence."""


rule offline:
    """Start the engine once and time the workload through LLM.generate()."""
    input:
        lambda wildcards: ancient(workbench.needed_checkpoint(matrix, "offline", wildcards)),
    output:
        record="results/offline/{experiment}/launch-{launch}.json",
        sequences="results/offline/{experiment}/launch-{launch}.sequences.jsonl.gz",
    params:
        spec="results/offline/{experiment}/spec.json",
        model=lambda wildcards, output: matrix.launch_of(output.record).experiment.model_path,
        timeout_s=matrix.config.timeout_s,
        progress=workbench.PLAN_FILE,
    log:
        "logs/offline/{experiment}/launch-{launch}.log",
    wildcard_constraints:
        experiment="[^/]+",
        launch="[0-9]+",
    priority: lambda wildcards: workbench.priority(matrix, "offline", wildcards)
    threads: workflow.cores
    shell:
        "exec {engine.python:q} {SCRIPTS:q}/run_offline.py"
        " --spec {params.spec:q}"
        " --model {params.model:q}"
        " --launch {wildcards.launch}"
        " --out {output.record:q}"
        " --log {log:q}"
        " --timeout-s {params.timeout_s}"
        " --progress {params.progress:q}"
        " --die-with-parent"
