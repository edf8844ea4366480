"""The trainer's process as the engine's process sees it: starts it, orders, hears what it tells, and ends with it."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from rollout_bench.measure.launch.failures import CRASH_FIX, diagnose
from rollout_bench.measure.server.stream import ServingFailed
from rollout_bench.measure.transfer.transfer_words import (
    Order,
    TrainerFailed,
    TrainerJob,
    TrainerWord,
    trainer_word,
)

Told = TypeVar("Told", bound=TrainerWord)


class TrainerLink:
    """Starts the trainer's process and speaks with it. It stays in this session, and ends with this process.

    Args:
        job: what it is to have and to send.

    Raises:
        ServingFailed: from any method, where it failed or ended.
    """

    def __init__(self, job: TrainerJob) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rollout_bench.measure.transfer.trainer_process", str(writing)],
            stdin=subprocess.PIPE,
            pass_fds=[writing],
        )
        os.close(writing)
        self._words: queue.SimpleQueue[TrainerWord] = queue.SimpleQueue()
        self._failed: TrainerFailed | None = None
        self._in_engine = False
        self._thread = threading.get_ident()
        # raises in this thread while the engine waits for a trainer that is no more
        signal.signal(signal.SIGUSR2, self._interrupted)
        self._write(job.model_dump_json())
        threading.Thread(target=self._listen, args=(reading,), daemon=True).start()

    def order(self, order: Order) -> None:
        """Tell it to do something."""
        self._write(order.model_dump_json())

    def told(self, *kinds: type[Told]) -> Told:
        """Return its next word, which is of one of these kinds."""
        word = self._words.get()
        if isinstance(word, TrainerFailed):
            raise failure(word)
        assert isinstance(word, kinds), f"the trainer told {word!r}"
        return word

    @contextmanager
    def in_engine(self) -> Iterator[None]:
        """While the engine waits for the trainer: raise `ServingFailed` as soon as that has failed."""
        self._in_engine = True
        try:
            if self._failed is not None:
                raise failure(self._failed)
            yield
        finally:
            self._in_engine = False

    def _write(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # that it is gone, its pipe says
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def _listen(self, reading: int) -> None:
        """Put all that it tells into the queue, and at last that it has ended."""
        with os.fdopen(reading, "rb") as pipe:
            for line in pipe:
                try:
                    word = trainer_word(line)
                except ValueError:  # it was killed in the midst of a line
                    break
                if isinstance(word, TrainerFailed):
                    self._fail(word)
                    return
                self._words.put(word)
        self._fail(ended(self.process))

    def _fail(self, word: TrainerFailed) -> None:
        self._failed = word
        self._words.put(word)
        if self._in_engine:
            signal.pthread_kill(self._thread, signal.SIGUSR2)

    def _interrupted(self, *_: object) -> None:
        if self._in_engine and self._failed is not None:
            raise failure(self._failed)


def ended(process: subprocess.Popen[bytes]) -> TrainerFailed:
    """Return what is to be said of a trainer's process that ended without a word."""
    status = process.wait()
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    fix = f"{CRASH_FIX}; where nobody ended it, memory may have run out: look at dmesg"
    return TrainerFailed(exception=f"its process {how}", category="crash", fix=fix)


def failure(word: TrainerFailed) -> ServingFailed:
    """Return why the trainer failed, in two lines."""
    if word.category:
        return ServingFailed(word.category, f"the trainer: {word.exception}", word.fix)
    cause = diagnose(word.exception, "")
    return ServingFailed(cause.category, f"the trainer: {cause.cause}", cause.fix)
