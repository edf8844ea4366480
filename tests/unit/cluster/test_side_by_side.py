"""How many launches run side by side, on which device each begins, and that pairs take turns on it."""

from collections import Counter, defaultdict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from workspace import REPOSITORY, TINY

from rollout_bench.cluster.side_by_side import SideBySide, check_devices
from rollout_bench.core.errors import UserError
from rollout_bench.measure.machine.device import Device
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.schedule import Schedule, schedule


class Workflow(SimpleNamespace):
    """What SideBySide asks of Snakemake's workflow."""

    def __init__(self, cores: int | None = 8, nodes: int | None = None, **resources: int) -> None:
        limits = {name: SimpleNamespace(value=value) for name, value in resources.items()}
        settings = SimpleNamespace(cores=cores)
        super().__init__(
            global_resources=limits, resource_settings=settings, nodes=nodes, is_main_process=True, registered={}
        )

    def register_resource(self, name: str, value: int) -> None:
        self.registered[name] = value


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a node with four GPUs."""
    found = [Device(f"GPU-{number}", str(number), (f"GPU-{number}",), number) for number in range(4)]
    monkeypatch.setattr("rollout_bench.cluster.side_by_side.visible_devices", lambda *_: found)


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


def slots_of(side: SideBySide, launch) -> set[str]:
    return {name for name, needed in side.resources.items() if name != "devices" and needed(wildcards(launch))}


def test_a_launch_on_cpu_has_all_cores_by_default():
    plan, workflow = planned(), Workflow()
    side = SideBySide(plan, workflow, workflow.nodes is not None)
    assert {side.threads(wildcards(launch)) for launch in plan.launches} == {8}
    assert workflow.registered == {}
    assert (list(side.resources), side.arguments(wildcards(plan.launches[0]))[:2]) == (
        ["devices"],
        ["--isolation", "exclusive"],
    )


def test_compared_launches_share_a_device_and_rounds_use_all(gpus: None):
    plan, workflow = on_gpus(), Workflow()
    side = SideBySide(plan, workflow, workflow.nodes is not None)
    assert workflow.registered == {"devices": 4} | {f"device_{number}": 1 for number in range(4)}
    places = defaultdict(set)
    for launch in plan.launches:
        spec = launch.experiment.spec
        places[spec.model.name, launch.index] |= slots_of(side, launch)
        assert side.arguments(wildcards(launch)) == [
            "--isolation",
            "per_device",
            "--first-device",
            str(side.first(launch)),
        ]
        assert side.threads(wildcards(launch)) == 2
    assert {len(slots) for slots in places.values()} == {1}
    assert Counter(slot for slots in places.values() for slot in slots) == {
        f"device_{number}": 2 for number in range(4)
    }


@pytest.mark.parametrize("cores", [None, 1])
def test_a_cluster_deals_out_devices_and_cores_itself(gpus: None, cores: int | None):
    plan, workflow = on_gpus(tensor_parallel_size=2), Workflow(cores=cores, nodes=100)
    side = SideBySide(plan, workflow, workflow.nodes is not None)
    assert workflow.registered == {}
    assert (list(side.resources), {side.threads(wildcards(launch)) for launch in plan.launches}, side.all_cores) == (
        ["devices"],
        {8},
        8,
    )
    assert side.arguments(wildcards(plan.launches[0])) == ["--isolation", "per_device"]


@pytest.mark.parametrize("devices", [2, 3, 4, 8])
def test_models_that_are_compared_swap_devices_over_their_launches(
    monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    """Of any number of launches no device has one side more than once more often: else their pairs would not count."""
    found = [Device(f"GPU-{number}", str(number), (f"GPU-{number}",), number) for number in range(devices)]
    monkeypatch.setattr("rollout_bench.cluster.side_by_side.visible_devices", lambda *_: found)
    plan = on_gpus()
    side = SideBySide(plan, Workflow(), on_cluster=False)
    launches = sorted(plan.launches, key=lambda launch: launch.index)
    model = {launch.experiment.name: launch.experiment.spec.model.name for launch in launches}
    (name_a, *_), (name_b, *_) = ([name for name, of in model.items() if of == wanted] for wanted in ("a", "b"))
    uneven: Counter[int] = Counter()
    for index in range(4):
        (own,), (theirs,) = (
            [each for each in launches if (each.experiment.name, each.index) == (name, index)]
            for name in (name_a, name_b)
        )
        uneven[side.first(own)] += 1
        uneven[side.first(theirs)] -= 1
        assert max(map(abs, uneven.values())) <= 1


def refused(plan: Schedule) -> str | None:
    """Return the two lines that say that this machine has too few devices; None where it may have enough."""
    try:
        check_devices(plan.config, plan.matrix)
    except UserError as error:
        return str(error)
    return None


def on_platform(plan: Schedule, platform: str) -> Schedule:
    return replace(plan, matrix=replace(plan.matrix, platform=platform))


def test_a_launch_needing_more_devices_is_refused_before_measuring(gpus: None):
    fits, beyond = (on_platform(on_gpus(tensor_parallel_size=size), "cuda") for size in (4, 8))
    assert refused(fits) is None
    assert refused(beyond) == (
        "config: tensor_parallel_size: a launch of a needs 8 devices, and there are 4 here"
        "\n  -> lower tensor_parallel_size, or plan for the cluster that has them (--profile profiles/slurm)"
    )
    together = on_platform(on_gpus(tensor_parallel_size=2, data_parallel_size=4), "cuda")
    assert "config: data_parallel_size: a launch of a needs 8 devices" in str(refused(together))
    pods = beyond.config.kubernetes.model_copy(update={"image": "registry/image:1"})
    assert refused(replace(beyond, config=beyond.config.model_copy(update={"kubernetes": pods}))) is None
