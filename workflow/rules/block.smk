"""In: spec.json and weights of all that is compared. Out: the records of one launch of each, made in turn.

What Snakemake takes for the output is an empty mark: of a job that fails it deletes all outputs, and the records of the
engines that did not fail have to stay. A block whose records are not all there is measured whether or not there is a mark.
"""


rule block:
    """Measure one launch of each of a comparison interleaved: engines alive together, passes in turn, a record each."""
    input:
        lambda wildcards: ancient(snakefile.needed_by_block(matrix, wildcards)),
    output:
        touch(snakefile.block_pattern()),
    log:
        "logs/blocks/{mode}/{experiment}/launch-{launch}.log",
    wildcard_constraints:
        mode="|".join(MODES),
        experiment="[^/]+",
        launch="[0-9]+",
    priority: lambda wildcards: snakefile.block_priority(matrix, wildcards)
    conda:
        "../../environment.yml"
    threads: side_by_side.threads
    resources:
        **side_by_side.resources,
        **slurm.asked_for_launches(matrix, ON_CLUSTER),
        attempt=lambda wildcards, attempt: attempt,
    params:
        command=[engine.python, "-m", "rollout_bench", "measure"],
        records=lambda wildcards: snakefile.block_records(matrix, wildcards),
        block=lambda wildcards: snakefile.block_arguments(matrix, ON_CLUSTER, wildcards),
        timeout_s=matrix.timeout_s,
        progress=snakefile.PLAN_FILE,
        placing=side_by_side.arguments,
    message:
        "measures, in turn:{params.records}"
    shell:
        # Snakemake's thread variables would bind the engines to as many threads as this job has
        "exec env -u OMP_NUM_THREADS -u MKL_NUM_THREADS -u OPENBLAS_NUM_THREADS -u GOTO_NUM_THREADS"
        " -u NUMEXPR_NUM_THREADS -u VECLIB_MAXIMUM_THREADS {params.command:q}"
        " {params.block:q}"
        " --timeout-s {params.timeout_s}"
        " --progress {params.progress:q}"
        " {params.placing:q}"
        " --attempt {resources.attempt}"
        " --die-with-parent $PPID"
