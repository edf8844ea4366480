"""What a process and its children hold of the host's memory: theirs alone, each page once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rollout_bench.measure.machine.host import held_with_children

SIZE, NOISE = 64_000_000, 6_000_000

PROGRAM = """
import mmap, sys
from rollout_bench.measure.machine.host import held_with_children
before = held_with_children()
if sys.argv[1] == "allocates":
    kept = bytearray(b"x") * int(sys.argv[2])
else:
    with open(sys.argv[1], "rb") as file:
        kept = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert kept.find(b"x") == -1  # reads every page
print(held_with_children() - before, flush=True)
sys.stdin.readline()
"""


BOTH = """
import pathlib, psutil, sys
from rollout_bench.measure.machine.host import held_with_children
print(held_with_children(proc=pathlib.Path(sys.argv[1])), psutil.Process().memory_info().rss)
"""


@pytest.mark.parametrize("what", ["allocates", "maps a file"])
def test_what_a_process_allocated_counts_and_a_file_that_it_mapped_does_not(what: str, tmp_path: Path):
    file = tmp_path / "file"
    file.write_bytes(bytes(SIZE))
    counts = SIZE if what == "allocates" else 0
    line = [sys.executable, "-c", PROGRAM, what if counts else str(file), str(SIZE)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert int(child.stdout.readline()) == pytest.approx(counts, abs=NOISE)
        with_child = held_with_children()
        child.communicate("\n", timeout=60)
    assert counts <= with_child - held_with_children() < counts + SIZE


def test_where_the_system_does_not_say_it_is_what_is_resident(tmp_path: Path):
    line = [sys.executable, "-c", BOTH, str(tmp_path)]
    held, resident = map(int, subprocess.run(line, capture_output=True, text=True, check=True).stdout.split())
    assert held == pytest.approx(resident, rel=0.2)
