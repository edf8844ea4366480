"""In: spec.json and weights of all that is compared. Out: the records of one launch of each, made in turn.

Snakemake's output is an empty mark: of a job that fails it deletes all outputs, and the records of the engines that did
not fail have to stay. A block whose records are not all there is measured whether or not there is a mark.
"""


rule measure:
    """Measure a block: one launch, or one of each that is compared, engines alive together and passes in turn."""
    input:
        lambda wildcards: ancient(jobs.needed(at_start, wildcards)),
    output:
        touch(MARK),
    log:
        "logs/measure/{mode}/{experiment}/launch-{launch}.log",
    wildcard_constraints:
        mode="|".join(MODES),
        experiment="[^/]+",
        launch="[0-9]+",
    priority: lambda wildcards: jobs.priority(plan, wildcards)
    # names the packages, as `snakemake --lint` demands; each command has the path of the Python that planned it
    conda:
        "../../environment.yml"
    threads: device_slots.threads
    resources:
        **device_slots.resources,
        **job_resources.asked_for_measuring(plan, ON_CLUSTER),
        attempt=lambda wildcards, attempt: attempt,
    params:
        command=[engine.python, jobs.script("measure.py")],
        records=lambda wildcards: jobs.records_of(at_start, wildcards),
        members=lambda wildcards: jobs.members(at_start, ON_CLUSTER, wildcards),
        timeout_s=plan.timeout_s,
        placing=device_slots.arguments,
    message:
        "measures:{params.records}"
    shell:
        # Snakemake's thread variables would bind the engines to as many threads as this job has
        "exec env -u OMP_NUM_THREADS -u MKL_NUM_THREADS -u OPENBLAS_NUM_THREADS -u GOTO_NUM_THREADS"
        " -u NUMEXPR_NUM_THREADS -u VECLIB_MAXIMUM_THREADS {params.command:q}"
        " {params.members:q}"
        " --timeout-s {params.timeout_s}"
        " {params.placing:q}"
        " --attempt {resources.attempt}"
        " --die-with-parent $PPID"


if plan.config.launches == "auto":

    checkpoint round:
        """Look at the launches that are there: are they enough for the precision that is wanted?

        At the mark of a round Snakemake asks again which records are wanted.
        """
        input:
            lambda wildcards: rounds.inputs_of_round(at_start, wildcards),
        output:
            touch(str(rounds.ROUNDS / "{mode}/{experiment}/{launches}")),
        log:
            "logs/rounds/{mode}/{experiment}/{launches}.log",
        wildcard_constraints:
            mode="[^/]+",
            experiment="[^/]+",
            launches="[0-9]+",
        priority: 1_000_000_000
        localrule: True
        conda:
            "../../environment.yml"
        shell:
            "echo {wildcards.launches} launches > {log:q}"
