"""In: the merged config. Out: `matrix`, the launches it names, and how many run `side_by_side`.

Once a run starts: results/plan.json and every spec.json.
"""

matrix, engine = snakefile.plan_workflow(config, workflow.config_settings, ON_CLUSTER, is_main=workflow.is_main_process)
side_by_side = SideBySide(matrix, workflow, ON_CLUSTER)


onstart:
    interrupts.heed_interrupts()
    snakefile.refuse_jobs_here(matrix, workflow)
    internals = Internals(workflow)
    internals.drop_default_rate_limit()
    snakefile.begin(matrix, internals.outputs_to_make(), internals.rules_to_run())
    snakefile.show_live(matrix, internals)


onsuccess:
    snakefile.end_well(matrix, SCRIPTS)


onerror:
    snakefile.end_with_errors(matrix, SCRIPTS)
    interrupts.end_as_interrupted()


rule plan:
    """List done, running, missing and skipped launches, with reasons, and the minutes left."""
    log:
        "logs/plan.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        command=[sys.executable, SCRIPTS / "plan.py"],
        plan=snakefile.SHOWN_PLAN,
    shell:
        "{params.command:q} {params.plan:q} | tee {log:q}"


rule check:
    """Print facts for bug reports (engine, versions, devices, memory, models), and a fix for each problem."""
    log:
        "logs/check.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        command=[engine.python, SCRIPTS / "check.py"],
        models=lambda wildcards: snakefile.model_arguments(matrix),
        platform=matrix.matrix.platform,
    shell:
        # a problem that was found ends the call with status 1 all the same: snakefile.end_well looks at the log
        "{params.command:q} --platform {params.platform:q} {params.models:q} | tee {log:q} || true"
