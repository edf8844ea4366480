"""What others did to the machine spoils all launches of a block or none, so that it favours no configuration."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.exclusion import with_blocks_decided
from rollout_bench.analysis.timed.experiments import TimedExperiment
from rollout_bench.contracts.record import Block, HostUse, Record
from rollout_bench.contracts.spec import Platform
from rollout_bench.measure.machine.readings import host_flags

QUANTS = ("bf16", "w8a8", "w8a16")
ID = "0123456789abcdef"
SHARED = "other_cpu_share"

Readings = Sequence[tuple[float, float | None]]
"""Seconds and share lost of each pass."""


def launch(
    quant: str,
    read: Readings,
    *,
    block: str | None = ID,
    index: int = 0,
    platform: Platform = "cpu",
    what: str = SHARED,
) -> Record:
    """Return a record as its own launch writes it, with a spoilt warm-up that nobody asks for."""
    record = make_record(make_spec(quant=quant, platform=platform), index, [400.0] * len(read))
    hosts = [HostUse(window_s=1.0, cores=2, other_cpu_share=0.9, steal_share=0.9)] + [
        HostUse(window_s=seconds, cores=2, busiest_other="make", **({what: share} if share is not None else {}))
        for seconds, share in read
    ]
    passes = [each.model_copy(update={"host": host}) for each, host in zip(record.iterations, hosts, strict=True)]
    members = [f"offline/{quant}" for quant in QUANTS]
    return record.model_copy(
        update={
            "iterations": passes,
            "validity": host_flags(platform, hosts[1:]),
            "block": Block(id=block, members=members, order=[[0, 1, 2]], waited_s=0) if block else None,
        }
    )


def experiment(*records: Record) -> TimedExperiment:
    spec, unplanned = records[0].spec, {"planned": None, "failures": (), "missing": ()}
    named = spec.axes | {"mode": spec.mode, "experiment": spec.experiment(), "key": spec.key()}
    return TimedExperiment(records=records, **named, **unplanned)


def decided(*records: Record) -> list[Record]:
    """Return `records`, each of an experiment of its own, as the summary has them."""
    return [each.records[0] for each in with_blocks_decided([experiment(record) for record in records])]


def flags_of(records: Sequence[Record]) -> list[list[str]]:
    return [[f"{flag.code} {flag.severity}" for flag in record.validity] for record in records]


@pytest.mark.parametrize(
    ("lost", "alone", "severity", "sentence"),
    [
        (
            (0.1, 0.35), [True, False], "warning",  # a disturbed short launch counts in an undisturbed block
            "While it was measured 35.0 % of its cores' time other processes used, most of it make (limit 5 %); "
            "15.0 % while all launches of its block were, which counts up to 25 %.",
        ),
        (
            (0.38, 0.03), [False, True], "invalid",  # a spared one does not in a spoilt block
            "While all launches of its block were measured 31.0 % of its cores' time other processes used, "
            "most of it make (limit 25 %); 3.0 % while it was itself. So no launch of the block counts.",
        ),
    ],
)  # fmt: skip
def test_a_block_counts_by_what_all_its_launches_lost(
    lost: tuple[float, float], alone: list[bool], severity: str, sentence: str
) -> None:
    own = [launch(quant, [(s, share)] * 4) for quant, s, share in zip(QUANTS, (2, 0.5), lost, strict=False)]
    found = decided(*own)
    assert ([record.valid for record in own], flags_of(found)) == (alone, [[f"cpu_shared {severity}"]] * 2)
    assert found[1].validity[0].sentence == sentence


@pytest.mark.parametrize("mates", [1, 2, 5])
@pytest.mark.parametrize(("what", "share"), [(SHARED, 0.48), ("steal_share", 0.25), ("memory_pressure_share", 0.25)])
def test_one_launch_disturbed_all_the_time_spoils_its_block(mates: int, what: str, share: float) -> None:
    clean = [launch(f"w{number}", [(1, 0.0)] * 8, what=what) for number in range(mates)]
    found = decided(launch("bf16", [(1, share)] * 8, what=what), *clean)
    assert [record.valid for record in found] == [False] * (mates + 1)
    if (mates, what) == (5, SHARED):
        assert found[1].validity[0].sentence == (
            "While one launch of its block was measured 48.0 % of its cores' time other processes used, "
            "most of it make (limit 40 %); 8.0 % while all were. So no launch of the block counts."
        )


def test_blocks_are_told_apart_and_other_launches_keep_flags() -> None:
    calm, hit = [(1.0, 0.0)] * 4, [(1.0, 0.3)] * 4
    sides = [
        experiment(
            *(
                launch(quant, each, block=block, index=i)
                for i, (each, block) in enumerate(zip(read, ("a" * 16, None, "b" * 16), strict=True))
            )
        )
        for quant, read in (("bf16", (calm, calm, hit)), ("w8a8", (hit, hit, hit)))
    ]
    found = [[record.valid for record in each.records] for each in with_blocks_decided(sides)]
    assert found == [[True, True, False], [True, False, False]]


@pytest.mark.parametrize("platform", ["cuda", "ascend"])
def test_on_accelerators_it_never_makes_a_launch_invalid(platform: Platform) -> None:
    own = [launch(quant, [(1, 0.9)] * 4, platform=platform) for quant in QUANTS]
    assert (decided(*own), flags_of(own)) == (own, [["cpu_shared warning"]] * 3)


SHARES = st.floats(0, 1, allow_nan=False).map(lambda share: round(share, 4))
BLOCKS = st.lists(
    st.lists(st.tuples(st.sampled_from([0.2, 0.9, 3.0]), SHARES), min_size=1, max_size=6), min_size=2, max_size=3
)


@given(BLOCKS, st.randoms(use_true_random=False), st.sampled_from([SHARED, "steal_share", "memory_pressure_share"]))
def test_all_of_a_block_or_none_whatever_their_order(block: list[Readings], order: Any, what: str) -> None:
    own = [launch(quant, read, what=what) for quant, read in zip(QUANTS, block, strict=False)]
    found = decided(*own)
    assert len({record.valid for record in found}) == 1
    mixed, own_key = order.sample(own, len(own)), attrgetter("key")
    assert (sorted(decided(*mixed), key=own_key), decided(*found)) == (sorted(found, key=own_key), found)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return a folder with one block of three, spoilt by what its last launch lost."""
    read = [(2, 0.1)] * 4, [(0.5, 0.35)] * 4, [(4, 0.36)] * 4
    own = [launch(quant, each) for quant, each in zip(QUANTS, read, strict=True)]
    block = own[0].block.model_copy(update={"members": [f"offline/{record.experiment}" for record in own]})
    save(tmp_path, *(record.model_copy(update={"block": block}) for record in own))
    return tmp_path


def valid_of(results: Path, *quants: str) -> list[bool]:
    plan = make_plan([make_spec(quant=quant) for quant in quants], 1)
    return [record.valid for each in collect(results, plan).experiments for record in each.records]


@pytest.mark.parametrize("quants", [QUANTS, QUANTS[:2], QUANTS[1:2]])
def test_all_records_decide_a_block_whichever_are_selected(results: Path, quants: Sequence[str]) -> None:
    assert valid_of(results, *quants) == [False] * len(quants)


@pytest.mark.parametrize("damage", [lambda path: path.write_text(path.read_text()[:-20]), lambda path: path.unlink()])
def test_an_unreadable_or_missing_record_is_left_out(results: Path, damage: Callable[[Path], object]) -> None:
    (path,) = results.glob("offline/*_w8a16_*/launch-0.json")
    damage(path)
    assert valid_of(results, "bf16", "w8a8") == [True, True]
