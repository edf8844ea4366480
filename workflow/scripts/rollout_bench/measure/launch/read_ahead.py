"""Reads the next launch's weights into the page cache while this launch still starts up, and never later.

A launch of a large model spends much of its start-up on reading weights from disk, and its compilation, profiling and
graph capture leave the disk idle. The reading begins once this launch's own weights are loaded, and has ended before
its first iteration begins.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from pathlib import Path

import psutil

from rollout_bench.measure.launch.preflight import WEIGHTS

CHUNK_BYTES = 4 << 20

POLL_S = 0.25
"""How often the log is asked whether this launch's weights are loaded."""

ROOM = 2
"""Times the size of the weights that must be available as memory: the page cache takes only what nobody needs."""

END_S = 30.0
"""How long a single read may keep the launch waiting; a file system that hangs for longer does not end it."""

LOADED = re.compile(rb"(?:Loading weights|Model loading) took ")
"""What the engine logs when its weights are loaded."""


class ReadAhead:
    """Reads one folder's weights in a thread of its own, with the lowest I/O priority.

    Args:
        folder: the next launch's weights; None: nothing is read.
        log: where the engine of this launch says that it has loaded its own; None: it reads none.
    """

    def __init__(self, folder: Path | None, log: Path | None) -> None:
        self._folder = folder
        self._log = log
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self.bytes_read = 0
        """Bytes read so far."""

    def start(self) -> None:
        """Begins to wait for the moment, and then to read; a second call does nothing."""
        if self._folder is not None and self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Ends the reading; when it returns, the thread is gone, or has hung in one read for `END_S`."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(END_S)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # what can't be read is the next launch's trouble, not this one's
            _lowest_priority()
            while not self._loaded():
                if self._over.wait(POLL_S):
                    return
            files = weight_files(self._folder)
            if sum(path.stat().st_size for path in files) * ROOM <= available_bytes():
                self._read(files)

    def _loaded(self) -> bool:
        return self._log is None or LOADED.search(self._log.read_bytes()) is not None

    def _read(self, files: list[Path]) -> None:
        buffer = bytearray(CHUNK_BYTES)
        for path in files:
            with path.open("rb", buffering=0) as file:
                while not self._over.is_set() and (got := file.readinto(buffer)):
                    self.bytes_read += got


def next_weights(plan: Path | None, record: Path, present: str) -> Path | None:
    """The folder with the weights of the launch that comes after this one; None where nothing is to be read of it.

    Args:
        plan: the plan file; one that is missing or is none is as good as no plan.
        record: where this launch's record will lie, as the plan writes it.
        present: this launch's model; where the next loads the same, it is in the page cache already.
    """
    if plan is None or "SLURM_JOB_ID" in os.environ:  # the next launch may run on another machine
        return None
    try:
        content = json.loads(plan.read_bytes())
        weights = {experiment["experiment"]: experiment.get("weights") for experiment in content["experiments"]}
        records = [Path(launch["record"]) for launch in content["launches"]]
        coming = next(path for path in records[records.index(record) + 1 :] if not path.exists())
        folder = Path(weights[coming.parent.name])
        return folder if folder.is_dir() and folder.resolve() != Path(present).resolve() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, StopIteration):
        return None


def weight_files(folder: Path | None) -> list[Path]:
    """The files of weights in `folder`, of the first format that it has: vLLM reads only one."""
    found = (sorted(folder.glob(pattern)) for pattern in WEIGHTS) if folder is not None else iter(())
    return next((files for files in found if files), [])


def available_bytes() -> int:
    """Memory that is available, in bytes; no more than this process's group may still use."""
    available = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        available = min(available, limit - used)
    return available


def _lowest_priority() -> None:
    """Gives this thread, and no other, the disk only when nobody else wants it."""
    with contextlib.suppress(psutil.Error, OSError, AttributeError):
        psutil.Process(threading.get_native_id()).ionice(psutil.IOPRIO_CLASS_IDLE)
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # Linux: of the thread alone
