"""In: the records of the selected launches. Out: results/summary.* and results/figures/, and both once more in
results/summaries/<name>/, where the runs of other configs leave them alone.

Only missing records are asked for: a record that is there counts, whatever Snakemake remembers of it.
"""

from rollout_bench.core.places import newest_source
from rollout_bench.report.state import SOURCES

KEPT = jobs.kept_folder(plan)


report: "../report/workflow.rst"


rule summary:
    """Write the tables: one row per experiment, with speed-ups, skipped combinations and failures; draw the figures."""
    input:
        wanted=lambda _: jobs.inputs_of_summary(at_start, workflow),
        code=str(newest_source(*SOURCES)),
    output:
        md="results/summary.md",
        html="results/summary.html",
        csv="results/summary.csv",
        txt="results/summary.txt",
        state="results/summary.json",
        page=report(f"{KEPT}/summary.html", caption="../report/summary.rst", category="Summary"),
        kept=[f"{KEPT}/summary.{kind}" for kind in ("md", "csv", "txt", "json")],
        drawn=directory("results/figures"),
        figures=report(directory(f"{KEPT}/figures"), patterns=["{name}.svg"], category="Figures"),
    log:
        "logs/summary.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        command=[sys.executable, jobs.script("summarise.py")],
        plan=PLAN_FILE,
        kept=KEPT,
    shell:
        "{params.command:q} results --plan {params.plan:q} --also {params.kept:q} 2>&1 >{log:q} | tee --append {log:q} >&2"
