"""rollout-bench: how fast an LLM engine generates under a reinforcement-learning rollout."""


include: "workflow/Snakefile"


workflow.default_target = "all"  # include forgets the default target of a file
