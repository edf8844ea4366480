"""Caches that a start finds, and packages that it needs, before the engine is started."""

from pathlib import Path

import pytest
from planned import REPOSITORY
from synthetic_starts import start_spec

from rollout_bench.contracts.spec import Spec
from rollout_bench.measure.launch import preflight
from rollout_bench.measure.launch.preflight import check_before_start, engine_environment
from rollout_bench.modes.startup.hooks import FILLED, is_filled, obstacle, warm_folder


def test_warm_caches_are_shared_by_all_starts_that_compile_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in preflight.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    starts = [start_spec("warm"), start_spec("warm", "auto", "other"), start_spec("warm", "dummy")]
    folders = [warm_folder(spec, engine_environment(spec, "m/m")) for spec in starts]
    assert folders[0] is not None
    assert folders[0] == folders[1] != folders[2]
    assert folders[0].is_relative_to(tmp_path)
    assert not (folders[0] / FILLED).exists()
    cold = start_spec("cold")
    assert warm_folder(cold, engine_environment(cold, "m/m")) is None


def test_what_the_shell_sets_moves_no_warm_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    spec = start_spec("warm")
    for name in preflight.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    usual = engine_environment(spec, "m/m")
    for name in preflight.VARIABLES:
        monkeypatch.setenv(name, str(tmp_path / "mine" / name))
    moved = engine_environment(spec, "m/m")
    assert {name: usual[name] for name in preflight.VARIABLES} == {name: moved[name] for name in preflight.VARIABLES}
    assert warm_folder(spec, usual) == warm_folder(spec, moved)
    assert not (tmp_path / "mine").exists()


def test_caches_that_were_deleted_are_filled_again(tmp_path: Path) -> None:
    assert not is_filled(tmp_path)
    (tmp_path / FILLED).touch()
    assert not is_filled(tmp_path)
    (tmp_path / "vllm" / "modelinfos").mkdir(parents=True)
    assert not is_filled(tmp_path)
    (tmp_path / "vllm" / "modelinfos" / "info.json").touch()
    assert is_filled(tmp_path)


def test_warm_caches_that_can_lie_nowhere_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_writable", lambda folder: False)
    cause = obstacle(start_spec("warm"), Path("launch-0.json"))
    assert cause is not None
    assert cause.category == "no_room_for_caches"
    assert "XDG_CACHE_HOME" in cause.fix
    assert obstacle(start_spec("cold"), Path("launch-0.json")) is None


def with_installed(spec: Spec) -> Spec:
    """Return `spec` with the version of its engine that is installed."""
    return spec.model_copy(
        update={"engine": spec.engine.model_copy(update={"version": preflight.version(spec.engine.name)})}
    )


def test_a_format_without_its_package_fails_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    cause = check_before_start(with_installed(start_spec(loads="runai_streamer")), "m/m", None)
    assert cause is not None
    assert cause.category == "load_format_missing"
    assert "runai_model_streamer" in cause.cause
    assert "requirements/loading.in" in cause.fix
    assert (REPOSITORY / "requirements" / "loading.in").is_file()
