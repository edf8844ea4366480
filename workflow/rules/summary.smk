"""In: the records of the selected launches. Out: results/summary.* and results/figures/.

Only missing records are asked for: a record that is there counts, whatever Snakemake remembers of it.
"""

FIGURES = snakefile.figures(matrix)


report: "../report/workflow.rst"


rule summary:
    """Write the tables: one row per experiment, with speed-ups, skipped combinations and failures."""
    input:
        wanted=lambda _: snakefile.records_to_summarise(matrix, workflow, "summary"),
        code=snakefile.newest_source("analysis", "report", "summarise.py"),
    output:
        md="results/summary.md",
        html=report("results/summary.html", caption="../report/summary.rst", category="Summary"),
        csv="results/summary.csv",
        txt="results/summary.txt",
        state="results/summary.json",
    log:
        "logs/summary.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        command=[sys.executable, SCRIPTS / "summarise.py"],
        plan=snakefile.PLAN_FILE,
    shell:
        "{params.command:q} results --plan {params.plan:q} --figures 2>&1 | tee {log:q}"


rule figures:
    """Draw the figures, as SVG and PNG: throughput, speed-ups, iterations; of online experiments latencies and more."""
    input:
        rules.summary.output.state,
        code=snakefile.newest_source("analysis", "report", "plot.py"),
    output:
        svg=[
            report(f"results/figures/{name}.svg", caption=f"../report/{name}.rst", category="Figures")
            for name in FIGURES
        ],
        png=expand("results/figures/{name}.png", name=FIGURES),
    log:
        "logs/figures.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        command=[sys.executable, SCRIPTS / "plot.py"],
        plan=snakefile.PLAN_FILE,
        names=FIGURES,
    shell:
        "{params.command:q} results --plan {params.plan:q} --figures {params.names:q} 2>&1 | tee {log:q}"
