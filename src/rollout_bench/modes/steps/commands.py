"""The sub-commands that predict rollouts from calibrations, which are launches of this mode."""

COMMANDS = (
    (
        "predict",
        "rollout_bench.modes.steps.predict_commands:predict",
        "predict steps of any lengths, batches and engines from a calibration",
        "predict --configfile config/steps.yaml --config 'modes=[rollout]'",
    ),
    (
        "recommend",
        "rollout_bench.modes.steps.predict_commands:recommend",
        "name the settings with the shortest predicted step, and how to confirm them",
        "recommend --configfile config/steps.yaml --config 'modes=[rollout]' 'sweep={max_num_seqs: [4, 16]}'",
    ),
)
"""Name of each command, its function, its purpose, and an example."""
