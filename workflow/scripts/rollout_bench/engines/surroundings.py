"""Host and devices around each iteration, read while the engine waits for the word to begin or has just ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from rollout_bench.engines.devices import DeviceReading, Devices, used
from rollout_bench.engines.host import Reading, between, read_host
from rollout_bench.engines.npus import Npus
from rollout_bench.engines.processes import Group, members_of
from rollout_bench.placement.lease import Lease
from rollout_bench.plan.spec import Platform
from rollout_bench.records.placement import Placement
from rollout_bench.records.record import DeviceUse, HostUse, Iteration


class Surroundings:
    """Reads host and devices in the supervisor.

    Args:
        platform: kind of device.
        environments: the environment of each replica.
        processes: returns the engine's sessions and the pids of what looks after it.
        lease: the devices that the launch holds; None where nobody asks for its neighbours.
    """

    def __init__(
        self,
        platform: Platform,
        environments: Sequence[Mapping[str, str]],
        processes: Callable[[], tuple[list[Group], set[int]]],
        lease: Lease | None = None,
    ) -> None:
        self._platform = platform
        self._environments = environments
        self._processes = processes
        self._lease = lease
        self._devices: Sequence[Devices | Npus] = []  # of each replica
        self._host_before: Reading | None = None
        self._devices_before: list[DeviceReading] = []
        self._after: tuple[Reading | None, list[DeviceReading]] | None = None
        self._neighbours: set[str] = set()
        self._neighbours_of: list[set[str]] = []  # of each pass

    def ready(self, devices: int) -> None:
        """Takes note that the engine is loaded and that all its replicas together use so many devices."""
        each = devices // len(self._environments)
        if self._platform == "cuda":
            self._devices = [Devices(each, variables) for variables in self._environments]
        elif self._platform == "ascend":
            self._devices = [Npus(each, variables) for variables in self._environments]

    def before(self) -> None:
        """Reads all once the engine waits for the word; the host comes last, nearest to the iteration."""
        self._neighbours = self._read_neighbours()
        self._devices_before = self._read_devices()
        self._host_before = read_host(*self._processes())

    def ends(self) -> None:
        """Reads all again, as soon as the pass is over."""
        self._after = (read_host(*self._processes()), self._read_devices())
        self._neighbours |= self._read_neighbours()

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
        self._neighbours_of.append(self._neighbours)
        groups, helpers = self._processes()
        ours = helpers | set(members_of(groups) if devices else ())
        pairs = list(zip(self._devices_before, devices, strict=False))
        use = between(self._host_before, host) if self._host_before and host else None
        return use, [used(before, after, ours) for before, after in pairs]

    def placement(self, counted: Collection[int] | None) -> Placement | None:
        """Where the launch ran, with its neighbours in the passes that `counted` numbers, from 0; None for all."""
        beside = [names for number, names in enumerate(self._neighbours_of) if counted is None or number in counted]
        return None if self._lease is None else self._lease.placement(sorted(set().union(*beside)))

    def _read_neighbours(self) -> set[str]:
        return set() if self._lease is None else set(self._lease.neighbours())

    def _read_devices(self) -> list[DeviceReading]:
        return [reading for of_replica in self._devices for reading in of_replica.read()]
