"""In: as offline. Out: the record of a profile, which has no throughput, its traces, and the table made of them."""


use rule offline as profile with:
    input:
        lambda wildcards: ancient(snakefile.needed(matrix, ON_CLUSTER, "profile", wildcards)),
    output:
        record=kept("results/profile/{experiment}/launch-{launch}.json"),
        traces=kept(directory("results/profile/{experiment}/launch-{launch}.traces")),
    log:
        "logs/profile/{experiment}/launch-{launch}.log",
    priority: lambda wildcards: snakefile.priority(matrix, "profile", wildcards)
    params:
        command=[engine.python, SCRIPTS / "run_launch.py"],
        spec="results/profile/{experiment}/spec.json",
        model=lambda wildcards, output: matrix.launch_of(output.record).experiment.model_path,
        dataset=lambda wildcards, output: snakefile.dataset_arguments(matrix, output.record),
        timeout_s=matrix.config.timeout_s,
        limits=matrix.config.timeouts.model_dump_json(),
        progress=snakefile.PLAN_FILE,
        placing=side_by_side.arguments,
