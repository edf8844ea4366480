"""The manifest of a config, and the images that it names: what they need, and what they keep to themselves."""

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from docs_pages import REPOSITORY
from planned import merged_with

from rollout_bench.cluster.kubernetes import manifest
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.matrix import expand

ENGINE = InstalledEngine("vllm", "0.32.0", {}, frozenset(), "python3")


def made(overlay: str) -> str:
    merged = merged_with(overlay)
    config = read_config(merged)
    matrix = expand(config, ENGINE)
    return manifest(matrix.experiments, matrix.platform, config, merged)


def parts(overlay: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return all documents of the manifest, and the container that measures."""
    documents = list(yaml.safe_load_all(made(overlay)))
    return documents, documents[-1]["spec"]["template"]["spec"]["containers"][0]


CUDA = "platform: cuda, quants: [bf16], engine_args: {tensor_parallel_size: 2}, kubernetes: {image: 'a:1'"


def test_a_job_requests_the_resources_of_the_largest_launch():
    documents, container = parts(f"{{{CUDA}, cpus: 4, memory: 16Gi}}}}")
    assert [one["kind"] for one in documents] == ["ConfigMap", "Job"]
    wanted = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "2"}
    assert (container["resources"], container["command"][0], container["envFrom"]) == (
        {"requests": wanted, "limits": wanted},
        "rollout-bench",
        [],
    )


@pytest.mark.parametrize(
    "more",
    ["", ", cpus: 4, memory: 16Gi, models_claim: w, claim_size: 50Gi, debug: true, secrets: [s]"],
)
def test_each_document_has_the_schema_of_its_kind(more: str):
    documents, _ = parts(f"{{{CUDA}{more}}}}}")
    for document in documents:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_pod_reads_its_config_and_another_gets_another_job():
    documents, _ = parts(f"{{{CUDA}, models_claim: w}}}}")
    inner = json.loads(documents[0]["data"]["config.json"])
    assert (inner["platform"], inner["model_base"]) == ("cuda", "/models")
    others, _ = parts(f"{{{CUDA}}}, launches: 5}}")
    assert others[-1]["metadata"]["name"] != documents[-1]["metadata"]["name"]


def test_later_pods_of_a_job_take_over_from_ended_ones():
    documents, container = parts(f"{{{CUDA}}}}}")
    assert {"name": "ROLLOUT_BENCH_JOB", "value": documents[-1]["metadata"]["name"]} in container["env"]
    assert documents[-1]["spec"]["podReplacementPolicy"] == "Failed"


def test_a_config_without_an_engine_needs_none():
    merged = {key: value for key, value in merged_with(f"{{{CUDA}}}}}").items() if key != "engine"}
    config_map = next(yaml.safe_load_all(manifest([], "cuda", read_config(merged), merged)))
    assert json.loads(config_map["data"]["config.json"])["engine"] == {"python": None}


def test_a_profile_travels_filled_with_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LONG", "77")
    (tmp_path / "a.yaml").write_text(
        "executable: x\nmodel: REPLACE_ENV_LLMDBENCH_DEPLOY_CURRENT_MODEL\nnum-prompts: 4\nmax-concurrency: 1\n"
        "random-input-len: REPLACE_ENV_LONG\n"
    )
    profile = f"workload_settings: {{w: {{profile: {{harness: vllm-benchmark, path: {tmp_path}/a.yaml}}}}}}"
    overlay = f"{{modes: [online], workloads: [w], {profile}, {CUDA}}}}}"
    documents, container = parts(overlay)
    files = documents[0]["data"]
    carried = json.loads(files["config.json"])["workload_settings"]["w"]["profile"]
    [mount] = [each for each in container["volumeMounts"] if each["name"] == "config"]
    assert carried["path"] == f"{mount['mountPath']}/w.yaml"
    assert "random-input-len: 77" in files["w.yaml"]
    assert "REPLACE_ENV_LLMDBENCH_DEPLOY_CURRENT_MODEL" in files["w.yaml"]  # each launch fills it
    monkeypatch.setenv("LONG", "78")
    assert parts(overlay)[0][0]["metadata"]["name"] != documents[0]["metadata"]["name"]


def test_data_sets_of_one_name_do_not_become_one(tmp_path: Path):
    sets = {}
    for name in ("one", "other"):
        path = tmp_path / name / "prompts.jsonl"
        path.parent.mkdir()
        path.write_text(json.dumps({"prompt": f"{name} prompt"}) + "\n")
        sets[name] = {"prompts": 1, "output_tokens": 4, "dataset": {"path": str(path), "format": "prompts"}}
    with pytest.raises(UserError, match=r"both would be /data/datasets/prompts\.jsonl in the pod"):
        made(json.dumps({"kubernetes": {"image": "a:1"}, "workloads": [*sets], "workload_settings": sets}))


def test_a_given_size_makes_a_claim_and_secrets_stay_names():
    documents, container = parts(f"{{{CUDA}, claim_size: 50Gi, secrets: [hub, key]}}}}")
    assert (documents[0]["kind"], documents[0]["spec"]["resources"]) == (
        "PersistentVolumeClaim",
        {"requests": {"storage": "50Gi"}},
    )
    assert container["envFrom"] == [{"secretRef": {"name": "hub"}}, {"secretRef": {"name": "key"}}]


def test_a_pod_has_no_cluster_token_and_no_needless_right():
    documents, container = parts(f"{{{CUDA}}}}}")
    pod = documents[-1]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_the_builder_is_sent_what_is_copied_and_nothing_else():
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    text = (REPOSITORY / "containers" / "Dockerfile").read_text()
    sources = [words.split()[-1] for words in re.findall(r"(?m)^COPY (.*) \S+$", text)]
    assert (lines[1], sources) == ("*", ["dist/*.whl", "containers/engine-python"])
    assert lines[2:] == ["!dist", "!containers/engine-python"]
