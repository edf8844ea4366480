"""Synthetic checkpoints have a tokenizer that writes any text and gives the ids of words back."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.checkpoints.tokenizer import write_tokenizer

VOCABULARY = 2048


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("built") / "m"
    shape = SyntheticModel.model_validate({"preset": "qwen3-tiny", "shape": {"vocab_size": VOCABULARY}}).resolve()
    build_checkpoint(shape, "bf16", folder, config_only=True)
    return AutoTokenizer.from_pretrained(folder)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_becomes_ids_and_comes_back(tokenizer: Any, text: str):
    ids = tokenizer(text)["input_ids"]
    assert all(0 <= i < VOCABULARY for i in ids)
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("vocabulary", [256, 257, 256 + 26, 256 + 27, 153_376])
def test_every_id_has_a_token_of_its_own(vocabulary: int, tmp_path: Path):
    write_tokenizer(tmp_path, vocabulary, 64)
    tokens = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert sorted(tokens.values()) == list(range(vocabulary))


def test_a_vocabulary_too_small_for_all_bytes_has_none(tmp_path: Path):
    shape = SyntheticModel.model_validate({"preset": "qwen3-tiny", "shape": {"vocab_size": 255}}).resolve()
    build_checkpoint(shape, "bf16", tmp_path / "m", config_only=True)
    assert "tokenizer.json" not in json.loads((tmp_path / "m" / "synthetic.json").read_text())["file_bytes"]
