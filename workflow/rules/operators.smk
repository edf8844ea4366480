"""In: as offline. Out: the record of a launch that timed linear layers alone, without any throughput."""


use rule offline as operators with:
    input:
        lambda wildcards: ancient(snakefile.needed(matrix, ON_CLUSTER, "operators", wildcards)),
    output:
        record=kept("results/operators/{experiment}/launch-{launch}.json"),
    log:
        "logs/operators/{experiment}/launch-{launch}.log",
    priority: lambda wildcards: snakefile.priority(matrix, "operators", wildcards)
    params:
        command=[engine.python, SCRIPTS / "run_launch.py"],
        spec="results/operators/{experiment}/spec.json",
        model=lambda wildcards, output: matrix.launch_of(output.record).experiment.model_path,
        dataset=lambda wildcards, output: snakefile.dataset_arguments(matrix, output.record),
        timeout_s=matrix.config.timeout_s,
        limits=matrix.config.timeouts.model_dump_json(),
        progress=snakefile.PLAN_FILE,
        placing=side_by_side.arguments,
