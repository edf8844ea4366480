"""Signals that ask this process to end, as something to wait for."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator


class Interrupted(Exception):  # noqa: N818 (an outcome)
    """A signal asked this process to end.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


@contextlib.contextmanager
def signals_as_descriptor() -> Iterator[int]:
    """While it holds, SIGINT, SIGTERM and SIGHUP are bytes to read from the descriptor and do nothing else.

    A SIGHUP that is ignored (nohup) stays ignored.
    """
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def pause(signals: int, seconds: float) -> None:
    """Sleeps so long; raises `Interrupted` as soon as a signal comes to the descriptor of `signals_as_descriptor`."""
    if select.select([signals], [], [], seconds)[0]:
        raise Interrupted(os.read(signals, 1)[0])
