"""Host and devices around each pass: readings, pauses, and flags for interference.

A stopped process leaves no trace. So during a pass the supervisor checks twice a second: the state of each engine
process, and the clock. If the supervisor wakes up more than a second late, it was suspended (`scontrol suspend`,
`docker pause`, Ctrl-Z). Its engine, in the same job and container, was then probably suspended too. The monotonic clock
stops while the machine is suspended; the boot-time clock continues, and the difference shows the suspension.

A check reads one small file of each process and takes 0.03 ms for each (measured): 0.02 % of a core for three
processes.
"""

import select
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from rollout_bench.contracts.host_limits import HOST_LIMITS, Limit, lost_time
from rollout_bench.contracts.record import DeviceUse, Flag, HostUse, Iteration, Placement
from rollout_bench.contracts.spec import Platform
from rollout_bench.core.numbers import first_few
from rollout_bench.core.processes import Group, is_stopped, members_of
from rollout_bench.measure.machine.device import DeviceReading
from rollout_bench.measure.machine.gpus import Gpus, used
from rollout_bench.measure.machine.host import Reading, host_use, read_host
from rollout_bench.measure.machine.inventory import VARIABLES
from rollout_bench.measure.machine.leases import Lease
from rollout_bench.measure.machine.npus import Npus

SWAP_BYTES = 1 << 20
"""Number of swapped bytes in a launch above which it is flagged; some pages are always moved."""

THERMAL_SHARE = 0.01
"""Share of time with a clock lowered by heat above which a launch is flagged; a cooled device has none."""

POWER_SHARE = 0.1
"""Share of time with a clock lowered by the power limit above which a launch is flagged."""

DEVICE_MEMORY_BYTES = 1 << 28
"""Device memory of others in bytes above which a launch is flagged; a monitor's empty context holds less."""


NO_ENERGY = {
    "cpu": "the energy of a CPU is not read",
    "cuda": "NVML is not there, does not know the GPUs that the launch uses, or does not count their energy",
    "ascend": "npu-smi does not count the energy of its NPUs",
}
"""Platform -> reason for an unknown energy; the devices of an endpoint are not read."""


def host_flags(platform: Platform, read: Sequence[HostUse]) -> list[Flag]:
    """Return flags from readings of the host around the measured iterations."""
    flags = [flag for limit in HOST_LIMITS if (flag := _judge(limit, platform, read)) is not None]
    if (swapped := sum(host.swap_bytes or 0 for host in read)) > SWAP_BYTES:
        sentence = f"{swapped / 2**20:.1f} MiB were swapped in or out during the measured iterations (limit 1 MiB)."
        flags.append(Flag(code="swapping", severity="warning", sentence=sentence))
    return flags


def device_flags(read: Sequence[tuple[int, DeviceUse]]) -> list[Flag]:
    """Return flags from readings of devices, each with the index of its measured iteration."""
    if not read:
        return []
    flags = []
    for cause, limit, share in (
        ("heat", THERMAL_SHARE, "thermal_share"),
        ("its power limit", POWER_SHARE, "power_share"),
    ):
        index, use = max(read, key=lambda pair: getattr(pair[1], share) or 0.0)
        if (lowered := getattr(use, share) or 0.0) > limit:
            sentence = (
                f"Iteration {index}: the clock of {use.device} was lowered by {cause} for {100 * lowered:.0f} % of "
                f"the time (limit {100 * limit:.0f} %; {use.temperature_c} C, limit {use.power_limit_w} W of "
                f"{use.power_limit_default_w} W)."
            )
            flags.append(Flag(code="throttled", severity="warning", sentence=sentence))
    index, use = max(read, key=lambda pair: pair[1].other_memory_bytes or 0)
    if (held := use.other_memory_bytes or 0) > DEVICE_MEMORY_BYTES:
        sentence = f"Iteration {index}: {use.other_processes} others held {held / 2**30:.1f} GiB of {use.device}."
        flags.append(Flag(code="device_shared", severity="warning", sentence=sentence))
    return flags


def _judge(limit: Limit, platform: Platform, read: Sequence[HostUse]) -> Flag | None:
    lost = lost_time(limit, read)
    if lost is None or lost.certain <= limit.warning:
        return None
    invalid = platform == "cpu" and lost.certain > limit.invalid
    allowed = limit.invalid if invalid else limit.warning
    who = f", most of it {lost.busiest}" if lost.busiest else ""
    worst = f"; {100 * lost.worst:.1f} % in the worst of {len(read)} iterations" if len(read) > 1 else ""
    sentence = f"While it was measured {100 * lost.mean:.1f} % {limit.what}{who}{worst} (limit {100 * allowed:.0f} %)."
    return Flag(code=limit.code, severity="invalid" if invalid else "warning", sentence=sentence)


LOOK_S = 0.5
"""Interval between checks in seconds; longer stops are noticed."""

LATE_S = 1.0
"""Largest normal lateness of the supervisor in seconds; other work delays it by hundredths of a second."""


class PauseDetector:
    """Notices interruptions of the current pass."""

    def __init__(self) -> None:
        self._pids: Sequence[int] = ()
        self._stopped_s = self._late_s = self._suspended_s = 0.0

    def begin(self, pids: Sequence[int]) -> None:
        """Start watching a pass of the processes `pids`; without processes, watch nothing."""
        self._pids = pids
        self._stopped_s = self._late_s = 0.0
        self._suspended_s = suspended_s()

    def wait(self, descriptors: Sequence[int], limit_s: float) -> list[int]:
        """Wait at most `limit_s` seconds until one of `descriptors` is readable; return the readable ones.

        During a pass it returns after at most `LOOK_S` seconds, and checks whether the engine could run.
        """
        if not self._pids:
            return select.select(descriptors, [], [], limit_s)[0]
        nap_s, began = min(limit_s, LOOK_S), time.monotonic()
        readable = select.select(descriptors, [], [], nap_s)[0]
        slept_s = time.monotonic() - began
        if slept_s > nap_s + LATE_S:
            self._late_s += slept_s
        elif any(is_stopped(pid) for pid in self._pids):
            self._stopped_s += slept_s
        return readable

    def end(self) -> list[str]:
        """End the watch; return the interruptions of the pass, each as the end of a sentence."""
        self._pids = ()
        held_up = (
            ("a process of the engine was stopped", self._stopped_s, 0.0),
            ("the launch as a whole was stopped or frozen", self._late_s, 0.0),
            # two clocks cannot be read at the same time, so small differences are no evidence
            ("the machine was suspended", suspended_s() - self._suspended_s, LATE_S),
        )
        return [f"{what} for about {seconds:.1f} s" for what, seconds, least in held_up if seconds > least]


def suspended_s() -> float:
    """Return the total time for which the machine was suspended since boot, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


@dataclass(frozen=True)
class PassObservations:
    """Observations around one pass, besides the readings of host and devices.

    Args:
        neighbours: launches on other devices of the node.
        lost: whether the lease was gone at the end.
        held_up: interruptions of the engine, each as the end of a sentence.
    """

    neighbours: set[str]
    lost: bool
    held_up: list[str]


class HostMonitor:
    """Reads host and devices in the supervisor.

    Args:
        platform: the platform.
        environments: the environment of each replica.
        processes: returns the engine's sessions and the pids of its helper processes.
        lease: the launch's lease; None records no neighbours.
        pauses: notices interruptions of a pass.
        mates: returns the pids of the block's processes; None outside blocks. Their device memory raises no flag. Their
            use of the host does, because waiting engines should use nothing.
        devices: number of devices that all replicas together use; 0 reads none.
    """

    def __init__(
        self,
        platform: Platform,
        environments: Sequence[Mapping[str, str]],
        processes: Callable[[], tuple[list[Group], set[int]]],
        lease: Lease | None = None,
        pauses: PauseDetector | None = None,
        mates: Callable[[], set[int]] | None = None,
        devices: int = 0,
    ) -> None:
        self._platform = platform
        self._processes = processes
        self._lease = lease
        self._pauses = pauses or PauseDetector()
        self._mates = mates or set[int]
        # for each replica; empty on a CPU; known before the engine is ready, because a start may be the pass
        self._devices = _readers(platform, environments, devices)
        self._neighbours: set[str] = set()
        self._host_before: Reading | None = None
        self._devices_before: list[DeviceReading] = []
        self._after: tuple[Reading, list[DeviceReading], PassObservations] | None = None
        self._seen: list[PassObservations] = []  # for each pass

    def before(self) -> None:
        """Read everything when the engine is ready for a pass; the host last, closest to the pass."""
        self._neighbours = self._read_neighbours()
        self._pauses.begin(members_of(self._processes()[0]))
        self._devices_before = self.read_devices()
        self._host_before = read_host(*self._processes())

    def ends(self) -> None:
        """Read everything again as soon as the pass is over."""
        self._after = self._read_host_and_devices()

    def _read_host_and_devices(self) -> tuple[Reading, list[DeviceReading], PassObservations]:
        host, devices, held_up = read_host(*self._processes()), self.read_devices(), self._pauses.end()
        lost = self._lease is not None and self._lease.is_lost()
        return host, devices, PassObservations(self._neighbours | self._read_neighbours(), lost, held_up)

    def after(self, iteration: Iteration) -> Iteration:
        """Return `iteration` with the use of host and devices."""
        host, devices = self.meanwhile()
        return iteration.model_copy(update={"host": host, "devices": devices or None})

    def meanwhile(self) -> tuple[HostUse | None, list[DeviceUse]]:
        """Return the use of host and devices since `before`."""
        (host, devices, seen), self._after = self._after or self._read_host_and_devices(), None
        self._seen.append(seen)
        groups, helpers = self._processes()
        ours = helpers | set(members_of(groups)) | self._mates() if devices else helpers
        use = host_use(self._host_before, host) if self._host_before else None
        return use, [used(*pair, ours) for pair in zip(self._devices_before, devices, strict=False)]

    def why_no_energy(self, iterations: Sequence[Iteration]) -> str | None:
        """Return why the energy of measured iterations is unknown; None if it is known for all."""
        uses = [it.devices for it in iterations if not it.warmup]
        known = all(read and all(use.energy_j is not None for use in read) for read in uses)
        return None if known and self._platform != "cpu" else NO_ENERGY.get(self._platform)

    def placement(self, counted: Collection[int] | None) -> Placement | None:
        """Return the launch's placement, with neighbours during the passes in `counted`, from 0; None: all."""
        beside = sorted(set().union(*(seen.neighbours for seen in self._counted(counted).values())))
        return None if self._lease is None else self._lease.placement(beside)

    def flags(self, counted: Collection[int] | None) -> list[Flag]:
        """Return flags for the passes in `counted`: neighbours, a lost lease, interruptions of the engine.

        A pass's time includes an interruption. After the lease was lost, another launch may have used the devices.
        """
        passes, flags = self._counted(counted), list[Flag]()
        if (placement := self.placement(counted)) is not None and placement.neighbours:
            sentence = (
                f"Other launches ran on {placement.node} meanwhile: {first_few(placement.neighbours, 3)}; "
                "each has devices of its own, but memory of the host, its buses and power are shared."
            )
            flags.append(Flag(code="shared_node", severity="warning", sentence=sentence))
        lost = [number for number, seen in passes.items() if seen.lost]
        if lost and self._lease is not None:
            sentence = (
                f"Somebody removed the lease, {self._lease.claim.path}, before pass {lost[0]} was over; so another "
                "launch could take the devices, and nobody could have told."
            )
            flags.append(Flag(code="lease_lost", severity="invalid", sentence=sentence))
        held_up = [f"During pass {n} {', and '.join(seen.held_up)}." for n, seen in passes.items() if seen.held_up]
        if held_up:
            flags.append(Flag(code="paused", severity="invalid", sentence=" ".join(held_up)))
        return flags

    def _counted(self, counted: Collection[int] | None) -> dict[int, PassObservations]:
        return {number: seen for number, seen in enumerate(self._seen) if counted is None or number in counted}

    def _read_neighbours(self) -> set[str]:
        return set() if self._lease is None else set(self._lease.neighbours())

    def read_devices(self) -> list[DeviceReading]:
        """Return a reading of each device of each replica."""
        return [reading for of_replica in self._devices for reading in of_replica.read()]


def _readers(platform: Platform, environments: Sequence[Mapping[str, str]], devices: int) -> list[Gpus | Npus]:
    """Return what reads the devices of each replica; all replicas together use `devices` devices."""
    variable, each = VARIABLES.get(platform), devices // len(environments)
    readers: list[Gpus | Npus] = []
    for variables in environments if variable is not None and each else ():
        names = [name for name in variables.get(variable or "", "").replace(" ", "").split(",") if name] or None
        readers.append(Gpus(names, each) if platform == "cuda" else Npus(names, each))
    return readers
