"""The manifests hold what a launch needs, in a form that the Kubernetes API takes, and nothing secret."""

from __future__ import annotations

import json
import re
import shlex
from itertools import pairwise
from typing import Any

import kubernetes_validate
import pytest
import yaml
from docs_pages import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from planned import merged_with
from snakemake.utils import update_config
from synthetic_records import make_spec

from rollout_bench.cluster.manifest_files import CLAIM, COLLECTOR, HEADER, LAUNCHER, SPECS, _text, manifests
from rollout_bench.cluster.manifests import LONGEST, job_name, specs_name
from rollout_bench.contracts.fields import NAME_PATTERN
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.schedule import Schedule, schedule

VERSIONS = ["1.29", "1.33", "1.37"]

FULL = """
models: [hub, folder, big]
quants: [bf16, w8a8]
model_settings:
  hub: {weights: {bf16: "hub:Qwen/Qwen3-1.7B"}}
  folder: {weights: {bf16: Qwen3-1.7B, w8a8: /weights/Qwen3-1.7B-W8A8}}
  big: {synthetic: {preset: qwen3-tiny}, engine_args: {tensor_parallel_size: 2, data_parallel_size: 4}}
launches: 1
timeout_s: 1000
cluster: {memory_mb: 64000, cpus_per_device: 4, retries: 2}
kubernetes:
  image: team/bench:1
  namespace: bench
  results_claim: results
  make_claim: {size: 500Gi, storage_class: shared}
  environment: {HTTPS_PROXY: "http://proxy:3128", PATTERN: "$(ls)"}
  models_claim: weights
  models_path: /weights
  secrets: [hub-token]
  image_pull_secrets: [registry]
  service_account: bench
  scheduler: volcano
  queue: team
  node_selector: {accelerator: "910"}
  tolerations: [{key: nvidia.com/gpu, effect: NoSchedule}, {key: owner, value: bench}]
  host_paths: [/usr/local/Ascend/driver]
  shared_memory: 32Gi
  scratch: 200Gi
"""

WAYS = {"cpu": "{}", "cuda": "{platform: cuda}", "ascend": "{platform: ascend}"}


def merged_of(*overlays: str) -> dict[str, Any]:
    merged = merged_with("kubernetes: {image: 'bench:1'}")
    for overlay in overlays:
        update_config(merged, yaml.safe_load(overlay))
    return merged


def plan_of(*overlays: str) -> Schedule:
    config = read_config(merged_of(*overlays))
    return schedule(config, expand(config, probe_engine(None)))


def all_of(plan: Schedule) -> dict[str, str]:
    """Return the manifests of every launch; none is of an endpoint."""
    return manifests(plan, list(plan.by_record), {})


def documents(files: dict[str, str]) -> list[dict[str, Any]]:
    return [document for text in files.values() for document in yaml.safe_load_all(text)]


def jobs(files: dict[str, str]) -> list[dict[str, Any]]:
    return [document for document in documents(files) if document["kind"] == "Job"]


def container(job: dict[str, Any]) -> dict[str, Any]:
    (found,) = job["spec"]["template"]["spec"]["containers"]
    return found


@pytest.fixture(scope="module", params=WAYS)
def full(request: pytest.FixtureRequest) -> tuple[Schedule, dict[str, str]]:
    """Return manifests with every setting, on one platform."""
    plan = plan_of(FULL, WAYS[request.param])
    return plan, all_of(plan)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_document_is_valid_for_every_version_of_kubernetes(full: tuple[Schedule, dict[str, str]], version: str):
    for document in documents(full[1]):
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fewest_settings_are_valid_too(version: str):
    plan = plan_of("{launches: 1, quants: [bf16], kubernetes: {user_id: null}}")
    for document in documents(all_of(plan)):
        kubernetes_validate.validate(document, version, strict=True)


def test_devices_are_whole_and_as_many_as_the_engine_arguments_say(full: tuple[Schedule, dict[str, str]]):
    plan, files = full
    resource = {"cuda": "nvidia.com/gpu", "ascend": "huawei.com/Ascend910"}.get(plan.matrix.platform)
    for job in jobs(files):
        resources = container(job)["resources"]
        assert resources["requests"] == resources["limits"]
        of_engine = 1 if plan.matrix.platform == "cpu" else 2
        devices = 4 * of_engine if "big" in job["metadata"]["name"] else 1
        expected = {"cpu": str(4 * devices), "memory": "64000Mi"}
        assert resources["limits"] == (expected | {resource: str(devices)} if resource else expected)
        for building in job["spec"]["template"]["spec"].get("initContainers", []):
            assert set(building["resources"]["limits"]) == {"cpu", "memory"}


def test_a_device_may_be_called_otherwise():
    plan = plan_of(FULL, "{platform: ascend, cluster: {device_resource: huawei.com/Ascend910B}}")
    assert "huawei.com/Ascend910B" in container(jobs(all_of(plan))[0])["resources"]["limits"]


def test_each_kind_of_weights_is_found_in_the_pod(full: tuple[Schedule, dict[str, str]]):
    models = {}
    for job in jobs(full[1]):
        name = re.sub(r"-[0-9a-f]{8}-\d+$", "", job["metadata"]["name"])
        (models[name],) = [word for word in container(job)["command"] if word.startswith("--model=")]
    assert models.pop("rb-hub-bf16-demo") == "--model=Qwen/Qwen3-1.7B"
    assert models.pop("rb-folder-bf16-demo") == "--model=/weights/Qwen3-1.7B"
    assert models.pop("rb-folder-w8a8-demo") == "--model=/weights/Qwen3-1.7B-W8A8"
    assert len(models) == 2
    assert all(model.startswith("--model=/scratch/models/qwen3-") for model in models.values())


def test_a_synthetic_model_is_built_before_its_launch_where_it_is_loaded_from():
    plan = plan_of("{quants: [w8a8], launches: 1}")
    (job,) = jobs(all_of(plan))
    (building,) = job["spec"]["template"]["spec"]["initContainers"]
    (out,) = [word for word in building["command"] if word.startswith("--out=")]
    assert out.replace("--out=", "--model=") in container(job)["command"]
    assert "compressed-tensors-w8a8" in building["command"]


def test_mounts_are_of_volumes_that_are_there_each_at_a_place_of_its_own(full: tuple[Schedule, dict[str, str]]):
    for job in jobs(full[1]):
        pod = job["spec"]["template"]["spec"]
        volumes = [volume["name"] for volume in pod["volumes"]]
        assert len(set(volumes)) == len(volumes)
        for each in (*pod.get("initContainers", []), *pod["containers"]):
            mounts = each["volumeMounts"]
            assert {mount["name"] for mount in mounts} <= set(volumes)
            assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        writable = {mount["name"] for mount in container(job)["volumeMounts"] if not mount.get("readOnly")}
        assert writable == {"results", "scratch", "shared-memory"}


def test_secrets_are_named_and_nothing_of_them_is_there(
    full: tuple[Schedule, dict[str, str]], monkeypatch: pytest.MonkeyPatch
):
    plan, files = full
    for job in jobs(files):
        assert container(job)["envFrom"] == [{"secretRef": {"name": "hub-token"}}]
    monkeypatch.setenv("HF_TOKEN", "hush")
    assert all_of(plan) == files
    assert "hush" not in str(files)


def test_the_time_limit_does_not_run_while_a_launch_waits_for_devices(full: tuple[Schedule, dict[str, str]]):
    for job in jobs(full[1]):
        assert "activeDeadlineSeconds" not in job["spec"]
        assert job["spec"]["template"]["spec"]["activeDeadlineSeconds"] == 1000 + 300
    plan = plan_of(FULL, "cluster: {runtime_min: 30}")
    (first, *_) = jobs(all_of(plan))
    assert first["spec"]["template"]["spec"]["activeDeadlineSeconds"] == 1800


def test_only_what_is_not_the_launch_s_own_fault_is_tried_again(full: tuple[Schedule, dict[str, str]]):
    for job in jobs(full[1]):
        assert job["spec"]["backoffLimit"] == 2
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
        disrupted, failing = job["spec"]["podFailurePolicy"]["rules"]  # the first that fits holds
        assert failing["onExitCodes"] == {"containerName": container(job)["name"], "operator": "In", "values": [1, 2]}
        assert disrupted["action"] == "Ignore"


def test_the_command_has_every_option_of_the_rule_but_those_of_a_run_at_home():
    rule = (REPOSITORY / "workflow/rules/launch.smk").read_text().partition("shell:")[2]
    at_home = set(re.findall(r"--[a-z-]+", rule)) - {"--progress", "--die-with-parent"}
    plan = plan_of("{quants: [bf16], launches: 1}")
    (job,) = jobs(all_of(plan))
    options = {word.partition("=")[0] for word in container(job)["command"] if word.startswith("--")}
    assert options == at_home | {"--isolation"}  # which the rule takes from `side_by_side`


def test_a_data_set_is_read_from_the_results_claim():
    load = "{dataset: {path: docs/examples/trace.jsonl, format: trace}, prompts: 8}"
    plan = plan_of(f"{{quants: [bf16], workloads: [traced], workload_settings: {{traced: {load}}}}}")
    (job, *_) = jobs(all_of(plan))
    assert "--dataset=datasets/trace.jsonl" in container(job)["command"]


def test_dollars_reach_the_command_as_they_are():
    plan = plan_of("{models: [odd], quants: [bf16], launches: 1, kubernetes: {models_claim: weights},"
                   " model_settings: {odd: {weights: {bf16: 'a$(HOME)'}}}}")  # fmt: skip
    (job,) = jobs(all_of(plan))
    assert "--model=/models/a$$(HOME)" in container(job)["command"]


def test_jobs_stand_in_the_order_of_the_launches_and_after_their_specs(full: tuple[Schedule, dict[str, str]]):
    plan, files = full
    assert next(iter(files)) == SPECS == min(files)
    assert [job["metadata"]["annotations"]["rollout-bench/record"] for job in jobs(files)] == plan.missing
    assert all(one < other for one, other in pairwise(name for name in files if name != str(COLLECTOR)))


def test_a_launch_keeps_its_file_when_others_are_measured(full: tuple[Schedule, dict[str, str]]):
    plan, files = full
    fewer = manifests(plan, plan.missing[3:], {})
    assert {name: files[name] for name in fewer if name != SPECS} == {
        name: text for name, text in fewer.items() if name != SPECS
    }
    assert manifests(plan, [], {}) == {}


def test_every_spec_is_there_once_and_is_the_one_that_its_key_says(full: tuple[Schedule, dict[str, str]]):
    maps = {d["metadata"]["name"]: d for d in documents(full[1]) if d["kind"] == "ConfigMap"}
    for experiment in full[0].matrix.experiments:
        spec = Spec.model_validate(json.loads(maps.pop(specs_name(experiment.spec))["data"]["spec.json"]))
        assert spec == experiment.spec
    assert maps == {}


def test_where_launches_would_slow_each_other_a_node_has_one():
    def terms(overlay: str) -> list[dict[str, Any]]:
        plan = plan_of("{quants: [bf16], launches: 1}", overlay)
        (job,) = jobs(all_of(plan))
        template = job["spec"]["template"]
        found = template["spec"].get("affinity", {"podAntiAffinity": {}})["podAntiAffinity"]
        wanted = found.get("requiredDuringSchedulingIgnoredDuringExecution", [])
        assert all(
            term["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items() for term in wanted
        )
        return wanted

    (term,) = terms("{}")
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert terms("{isolation: per_device}") == terms("{platform: cuda}") == []
    assert terms("{platform: cuda, isolation: exclusive}") == [term]


def test_a_queue_of_kueue_lets_jobs_begin():
    plan = plan_of(FULL)
    for job in jobs(all_of(plan)):
        assert job["spec"]["suspend"] is True
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"


def test_the_claim_is_made_apart_from_what_measures():
    made = yaml.safe_load(all_of(plan_of(FULL))[str(CLAIM)])
    assert (made["kind"], made["metadata"]["name"]) == ("PersistentVolumeClaim", "results")
    assert made["spec"]["accessModes"] == ["ReadWriteMany"]
    assert made["spec"]["resources"]["requests"]["storage"] == "500Gi"
    assert made["spec"]["storageClassName"] == "shared"
    assert CLAIM.parent.name, "apply and delete of the folder itself leave it alone"


def test_what_measures_gets_the_variables_as_they_are(full: tuple[Schedule, dict[str, str]]):
    for job in jobs(full[1]):
        values = {variable["name"]: variable.get("value") for variable in container(job)["env"]}
        assert values["HTTPS_PROXY"] == "http://proxy:3128"
        assert values["PATTERN"] == "$$(ls)"
        assert values["HOME"] == "/scratch"
        for building in job["spec"]["template"]["spec"].get("initContainers", []):
            assert "PATTERN" not in {variable["name"] for variable in building["env"]}


def test_pods_that_are_looked_into_wait_and_have_the_command_at_hand():
    measuring, waiting = (
        [container(job) for job in jobs(all_of(plan_of(FULL, f"kubernetes: {{debug: {debug}}}")))]
        for debug in ("false", "true")
    )
    assert len(waiting) == len(measuring) > 1
    for one, other in zip(waiting, measuring, strict=True):
        assert one["command"] == ["sleep", "infinity"]
        (command,) = [variable["value"] for variable in one["env"] if variable["name"] == "LAUNCH"]
        assert shlex.split(command.replace("$$(", "$(")) == [word.replace("$$(", "$(") for word in other["command"]]
        assert one["resources"] == other["resources"]
    assert {job["spec"]["backoffLimit"] for job in jobs(all_of(plan_of(FULL, "kubernetes: {debug: true}")))} == {0}


ENDPOINTS = """
modes: [online]
workloads: [asked]
launches: 3
engine: {python: /home/me/venv/bin/python}
endpoints:
  theirs: {url: "http://theirs.models:8000/v1", model: a, api_key_env: THEIR_KEY}
  ours: {url: "http://ours.models:8000/v1", model: b}
workload_settings:
  asked:
    dataset: {path: docs/examples/trace.jsonl, format: trace}
    prompts: 8
    samples_per_prompt: 1
    online: {request_rate: trace}
"""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("models", ["[]", "[folder]"])
def test_one_job_measures_all_endpoints_and_nothing_else(models: str, version: str):
    merged = merged_of(FULL, ENDPOINTS, f"models: {models}")
    config = read_config(merged)
    plan = schedule(config, expand(config, probe_engine(None)))
    files = manifests(plan, plan.missing, merged)
    mounted, job = yaml.safe_load_all(files[LAUNCHER])
    for document in (mounted, job):
        kubernetes_validate.validate(document, version, strict=True)
    own = [found for name, text in files.items() if name != LAUNCHER for found in yaml.safe_load_all(text)]
    records = {found["metadata"]["annotations"]["rollout-bench/record"] for found in own if found["kind"] == "Job"}
    assert records == {record for record in plan.missing if plan.by_record[record][1].experiment.spec.endpoint is None}
    assert (records == set()) == (models == "[]")
    inner = json.loads(mounted["data"]["config.json"])
    assert inner["models"] == []
    assert inner["workload_settings"]["asked"]["dataset"]["path"] == "/data/datasets/trace.jsonl"
    pod = job["spec"]["template"]["spec"]
    assert [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume] == [
        mounted["metadata"]["name"]
    ]
    assert container(job)["envFrom"] == [{"secretRef": {"name": "hub-token"}}]
    assert set(container(job)["resources"]["limits"]) == {"cpu", "memory"}
    assert pod["activeDeadlineSeconds"] == 6 * 1000 + 300
    assert inner["engine"]["python"] is None
    of_endpoints = [record for record in plan.missing if plan.by_record[record][1].experiment.spec.endpoint is not None]
    fewer = manifests(plan, of_endpoints[:1], merged)
    assert fewer[LAUNCHER] == files[LAUNCHER], "what was applied can be applied again"


NAMES = st.from_regex(NAME_PATTERN, fullmatch=True).filter(lambda name: len(name) <= 60)
DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


@given(model=NAMES, quant=NAMES, workload=NAMES, launch=st.integers(0, 9_999))
def test_names_are_dns_labels_whatever_models_are_called(model: str, quant: str, workload: str, launch: int):
    spec = make_spec(model, quant, workload)
    name = job_name(spec, launch)
    assert DNS_LABEL.fullmatch(name)
    assert len(name) <= LONGEST
    assert "--" not in name
    assert name.startswith(specs_name(spec))
    assert name == job_name(make_spec(model, quant, workload), launch)


@given(st.lists(st.tuples(NAMES, st.integers(0, 9_999)), unique=True, min_size=2, max_size=8))
def test_no_two_launches_have_one_name(launches: list[tuple[str, int]]):
    assert len({job_name(make_spec(model), launch) for model, launch in launches}) == len(launches)


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P"])))
def test_texts_stay_texts_for_every_reader_of_yaml(text: str):
    written = _text({"a": text})
    assert written.startswith(HEADER)
    assert yaml.safe_load(written) == {"a": text}
    if re.fullmatch(r"[0-9]+e[0-9]+", text):
        assert f'"{text}"' in written


def test_a_key_that_looks_like_a_number_is_quoted():
    assert 'a: "1234e567"' in _text({"a": "1234e567"})
