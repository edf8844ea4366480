"""A server of ours that is ending: its sockets are closed before its process is gone, and its end is the cause."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.server import session
from rollout_bench.measure.server.session import Opened


class Ending:
    """A server whose process is gone when it is looked at for the `gone_at`-th time; never, of 0."""

    def __init__(self, gone_at: int) -> None:
        self._gone_at, self._looks = gone_at, 0

    def check(self) -> None:
        self._looks += 1
        if self._looks == self._gone_at:
            raise MeasuringFailed("", "the server was ended by signal 9", "")


def cause_of(server: Ending | None) -> str:
    """Return what is said of a pass whose every request failed."""
    nothing = cast("Any", None)
    target = cast("Any", SimpleNamespace(url="http://here/v1"))
    opened = Opened(target, nothing, nothing, nothing, {}, 1, 100, server=cast("Any", server))
    with pytest.raises(MeasuringFailed) as error, opened.between_passes():
        raise MeasuringFailed("all_requests_failed", "all 8 requests failed", "")
    return str(error.value)


@pytest.mark.parametrize("gone_at", [1, 3])
def test_a_failed_launch_names_the_end_of_its_server(gone_at: int) -> None:
    assert "ended by signal 9" in cause_of(Ending(gone_at))


def test_living_and_foreign_servers_leave_the_cause_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "DYING_S", 0.1)
    assert "all 8 requests failed" in cause_of(Ending(0))
    assert "all 8 requests failed" in cause_of(None)
