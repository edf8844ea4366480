"""The total and the free memory of this machine."""

from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def machine_bytes() -> int:
    """Return the memory of this machine."""
    import psutil  # not at the top: only the CPU's numbers need it

    return int(psutil.virtual_memory().total)


def node_bytes(nodes: Path = Path("/sys/devices/system/node")) -> int:
    """Return the memory of the largest memory node, of which vLLM on CPU uses its share (0.32, read)."""
    sizes = []
    for file in nodes.glob("node*/meminfo"):
        lines = (line.split() for line in file.read_text().splitlines())
        sizes += [int(words[3]) << 10 for words in lines if words[2:3] == ["MemTotal:"]]
    return max(sizes, default=machine_bytes())


def available_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the available memory: the smaller of the machine's and the container's."""
    import psutil

    available = int(psutil.virtual_memory().available)
    try:
        most = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        stats = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return min(available, int(most) - used + int(stats["inactive_file"]))
    except (OSError, ValueError, KeyError):  # no limit ("max"), another version of cgroups, or none
        return available
