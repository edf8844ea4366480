"""What a user can get wrong about Kubernetes is told in two lines, and no secret with it."""

from __future__ import annotations

import pytest
import yaml
from bad_kubernetes import BAD_KUBERNETES, BAD_WHEN_WRITTEN, Bad
from planned import merged_with, planned
from pydantic import ValidationError
from snakemake.utils import update_config

from rollout_bench.cluster.manifest_files import manifests
from rollout_bench.cluster.manifests import CODE, DATA, SCRATCH, SPEC, device_resource
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.pods import KubernetesSettings
from rollout_bench.plan.schedule import schedule


@pytest.mark.parametrize("bad", BAD_KUBERNETES, ids=lambda bad: bad.name)
def test_a_wrong_setting_is_told_in_two_lines(bad: Bad):
    with pytest.raises(UserError) as raised:
        planned(bad.overlay)
    problem, remedy = str(raised.value).split("\n")
    assert bad.problem in problem
    assert bad.remedy in remedy
    assert "hush" not in str(raised.value).lower()


@pytest.mark.parametrize("bad", BAD_WHEN_WRITTEN, ids=lambda bad: bad.name)
def test_what_is_wrong_for_manifests_alone_is_told_when_they_are_written(bad: Bad):
    merged = merged_with("{}" if bad.name == "no_image" else "kubernetes: {image: 'bench:1'}")
    update_config(merged, yaml.safe_load(bad.overlay))
    config = read_config(merged)
    plan = schedule(config, expand(config, probe_engine(None)))
    with pytest.raises(UserError) as raised:
        manifests(plan, plan.missing, {})
    problem, remedy = str(raised.value).split("\n")
    assert bad.problem in problem
    assert bad.remedy in remedy


@pytest.mark.parametrize(
    "image", ["bench:1", "team/bench:v1.2_x", "host:5000/team/bench:1", "bench@sha256:" + 64 * "0", "bench:1@sha256:0"]
)
def test_an_image_with_tag_or_digest_is_good(image: str):
    assert KubernetesSettings(image=image).image == image


@pytest.mark.parametrize(
    "path", ["/usr/local/Ascend/driver", "/usr/local/dcmi", "/usr/local/bin/npu-smi", "/etc/hccn.conf", "/mnt/weights/"]
)
def test_a_folder_or_file_that_hides_nothing_of_the_container_can_be_mounted(path: str):
    assert KubernetesSettings(host_paths=[path]).host_paths == [path.rstrip("/")]


@pytest.mark.parametrize(
    "own", [CODE, DATA, SCRATCH, SPEC, "/", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr", "/var"]
)
def test_no_mount_hides_a_folder_of_the_container(own: str):
    for place in ({"host_paths": [own]}, {"models_path": own}):
        with pytest.raises(ValidationError, match="would hide"):
            KubernetesSettings.model_validate(place)


@pytest.mark.parametrize("resource", ["nvidia.com/mig-1g.10gb", "huawei.com/Ascend910B", "example.com/npu"])
def test_resources_that_nobody_knows_here_are_taken_as_they_are(resource: str):
    assert device_resource(resource, "cuda") == resource


def test_a_machine_without_devices_asks_for_none():
    assert device_resource(None, "cpu") is None


def test_settings_of_kubernetes_are_no_part_of_an_experiment():
    plain = planned("{}").experiments
    changed = planned("{kubernetes: {image: 'bench:2', user_id: 0}, cluster: {memory_mb: 1000}}").experiments
    assert [e.spec.key() for e in plain] == [e.spec.key() for e in changed]


def test_a_size_is_never_zero():
    with pytest.raises(ValidationError):
        KubernetesSettings(shared_memory="0Gi")
