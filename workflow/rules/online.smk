"""In: as offline. Out: as offline, and the metrics of the server over time."""


use rule offline as online with:
    input:
        lambda wildcards: ancient(snakefile.needed(matrix, ON_CLUSTER, "online", wildcards)),
    output:
        record=kept("results/online/{experiment}/launch-{launch}.json"),
        sequences=kept("results/online/{experiment}/launch-{launch}.sequences.jsonl.gz"),
        server=kept("results/online/{experiment}/launch-{launch}.server.jsonl.gz"),
    log:
        "logs/online/{experiment}/launch-{launch}.log",
    priority: lambda wildcards: snakefile.priority(matrix, "online", wildcards)
    params:
        command=[engine.python, SCRIPTS / "run_launch.py"],
        spec="results/online/{experiment}/spec.json",
        model=lambda wildcards, output: matrix.launch_of(output.record).experiment.model_path,
        dataset=lambda wildcards, output: snakefile.dataset_arguments(matrix, output.record),
        timeout_s=matrix.config.timeout_s,
        limits=matrix.config.timeouts.model_dump_json(),
        progress=snakefile.PLAN_FILE,
        placing=side_by_side.arguments,
