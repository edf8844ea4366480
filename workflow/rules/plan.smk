"""In: the merged config. Out: `matrix`, the launches it names, and how many run `side_by_side`.

Once a run starts: results/plan.json and every spec.json.
"""

matrix, engine = workbench.plan_workflow(config, workflow.config_settings.configfiles)
side_by_side = SideBySide(matrix, workflow, ON_CLUSTER)


onstart:
    workbench.refuse_jobs_here(matrix, workflow)
    workbench.drop_default_rate_limit(workflow)
    workbench.begin(matrix, [file for job in workflow.dag.needrun_jobs() for file in job.output])


onsuccess:
    workbench.end_well(matrix, SCRIPTS)


onerror:
    workbench.end_with_errors(matrix, SCRIPTS)


rule plan:
    """Print the matrix: done, missing, skipped and why, and the minutes that are left."""
    log:
        "logs/plan.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        command=[sys.executable, SCRIPTS / "plan.py"],
        plan=workbench.PLAN_FILE,
    shell:
        "{params.command:q} {params.plan:q} | tee {log:q}"


rule check:
    """Print what a bug report needs, and for each problem its fix: engine, versions, devices, memory, models."""
    log:
        "logs/check.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        command=[engine.python, SCRIPTS / "check.py"],
        models=lambda wildcards: workbench.model_arguments(matrix),
        platform=matrix.matrix.platform,
    shell:
        "{params.command:q} --platform {params.platform:q} {params.models:q} | tee {log:q}"
