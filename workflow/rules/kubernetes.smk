"""In: the merged config, and which records are there. Out: results/manifests/, to be applied with kubectl."""

import json


rule kubernetes_manifests:
    """Write a Kubernetes Job for each missing launch to results/manifests/, and remove those not wanted any more."""
    log:
        "logs/kubernetes_manifests.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        command=[sys.executable, SCRIPTS / "kubernetes_manifests.py"],
        config=lambda wildcards: json.dumps(config),
        python=engine.python,
    shell:
        "printf %s {params.config:q} | {params.command:q} - --python {params.python:q} | tee {log:q}"
