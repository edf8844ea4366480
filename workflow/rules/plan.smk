"""In: the merged config. Out: `matrix`, the launches it names; results/plan.json and every spec.json once a run starts."""

matrix, engine = workbench.plan_workflow(config)


onstart:
    workbench.begin(matrix)


onsuccess:
    workbench.end_well(matrix, SCRIPTS)


onerror:
    workbench.end_with_errors(matrix, SCRIPTS)


rule plan:
    """Print the matrix: done, missing, skipped and why, and the minutes that are left."""
    params:
        plan=workbench.PLAN_FILE,
    log:
        "logs/plan.log",
    shell:
        "{sys.executable:q} {SCRIPTS:q}/plan.py {params.plan:q} | tee {log:q}"


rule check:
    """Print what a bug report needs, and for each problem its fix: engine, versions, devices, memory, models."""
    params:
        models=workbench.model_arguments(matrix),
        platform=matrix.matrix.platform,
    log:
        "logs/check.log",
    shell:
        "{engine.python:q} {SCRIPTS:q}/check.py --platform {params.platform:q} {params.models:q} | tee {log:q}"
