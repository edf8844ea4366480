"""Pages of weight files are dropped, read and counted; what is not as asked is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_starts import start_spec

from rollout_bench.contracts.starts import PageState
from rollout_bench.measure.starts.weight_pages import (
    WeightPages,
    page_flags,
    prepare_pages,
    read,
    resident_share,
    weight_files,
)

SIZE = 3 * 1024 * 1024 + 5


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(bytes(SIZE))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_only_weights_are_weight_files(weights: Path) -> None:
    assert [file.name for file in weight_files(str(weights))] == ["model.safetensors"]


def test_what_was_read_is_in_memory(weights: Path) -> None:
    (file,) = weight_files(str(weights))
    read(file)
    assert resident_share([file]) == 1.0
    assert prepare_pages(start_spec(pages="warm"), str(weights)) == WeightPages(SIZE, 1.0)


def test_pages_are_dropped_or_it_is_told_that_they_are_not(weights: Path) -> None:
    found = prepare_pages(start_spec(pages="cold"), str(weights))
    assert found is not None
    assert found.resident_share is not None
    cold = found.resident_share == 0.0  # a file system in memory keeps them
    assert bool(page_flags("cold", found)) != cold


def test_a_start_that_reads_no_weights_has_no_pages(weights: Path) -> None:
    assert prepare_pages(start_spec(loads="dummy", pages=None), str(weights)) is None
    assert page_flags(None, None) == []


def test_an_empty_file_has_no_pages(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert resident_share(weight_files(str(tmp_path))) is None


@pytest.mark.parametrize(
    ("wanted", "pages", "code", "severity"),
    [
        ("cold", WeightPages(9, 1.0), "pages_not_as_asked", "invalid"),
        ("warm", WeightPages(9, 0.5), "pages_not_as_asked", "invalid"),
        ("cold", WeightPages(9, None), "pages_unknown", "warning"),
        ("warm", None, "pages_unknown", "warning"),
    ],
)
def test_pages_that_are_not_as_asked_are_flagged(
    wanted: PageState, pages: WeightPages | None, code: str, severity: str
) -> None:
    (flag,) = page_flags(wanted, pages)
    assert (flag.code, flag.severity) == (code, severity)
    assert f"pages: {wanted} was asked for" in flag.sentence
