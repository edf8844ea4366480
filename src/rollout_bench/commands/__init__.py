"""What the sub-commands of `rollout-bench` do, and the scripts of the same purpose that rules call."""
