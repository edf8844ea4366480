"""rollout-bench: how fast an LLM engine generates under a reinforcement-learning rollout.

config.yaml -> plan -> one job per engine launch -> records -> summary and figures
"""

from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"


configfile: "config.yaml"


include: "workflow/rules/plan.smk"
include: "workflow/rules/checkpoint.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/summary.smk"


if matrix.config.launches == "auto":

    include: "workflow/rules/rounds.smk"


rule all:
    """Measure missing launches, then write the summary and the figures."""
    default_target: True
    input:
        rules.summary.output,
