"""The package of rollout-bench.

Data flows in one direction: config -> plan -> spec -> record -> table -> summary, figures, report.
"""

__version__ = "0.1.0"
