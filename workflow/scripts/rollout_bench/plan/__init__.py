"""From a config to the experiments that it names, and from an experiment to its key."""
