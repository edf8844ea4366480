"""What a kit holds, and where its packages come from."""

from types import SimpleNamespace

import pytest

from rollout_bench.core.errors import UserError
from rollout_bench.exchange import kit


@pytest.mark.parametrize(("platform", "backends"), [("cpu", [[], ["--torch-backend", "cpu"]]), ("cuda", [[]])])
def test_torch_for_a_cpu_may_come_from_its_own_index(
    platform: str, backends: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    failed = SimpleNamespace(returncode=1)
    monkeypatch.setattr(kit, "as_pip", lambda *_: {})
    monkeypatch.setattr(kit.subprocess, "run", lambda words, **_: asked.append(words) or failed)
    with pytest.raises(UserError, match="the packages were not resolved"):
        kit.packages_of(platform, "3.12", ["numpy==1.0"], None)
    assert asked == [[*asked[0], *backend] for backend in backends]
