"""What others did to the machine spoils all launches of a block or none, so that it favours no configuration."""

from collections.abc import Sequence
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
    spec = records[0].spec
    names = {"model": spec.model.name, "quant": spec.quant.name, "workload": spec.workload.name}
    return TimedExperiment(
        mode="offline",
        experiment=records[0].experiment,
        key=records[0].key,
        platform=spec.platform,
        planned=None,
        records=records,
        failures=(),
        missing=(),
        **names,
    )


def decided(*records: Record) -> list[Record]:
    """Return `records`, each of an experiment of its own, as the summary has them."""
    return [each.records[0] for each in with_blocks_decided([experiment(record) for record in records])]


def told(records: Sequence[Record]) -> list[list[str]]:
    return [[f"{flag.code} {flag.severity}" for flag in record.validity] for record in records]


def test_a_disturbed_short_launch_counts_in_an_undisturbed_block() -> None:
    own = [launch("bf16", [(2, 0.1)] * 4), launch("w8a8", [(0.5, 0.35)] * 4)]
    assert [record.valid for record in own] == [True, False]
    kept = decided(*own)
    assert told(kept) == [["cpu_shared warning"], ["cpu_shared warning"]]
    assert kept[1].validity[0].sentence == (
        "While it was measured 35.0 % of its cores' time other processes used, most of it make (limit 5 %); "
        "15.0 % while all launches of its block were, which counts up to 25 %."
    )


def test_a_spared_launch_does_not_count_in_a_spoilt_block() -> None:
    own = [launch("bf16", [(2, 0.38)] * 4), launch("w8a8", [(0.5, 0.03)] * 4)]
    assert [record.valid for record in own] == [False, True]
    dropped = decided(*own)
    assert told(dropped) == [["cpu_shared invalid"], ["cpu_shared invalid"]]
    assert dropped[1].validity[0].sentence == (
        "While all launches of its block were measured 31.0 % of its cores' time other processes used, "
        "most of it make (limit 25 %); 3.0 % while it was itself. So no launch of the block counts."
    )


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
    first, alone, third = "a" * 16, None, "b" * 16
    base = [
        launch("bf16", each, block=block, index=i)
        for i, (each, block) in enumerate([(calm, first), (calm, alone), (hit, third)])
    ]
    other = [launch("w8a8", hit, block=block, index=i) for i, block in enumerate([first, alone, third])]
    own = [experiment(*base), experiment(*other)]
    found = [[record.valid for record in each.records] for each in with_blocks_decided(own)]
    assert found == [[True, True, False], [True, False, False]]


@pytest.mark.parametrize("platform", ["cuda", "ascend"])
def test_on_accelerators_it_never_makes_a_launch_invalid(platform: Platform) -> None:
    own = [launch(quant, [(1, 0.9)] * 4, platform=platform) for quant in QUANTS]
    assert (decided(*own), told(own)) == (own, [["cpu_shared warning"]] * 3)


SHARES = st.floats(0, 1, allow_nan=False).map(lambda share: round(share, 4))
BLOCKS = st.lists(
    st.lists(st.tuples(st.sampled_from([0.2, 0.9, 3.0]), SHARES), min_size=1, max_size=6), min_size=2, max_size=3
)


@given(BLOCKS, st.randoms(use_true_random=False), st.sampled_from([SHARED, "steal_share", "memory_pressure_share"]))
def test_all_of_a_block_or_none_whatever_their_order(block: list[Readings], order: Any, what: str) -> None:
    own = [launch(quant, read, what=what) for quant, read in zip(QUANTS, block, strict=False)]
    found = decided(*own)
    assert len({record.valid for record in found}) == 1
    mixed = order.sample(own, len(own))
    assert (sorted(decided(*mixed), key=own_key), decided(*found)) == (sorted(found, key=own_key), found)


def own_key(record: Record) -> str:
    return record.key


def of_three(*quants: str) -> list[Record]:
    """Return one block of three, spoilt by what its last launch lost."""
    own = [
        launch(q, read) for q, read in zip(QUANTS, ([(2, 0.1)] * 4, [(0.5, 0.35)] * 4, [(4, 0.36)] * 4), strict=True)
    ]
    members = [f"offline/{record.experiment}" for record in own]
    return [
        record.model_copy(update={"block": record.block and record.block.model_copy(update={"members": members})})
        for record in own
        if record.spec.quant.name in quants
    ]


def valid_of(results: Path, *quants: str) -> list[bool]:
    plan = make_plan([record.spec for record in of_three(*quants)], 1)
    return [record.valid for each in collect(results, plan).experiments for record in each.records]


def test_all_records_decide_a_block_whichever_are_selected(tmp_path: Path) -> None:
    save(tmp_path, *of_three(*QUANTS))
    assert (valid_of(tmp_path, *QUANTS), valid_of(tmp_path, "bf16", "w8a8")) == ([False] * 3, [False, False])
    assert valid_of(tmp_path, "w8a8") == [False]


def test_an_unreadable_or_missing_record_is_left_out(tmp_path: Path) -> None:
    save(tmp_path, *of_three(*QUANTS))
    (path,) = tmp_path.glob("offline/*_w8a16_*/launch-0.json")
    path.write_text(path.read_text()[:-20])
    assert valid_of(tmp_path, "bf16", "w8a8") == [True, True]
    path.unlink()
    assert valid_of(tmp_path, "bf16", "w8a8") == [True, True]
