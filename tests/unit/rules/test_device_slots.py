"""How many launches run side by side, on which device each begins, and that pairs take turns on it."""

from collections import Counter, defaultdict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from refusals import refused
from snakemake.resources import Resources
from workspace import REPOSITORY, TINY

from rollout_bench.measure.machine.device import Device
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.schedule import Schedule, schedule
from rollout_bench.rules.device_slots import DeviceSlots, check_devices


def side_of(plan: Schedule, on_cluster: bool = False, cores: int | None = 8) -> tuple[DeviceSlots, dict[str, int]]:
    """Return how the launches of a plan share this machine, and the limits that Snakemake was given for it."""
    limits = Resources()
    workflow = SimpleNamespace(
        global_resources=limits,
        resource_settings=SimpleNamespace(cores=cores),
        is_main_process=True,
        register_resource=limits.__setitem__,
    )
    return DeviceSlots(plan, workflow, on_cluster), {name: limit.value for name, limit in limits.items()}


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    found = [Device(f"GPU-{number}", str(number), (f"GPU-{number}",), number) for number in range(count)]
    monkeypatch.setattr("rollout_bench.rules.device_slots.visible_devices", lambda *_: found)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a node with four GPUs."""
    with_gpus(monkeypatch, 4)


def planned(**changes) -> Schedule:
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text()) | TINY | changes
    return schedule(read_config(config), expand(read_config(config), probe_engine(None)))


def on_gpus(**engine_args) -> Schedule:
    """Return a plan of two models whose specs are made to be of a node with GPUs."""
    shapes = {name: {"synthetic": {"preset": "qwen3-tiny"}} for name in ("a", "b")}
    plan = planned(models=["a", "b"], model_settings=shapes, launches=4, isolation="per_device")
    for launch in plan.launches:
        spec = launch.experiment.spec
        args = spec.engine.args | engine_args
        moved = spec.model_copy(update={"platform": "cuda", "engine": spec.engine.model_copy(update={"args": args})})
        object.__setattr__(launch.experiment, "spec", moved)
    return plan


def wildcards(launch) -> SimpleNamespace:
    spec = launch.experiment.spec
    return SimpleNamespace(mode=spec.mode, experiment=launch.experiment.name, launch=str(launch.index))


def test_a_launch_on_cpu_has_all_cores_by_default():
    plan = planned()
    side, limits = side_of(plan)
    first = wildcards(plan.launches[0])
    assert (side.threads(first), list(side.resources), side.arguments(first), limits) == (
        8,
        ["devices"],
        ["--first-device", "0"],
        {},
    )


def test_compared_launches_share_a_device_and_rounds_use_all(gpus: None):
    plan = on_gpus()
    side, limits = side_of(plan)
    assert limits == {"devices": 4} | {f"device_{number}": 1 for number in range(4)}
    places = defaultdict(set)
    for launch in plan.launches:
        own = wildcards(launch)
        slots = {name for name, needed in side.resources.items() if name != "devices" and needed(own)}
        places[launch.experiment.spec.model.name, launch.index] |= slots
        assert side.arguments(own) == ["--isolation", "per_device", "--first-device", str(side.first(launch))]
        assert side.threads(own) == 2
    assert {len(slots) for slots in places.values()} == {1}
    assert set(Counter(slot for slots in places.values() for slot in slots).values()) == {2}


@pytest.mark.parametrize("cores", [None, 1])
def test_a_cluster_deals_out_devices_and_cores_itself(gpus: None, cores: int | None):
    plan = on_gpus(tensor_parallel_size=2)
    side, limits = side_of(plan, on_cluster=True, cores=cores)
    first = wildcards(plan.launches[0])
    assert (list(side.resources), side.threads(first), limits) == (["devices"], 8, {})
    assert side.arguments(first) == ["--isolation", "per_device"]


@pytest.mark.parametrize("devices", [2, 3, 4, 8])
def test_models_that_are_compared_swap_devices_over_their_launches(
    monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    """Of any number of launches no device has one side more than once more often: else their pairs would not count."""
    with_gpus(monkeypatch, devices)
    plan = on_gpus()
    side, _ = side_of(plan)
    uneven: Counter[int] = Counter()
    for launch in sorted(plan.launches, key=lambda launch: (launch.index, launch.experiment.spec.model.name)):
        spec = launch.experiment.spec
        if spec.quant.name == plan.launches[0].experiment.spec.quant.name:
            uneven[side.first(launch)] += 1 if spec.model.name == "a" else -1
            assert spec.model.name == "a" or max(map(abs, uneven.values())) <= 1


def on_platform(plan: Schedule, platform: str) -> Schedule:
    return replace(plan, matrix=replace(plan.matrix, platform=platform))


def test_a_launch_needing_more_devices_is_refused_before_measuring(gpus: None):
    fits, beyond, product = (
        on_platform(on_gpus(**sizes), "cuda")
        for sizes in (
            {"tensor_parallel_size": 4},
            {"tensor_parallel_size": 8},
            {"tensor_parallel_size": 2, "data_parallel_size": 4},
        )
    )
    check_devices(fits.config, fits.matrix)
    with refused(
        "config: tensor_parallel_size: a launch of a needs 8 devices, and there are 4 here",
        "lower tensor_parallel_size, or plan for the cluster that has them (--profile profiles/slurm)",
    ):
        check_devices(beyond.config, beyond.matrix)
    with refused("config: data_parallel_size: a launch of a needs 8 devices", "lower data_parallel_size"):
        check_devices(product.config, product.matrix)
    pods = beyond.config.kubernetes.model_copy(update={"image": "registry/image:1"})
    check_devices(beyond.config.model_copy(update={"kubernetes": pods}), beyond.matrix)
