"""Power over time: samples that are taken in the background while a pass runs, and the energy that they come to."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

FEWEST = 2
"""Samples from which on power over time is known at all."""


@dataclass(frozen=True)
class PowerSample:
    """Power of a device, in watts, at one moment of the monotonic clock, in seconds."""

    moment: float
    watts: float


def integral_j(samples: Sequence[PowerSample], began: float, ended: float) -> float | None:
    """Return the energy between two moments, in joules, from samples of power [n] in the order of time.

    The composite trapezoidal rule over the samples between the two moments; from the first moment to the first sample,
    and from the last sample to the last moment, power is taken to be that of the sample. A sample that was taken before
    or after, when the device idled, would tell nothing of these. None where fewer than `FEWEST` lie between.

    Source: Burden and Faires, Numerical Analysis, section 4.4. What sampling a GPU's sensor misses: Yang, Adamek and
    Armour, "Part-time power measurements: nvidia-smi's lack of attention", arXiv:2312.02741, 2023.
    """
    inside = [sample for sample in samples if began <= sample.moment <= ended]
    if len(inside) < FEWEST:
        return None
    first, last = inside[0], inside[-1]
    between = sum(
        (own.watts + following.watts) / 2 * (following.moment - own.moment)
        for own, following in itertools.pairwise(inside)
    )
    return first.watts * (first.moment - began) + between + last.watts * (ended - last.moment)


@dataclass(frozen=True)
class Sampled:
    """Power of a device while a pass ran: its samples, and when sampling began and ended, in seconds as they have."""

    samples: Sequence[PowerSample]
    began: float
    ended: float

    @property
    def energy_j(self) -> float | None:
        """The integral, in joules."""
        return integral_j(self.samples, self.began, self.ended)


class PowerSampler:
    """Samples the power of devices in a thread of its own while a pass runs.

    The thread waits between two samples; while it asks a driver or a tool, it holds no lock of this process. Nobody
    waits for it: a sample that is not complete when the pass is over is none.

    Args:
        watts: returns the power of each device that tells it, in watts, by its name.
        every_s: pause between two samples.
    """

    def __init__(self, watts: Callable[[], Mapping[str, float]], every_s: float) -> None:
        self._watts = watts
        self._every_s = every_s
        self._over = threading.Event()
        self._samples: dict[str, list[PowerSample]] = {}
        self._began = 0.0

    def begin(self) -> None:
        """Take note that a pass begins: sample from now on."""
        self._over.set()
        self._over, self._samples, self._began = threading.Event(), {}, time.monotonic()
        threading.Thread(target=self._sample, args=(self._over, self._samples), name="power", daemon=True).start()

    def end(self) -> dict[str, Sampled]:
        """Take note that the pass is over; return what was sampled of each device that tells its power."""
        self._over.set()
        ended = time.monotonic()
        return {device: Sampled(list(found), self._began, ended) for device, found in list(self._samples.items())}

    def _sample(self, over: threading.Event, samples: dict[str, list[PowerSample]]) -> None:
        while not over.wait(self._every_s):
            began = time.monotonic()
            found = self._watts()
            # in the middle of asking: a tool takes up to a second, and says power of some moment in it
            moment = (began + time.monotonic()) / 2
            if over.is_set():
                return
            for device, watts in found.items():
                samples.setdefault(device, []).append(PowerSample(moment, watts))
