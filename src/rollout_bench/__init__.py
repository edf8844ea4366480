"""What the commands of rollout-bench share.

One direction of flow: config -> plan -> spec -> record -> table -> summary, figures, report.
"""

__version__ = "0.1.0"
