"""The progress of a running launch: a small file beside the claim on it, which the run and `plan` read."""

import contextlib
from pathlib import Path

from pydantic import Field, ValidationError

from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.store import claim_path
from rollout_bench.core.errors import printable

PROGRESS = ".progress"
"""Suffix of the file, whose name is the claim's."""


WAITING = "waiting for devices"
"""How the progress of a launch that has no devices yet begins."""


class LaunchProgress(Strict):
    """What a running launch does now, and how many of its passes are done."""

    text: str = Field(description="Its phase, or its last pass with the speed, for people.")
    done: int = Field(0, ge=0, description="Passes done, with those of the warm-up.")
    passes: int | None = Field(None, description="All its passes; None if the number is not known.")
    warmup: int = Field(0, description="Passes of its warm-up.")
    pass_s: float | None = Field(None, description="Duration of its last pass, in seconds.")


def progress_path(record: Path) -> Path:
    """Return the path of the file with the progress of the launch that writes `record`."""
    return claim_path(record).with_suffix(PROGRESS)


def write_progress(record: Path, progress: LaunchProgress) -> None:
    """Write the progress of the launch that writes `record`; without a claim, write nothing.

    A reader may see half of the file: it then keeps what it knew. No result depends on it.
    """
    path = progress_path(record)
    with contextlib.suppress(OSError):
        if path.parent.is_dir():
            path.write_text(progress.model_dump_json())


def read_progress(record: Path) -> LaunchProgress:
    """Return the progress of the launch that writes `record`; "begun" if it has written none."""
    try:
        progress = LaunchProgress.model_validate_json(progress_path(record).read_bytes())
    except (OSError, ValidationError):
        return LaunchProgress(text="begun")
    return progress.model_copy(update={"text": printable(progress.text) or "begun"})
