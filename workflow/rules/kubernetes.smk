"""In: the merged config. Out: results/kubernetes.yaml, to be applied with kubectl."""

import json


rule kubernetes_manifest:
    """Write the Kubernetes Job that measures this config to results/kubernetes.yaml."""
    log:
        "logs/kubernetes_manifest.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        command=[sys.executable, SCRIPTS / "kubernetes_manifest.py"],
        config=lambda wildcards: json.dumps(config),
        python=engine.python,
    shell:
        "printf %s {params.config:q} | {params.command:q} - --python {params.python:q} --out results/kubernetes.yaml | tee {log:q}"
