"""What a launch says of its model's files: what changes it, what does not, and which launches are of one number."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rollout_bench.core.model_files import WHOLE, differing_files, model_files

SHARD = "model-00001-of-00001.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model with one file of weights, larger than what is hashed whole."""
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text('{"num_hidden_layers": 12}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("A model.")
    header = json.dumps({"w": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode().ljust(8192)
    (folder / SHARD).write_bytes(len(header).to_bytes(8, "little") + header + bytes(2 * WHOLE))
    return folder


def put(path: Path, place: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "config": (lambda folder: (folder / "config.json").write_text('{"num_hidden_layers": 2}'), ["config.json"]),
    "header": (lambda folder: put(folder / SHARD, 8000, b"!"), [SHARD]),
    "weights": (lambda folder: put(folder / SHARD, (folder / SHARD).stat().st_size // 2, bytes(range(256))), [SHARD]),
    "size": (lambda folder: put(folder / SHARD, (folder / SHARD).stat().st_size, b"0"), [SHARD]),
    "shard": (lambda folder: (folder / "model-2.safetensors").write_bytes(b"0"), ["model-2.safetensors"]),
    "quantization": (
        lambda folder: (folder / "quant_model_description.json").write_text("{}"),
        ["quant_model_descrip"],
    ),
    "reading": (lambda folder: (folder / "README.md").write_text("Another text."), []),
    "touched": (lambda folder: [path.touch() for path in folder.iterdir()], []),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_an_engine_reads_tells_a_model_from_another_one(model: Path, name: str) -> None:
    change, names = CHANGES[name]
    before, dummy = model_files(str(model), {}), model_files(str(model), {}, weights=False)
    change(model)
    differing = differing_files(before, model_files(str(model), {}))
    assert [found[:19] for found in differing] == [found[:19] for found in names]
    weights = {found for found in differing if found.endswith(".safetensors")}
    assert differing_files(dummy, model_files(str(model), {}, weights=False)) == sorted({*differing} - weights)


def test_one_file_that_cannot_be_read_hides_no_other_one(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model_files(str(model), {})
    (model / "loop.safetensors").symlink_to("loop.safetensors")
    assert model_files(str(model), {}) == before
    opened = Path.open

    def refuse(path: Path, *args: object, **named: object) -> object:
        if path.name == SHARD:
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    assert model_files(str(model), {}) == before | {SHARD: "Permission denied"}


def test_a_hub_models_revision_is_its_cached_commit(tmp_path: Path) -> None:
    kept = tmp_path / "models--owner--name"
    (kept / "refs").mkdir(parents=True)
    for commit in ("a" * 40, "b" * 40):
        (kept / "snapshots" / commit).mkdir(parents=True)
        (kept / "snapshots" / commit / "config.json").write_text("{}")
        (kept / "refs" / "main").write_text(commit)
        assert model_files("owner/name", {"download_dir": str(tmp_path)}) == {"revision": commit}
    assert model_files("owner/name", {"download_dir": str(tmp_path), "revision": "a" * 40}) == {"revision": "a" * 40}
    assert model_files("owner/other", {"download_dir": str(tmp_path)}) == {}
