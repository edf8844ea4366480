"""The sub-commands of `rollout-bench`, which the workflow's rules call as scripts, too."""
