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
    if not workflow.touch:  # which measures nothing, and moves no record aside
        snakefile.begin(matrix, internals.outputs_to_make())
        snakefile.show_live(matrix, internals)


onsuccess:
    snakefile.end_well(matrix)


onerror:
    snakefile.end_with_errors(matrix)
    interrupts.end_as_interrupted()
