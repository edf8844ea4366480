"""In: the shape of a synthetic model. Out: a folder below model_base that the engine can load.

Built before anything is measured: nothing else may run beside a measurement. On a cluster it is a job of its own, once
for all launches: it takes minutes of cores and memory that a login node does not lend, and no device.
"""


rule checkpoint:
    """Build the weights of a synthetic model in one format."""
    output:
        directory(jobs.checkpoint_pattern(plan)),
    log:
        "logs/checkpoint/{checkpoint}.log",
    priority: 1_000_000_000
    conda:
        "../../environment.yml"
    threads: device_slots.all_cores
    resources:
        **job_resources.asked_for_building(plan, ON_CLUSTER),
    params:
        command=[engine.python, jobs.script("build.py")],
        arguments=lambda wildcards, output: jobs.checkpoint_arguments(plan, output[0]),
    shell:
        "{params.command:q} {params.arguments:q} --out {output:q} 2>&1 | tee {log:q}"
