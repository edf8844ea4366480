"""In: the records of a round of launches. Out: a mark at which Snakemake asks again which records are wanted."""


checkpoint round:
    """Look at the launches that are there: are they enough for the precision that is wanted?"""
    input:
        lambda wildcards: snakefile.records_of_round(matrix, wildcards),
    output:
        touch("results/rounds/{mode}/{experiment}/{launches}"),
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
