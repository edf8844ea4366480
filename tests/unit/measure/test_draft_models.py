"""A made draft has the shape that fits its model."""

import pytest

from rollout_bench.measure.engine.draft_models import draft_config, head_layers, head_shapes

TARGET = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "layer_types": ["full_attention"] * 36,
    "tie_word_embeddings": True,
    "quantization_config": {"quant_method": "fp8"},
}


@pytest.mark.parametrize(
    ("layers", "read"), [(36, [2, 18, 33]), (7, [2, 3, 4]), (6, [1, 2, 3]), (4, [1, 2, 3]), (2, [1])]
)
def test_a_head_reads_three_layers_as_far_as_there_are(layers: int, read: list[int]) -> None:
    assert head_layers(layers) == read


def test_a_head_has_one_layer_and_the_widths_of_its_model() -> None:
    head = draft_config(TARGET, "eagle3")
    alike = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size")
    assert [head[key] for key in alike] == [TARGET[key] for key in alike]
    assert (head["num_hidden_layers"], head["draft_vocab_size"]) == (1, 32_000)
    assert head["architectures"] == ["LlamaForCausalLMEagle3"]


def test_another_draft_is_one_layer_of_its_model_with_an_output_head_of_its_own() -> None:
    draft = draft_config(TARGET, "draft_model")
    assert (draft["num_hidden_layers"], draft["layer_types"]) == (1, ["full_attention"])
    assert draft["tie_word_embeddings"] is False
    assert "quantization_config" not in draft
    assert draft["architectures"] == TARGET["architectures"]


def test_the_weights_of_a_head_have_the_shapes_that_an_engine_reads() -> None:
    # those that vLLM's Eagle3LlamaForCausalLM reads
    shapes = head_shapes(draft_config(TARGET, "eagle3"))
    assert shapes["fc.weight"] == (4096, 3 * 4096)
    assert shapes["midlayer.self_attn.q_proj.weight"] == (4096, 2 * 4096)
    assert shapes["midlayer.self_attn.k_proj.weight"] == (1024, 2 * 4096)
    assert shapes["lm_head.weight"] == (32_000, 4096)
    assert len(shapes) == 13
