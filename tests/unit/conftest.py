"""Shared by unit tests: a server, which is no engine."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stub_server import Stub


@pytest.fixture(scope="module")
def server() -> Iterator["Stub"]:
    """Run the stub for the tests of a file; `become` resets it."""
    from stub_server import running_stub  # few files ask it

    with running_stub() as stub:
        yield stub
