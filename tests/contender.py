"""Takes devices again and again, as launches do, and writes down when it held which: for tests of leases.

python contender.py FOLDER LOG DEVICES WANTED ROUNDS [exclusive]

It prints a line when it is about to begin, and begins when its standard input ends.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rollout_bench.contracts.spec import Isolation
from rollout_bench.measure.machine.device import Device
from rollout_bench.measure.machine.leases import Claim, Claims, Held


class Cannot(Exception):  # noqa: N818 (an outcome)
    """Waiting would have been needed."""


def no_waiting(seconds: float) -> None:
    if seconds > 0.01:  # that is no wait for the folder's lock
        raise Cannot


def made_devices(count: int) -> list[Device]:
    """Return devices d0, d1, ..."""
    return [Device(f"d{number}", str(number), (f"d{number}",), number) for number in range(count)]


@contextmanager
def hold(
    folder: Path,
    count: int,
    wanted: int,
    isolation: Isolation = "per_device",
    name: str = "offline/a/launch-0",
    said: list[str] | None = None,
    pause=lambda seconds: time.sleep(min(seconds, 0.02)),
) -> Iterator[Held]:
    """Hold `wanted` of `count` devices."""
    devices = made_devices(count)
    claim = Claim(
        name=name,
        results="/results",
        pid=os.getpid(),
        isolation=isolation,
        holds=[],
    )
    said = [] if said is None else said
    with Claims(folder).taken(claim, devices, (1, wanted), pause, said.append) as got:
        yield got


def main() -> None:
    """Run one contender."""
    folder, log, count, wanted, rounds = sys.argv[1:6]
    isolation: Isolation = "exclusive" if sys.argv[6:] else "per_device"
    print("ready", flush=True)
    sys.stdin.read()
    with Path(log).open("a") as lines:
        for _ in range(int(rounds)):
            with hold(Path(folder), int(count), int(wanted), isolation) as got:
                names = ",".join(device.name for group in got.groups for device in group)
                began = time.monotonic_ns()
                time.sleep(0.004)
                lines.write(f"{began} {time.monotonic_ns()} {isolation} {names}\n")
                lines.flush()
            time.sleep(0.001)


if __name__ == "__main__":
    main()
