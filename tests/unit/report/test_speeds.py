"""The table of speeds: output tokens per second and device of several machines, without their names."""

import csv
import io
from pathlib import Path

import pytest
from refusals import refused
from synthetic_records import make_record, make_spec, save

from rollout_bench.contracts.record import Record
from rollout_bench.report.pack import write_pack
from rollout_bench.report.speeds import files_of, speeds_of

RATES = (400.0, 410.0, 420.0)


def made(folder: Path, device: str, count: int = 1, factor: float = 1.0) -> Path:
    """Return a folder with three launches on devices of this name."""
    args = {"max_num_seqs": 64, "download_dir": "/home/ada/models"}
    records = [
        make_record(make_spec(args=args), launch, [factor * (launch + 1) * rate for rate in RATES])
        for launch in (0, 1, 2)
    ]
    of = {"device_model": device, "device_count": count, "hostname": "adas-machine"}
    save(
        folder,
        *(
            Record.model_validate(one.model_dump() | {"environment": one.environment.model_dump() | of})
            for one in records
        ),
    )
    return folder


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_speed_is_that_of_a_device_with_the_interval_of_launches(tmp_path: Path) -> None:
    (line,) = lines(files_of([made(tmp_path, "NPU 9", count=4)])["csv"])
    # tokens over seconds of a launch: 3 passes of equal tokens at the rates
    launches = [n * 3 / sum(1 / rate for rate in RATES) / 4 for n in (1, 2, 3)]
    mean, half = sum(launches) / 3, 4.302652729749464 * (launches[1] - launches[0]) / 3**0.5
    assert float(line["tok/s per device"]) == pytest.approx(mean, rel=1e-5)
    assert [float(line[end]) for end in ("low", "high")] == pytest.approx([mean - half, mean + half], rel=1e-5)
    assert (line["devices"], line["launches"], line["setting"]) == ("4 x NPU 9", "3", "max_num_seqs: 64")


def test_the_lines_name_neither_the_machine_nor_a_path(tmp_path: Path) -> None:
    text = "".join(files_of([made(tmp_path, "NPU 9")]).values())
    assert not [word for word in ("adas-machine", "/home", str(tmp_path), "download_dir") if word in text]


def test_results_packs_and_tables_of_others_are_one_table(tmp_path: Path) -> None:
    mine, theirs = made(tmp_path / "mine", "NPU 9"), made(tmp_path / "theirs", "NPU 7", factor=0.5)
    write_pack(mine, tmp_path / "mine.tar.xz")
    (tmp_path / "theirs.csv").write_text(files_of([theirs])["csv"])
    together = files_of([tmp_path / "mine.tar.xz", tmp_path / "theirs.csv", mine])
    assert together["csv"] == files_of([mine, theirs])["csv"], "each line once"
    assert [line["devices"] for line in lines(together["csv"])] == ["NPU 7", "NPU 9"]
    assert "NPU 7" in together["md"]
    assert "NPU 9" in together["txt"]


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with refused(f"{other}: has other columns than model, load", "give a file that `rollout-bench table --out`"):
        speeds_of(other)
    with refused(f"{tmp_path}: has no valid launch of mode offline or rollout", "leave it out"):
        speeds_of(tmp_path)
