"""Host and devices around each iteration, read while the engine waits for the word to begin or has just ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from rollout_bench.engines.devices import DeviceReading, Devices, used
from rollout_bench.engines.host import Reading, between, read_host
from rollout_bench.engines.interference import lease_flags, pause_flags
from rollout_bench.engines.npus import Npus
from rollout_bench.engines.pauses import Pauses
from rollout_bench.engines.processes import Group, members_of
from rollout_bench.placement.lease import Lease
from rollout_bench.plan.spec import Platform
from rollout_bench.records.placement import Placement
from rollout_bench.records.record import DeviceUse, Flag, HostUse, Iteration


@dataclass
class Seen:
    """What was seen around one pass, besides host and devices.

    Args:
        neighbours: launches on other devices of the node.
        lost: whether the lease was gone when it was over.
        held_up: what kept the engine from running, each as the end of a sentence.
    """

    neighbours: set[str] = field(default_factory=set)
    lost: bool = False
    held_up: list[str] = field(default_factory=list)


class Surroundings:
    """Reads host and devices in the supervisor.

    Args:
        platform: kind of device.
        environments: the environment of each replica.
        processes: returns the engine's sessions and the pids of what looks after it.
        lease: the devices that the launch holds; None where nobody asks for its neighbours.
        pauses: is told when a pass begins and ends, and what held it up; None where nobody looks.
    """

    def __init__(
        self,
        platform: Platform,
        environments: Sequence[Mapping[str, str]],
        processes: Callable[[], tuple[list[Group], set[int]]],
        lease: Lease | None = None,
        pauses: Pauses | None = None,
    ) -> None:
        self._platform = platform
        self._environments = environments
        self._processes = processes
        self._lease = lease
        self._pauses = pauses or Pauses()
        self._devices: Sequence[Devices | Npus] = []  # of each replica
        self._host_before: Reading | None = None
        self._devices_before: list[DeviceReading] = []
        self._after: tuple[Reading | None, list[DeviceReading]] | None = None
        self._seen = Seen()
        self._seen_of: list[Seen] = []  # of each pass

    def ready(self, devices: int) -> None:
        """Takes note that the engine is loaded and that all its replicas together use so many devices."""
        each = devices // len(self._environments)
        if self._platform == "cuda":
            self._devices = [Devices(each, variables) for variables in self._environments]
        elif self._platform == "ascend":
            self._devices = [Npus(each, variables) for variables in self._environments]

    def before(self) -> None:
        """Reads all once the engine waits for the word; the host comes last, nearest to the iteration."""
        self._seen = Seen(self._read_neighbours())
        self._pauses.begin(members_of(self._processes()[0]))
        self._devices_before = self._read_devices()
        self._host_before = read_host(*self._processes())

    def ends(self) -> None:
        """Reads all again, as soon as the pass is over."""
        self._after = (read_host(*self._processes()), self._read_devices())
        self._seen.held_up = self._pauses.end()
        self._seen.neighbours |= self._read_neighbours()
        self._seen.lost = self._lease is not None and self._lease.is_lost()

    def after(self, iteration: Iteration) -> Iteration:
        """`iteration` with what happened meanwhile."""
        host, devices = self.meanwhile()
        return iteration.model_copy(update={"host": host, "devices": devices or None})

    def meanwhile(self) -> tuple[HostUse | None, list[DeviceUse]]:
        """What host and devices did since `before`."""
        if self._after is None:
            self.ends()
        assert self._after is not None, "was read just now, if not before"
        (host, devices), self._after = self._after, None
        self._seen_of.append(self._seen)
        groups, helpers = self._processes()
        ours = helpers | set(members_of(groups) if devices else ())
        pairs = list(zip(self._devices_before, devices, strict=False))
        use = between(self._host_before, host) if self._host_before and host else None
        return use, [used(before, after, ours) for before, after in pairs]

    def placement(self, counted: Collection[int] | None) -> Placement | None:
        """Where the launch ran, with its neighbours in the passes that `counted` numbers, from 0; None for all."""
        beside = [seen.neighbours for seen in self._counted(counted).values()]
        return None if self._lease is None else self._lease.placement(sorted(set().union(*beside)))

    def flags(self, counted: Collection[int] | None) -> list[Flag]:
        """Return what makes the times of those passes worthless: another had the devices, or the engine stood still."""
        passes = self._counted(counted)
        lost = next((number for number, seen in passes.items() if seen.lost), None)
        return [
            *(lease_flags(self._lease.file, lost) if self._lease is not None and lost is not None else []),
            *pause_flags({number: seen.held_up for number, seen in passes.items() if seen.held_up}),
        ]

    def _counted(self, counted: Collection[int] | None) -> dict[int, Seen]:
        return {number: seen for number, seen in enumerate(self._seen_of) if counted is None or number in counted}

    def _read_neighbours(self) -> set[str]:
        return set() if self._lease is None else set(self._lease.neighbours())

    def _read_devices(self) -> list[DeviceReading]:
        return [reading for of_replica in self._devices for reading in of_replica.read()]
