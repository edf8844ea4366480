"""In: the merged config, and what a device can do at most. Out: text; nothing is measured of an engine."""

import json


rule bounds:
    """Print the least time of each experiment and the most that each quant can gain: memory, computing."""
    log:
        "logs/bounds.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        command=[sys.executable, SCRIPTS / "bounds.py"],
        config=lambda wildcards: json.dumps(config),
        python=engine.python,
    shell:
        "printf %s {params.config:q} | {params.command:q} - --python {params.python:q} | tee {log:q}"


rule calibrate:
    """Print what this machine can do at most, measured in a few seconds where it is not known: memory, computing."""
    log:
        "logs/calibrate.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: side_by_side.all_cores
    params:
        command=[engine.python, SCRIPTS / "calibrate.py"],
        platform=matrix.matrix.platform,
    shell:
        "{params.command:q} --platform {params.platform:q} | tee {log:q}"
