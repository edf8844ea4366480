"""What is printed is harmless and holds no secret."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planned import REPOSITORY, planned
from refusals import refused

from rollout_bench.core.errors import UserError, printable
from rollout_bench.core.secrets import may_be_secret
from rollout_bench.measure.machine.host import relevant_variables


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("engine died: 50 % \u2265 \u00e9\u4e2d\U0001f600", "engine died: 50 % \u2265 \u00e9\u4e2d\U0001f600"),
        ("two\n\tlines", "two\n\tlines"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("over\rwritten \x9b2J \x00 \x7f", "over\\rwritten \\x9b2J \\x00 \\x7f"),
        ("user\u202etxt.exe \u200b", "user\\u202etxt.exe \\u200b"),
        ("a\x85b\u2028c", "a\\x85b\\u2028c"),
        ("no character: \udc80", "no character: \\udc80"),
    ],
    ids=["letters", "lines", "escapes", "controls", "bidi", "separators", "surrogate"],
)
def test_what_a_terminal_obeys_is_shown_instead(text: str, shown: str):
    assert (printable(text), printable(shown)) == (shown, shown)


@given(st.text(st.characters(), max_size=50), st.integers(10, 40))
def test_anything_becomes_short_and_harmless(text: str, most: int):
    shown = printable(text, most)
    assert len(shown) <= most
    assert all(character.isprintable() or character in "\n\t" for character in shown)
    shown.encode()


def test_a_long_text_is_cut_without_being_read_whole():
    assert (printable("a" * 300), printable("a" * 301)) == ("a" * 300, "a" * 297 + "...")
    assert len(printable("\x1b" * 50_000_000)) == 300  # in no time, though each becomes four


def test_an_error_of_a_user_holds_no_escape_sequence():
    error = UserError("lease of \x1b[2J\x07 is taken\nby it", "ask \u202eresu")
    assert str(error) == "lease of \\x1b[2J\\x07 is taken by it\n  -> ask \\u202eresu"


SECRETS = {
    "hub": ("engine.environment.HF_TOKEN", "engine: {environment: {HF_TOKEN: hush}}"),
    "cloud": ("engine.environment.AWS_SECRET_ACCESS_KEY", "engine: {environment: {AWS_SECRET_ACCESS_KEY: hush}}"),
    "small_letters": ("engine.environment.my_password", "engine: {environment: {my_password: '4711hush'}}"),
    "digits": ("engine.environment.DB_PASSWORD", "engine: {environment: {DB_PASSWORD: '47110815'}}"),
    "digits_of_a_token": ("engine.environment.HF_TOKEN", "engine: {environment: {HF_TOKEN: '47110815'}}"),
    "proxy": ("engine.environment.HTTPS_PROXY", "engine: {environment: {HTTPS_PROXY: 'http://me:hush@proxy:3128'}}"),
    "by_its_look": ("engine.environment.NOTE", "engine: {environment: {NOTE: hf_hushhushhushhush}}"),
    "argument": ("engine_args.hf_token", "engine_args: {hf_token: hush}"),
    "of_model": (
        "model_settings.qwen3-90m.engine_args.hf_token",
        "model_settings: {qwen3-90m: {engine_args: {hf_token: hush}}}",
    ),
    "of_quant": ("quant_settings.w8a8.engine_args.hf_token", "quant_settings: {w8a8: {engine_args: {hf_token: hush}}}"),
    "of_workload": (
        "workload_settings.demo.engine_args.hf_token",
        "workload_settings: {demo: {engine_args: {hf_token: hush}}}",
    ),
    "deep": (
        "engine_args.model_loader_extra_config.stores.0.s3.secret_key",
        "engine_args: {model_loader_extra_config: {stores: [{s3: {secret_key: hush}}]}}",
    ),
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_in_a_config_is_refused_without_repeating_it(name: str):
    place, overlay = SECRETS[name]
    with refused(f"config: {place}: may be a secret", "the engine inherits it"):
        planned(overlay)


def test_a_non_text_secret_is_refused_without_repeating_it():
    with pytest.raises(UserError, match="hf_token: is a secret") as raised:
        planned("engine_args: {hf_token: 4711}")
    assert "4711" not in str(raised.value)


@pytest.mark.parametrize(
    "overlay",
    [
        "engine: {environment: {TOKENIZERS_PARALLELISM: no, VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE: '163840'}}",
        "engine: {environment: {HF_HUB_DISABLE_IMPLICIT_TOKEN: '1', HTTPS_PROXY: 'http://proxy:3128'}}",
        "engine_args: {hf_token: true, max_num_batched_tokens: 4096, long_prefill_token_threshold: 64}",
        "engine_args: {tokenizer: Qwen/Qwen3-0.6B, tokenizer_mode: auto, skip_tokenizer_init: false}",
        "{quants: [bf16], engine_args: {hf_overrides: {num_key_value_heads: 2}}}",
        "model_base: checkpoints/global-step-1000",
    ],
)
def test_settings_that_only_sound_like_secrets_are_taken(overlay: str):
    assert planned(overlay.replace(": no,", ": 'false',")).experiments


def test_no_secret_is_among_the_variables_that_a_record_keeps():
    names = ("VLLM_API_KEY", "VLLM_MYPWD", "HF_HUB_TOKEN", "HF_TOKEN", "NCCL_AUTH")
    secrets = {**dict.fromkeys(names, "hush"), "NVIDIA_PROXY": "ftp://a:hush@b"}
    kept = {"VLLM_USE_V2_MODEL_RUNNER": "1", "VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE": "163840"}
    assert relevant_variables({**os.environ, **secrets, **kept}).items() >= kept.items()
    assert "hush" not in str(relevant_variables(secrets))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Team", "Bearer hush"),
        ("X-Team", "token hush"),
        ("X-Team", "sk-proj-hush-hushhushhushhush"),
        ("X-Team", "curl -H 'Authorization: Bearer abc' http://host"),
        ("X-Team", "curl -H x-api-key:abc http://host"),
        ("X-Team", "use hf_hushhushhushhush for it"),
        ("X-Team", "key nvapi-hush_hushhushhush"),
        ("X-Team", "gsk_hushhushhushhush"),
        ("X-Team", "r8_hushhushhushhush"),
        ("X-Team", "dckr_pat_hushhush"),
        ("X-Team", "ya29.hushhush"),
        ("X-Team", "eyJhbGciOiJI.eyJzdWIiOiIxMjM0NTY3"),
        ("X-Team", "https://store/model?sig=hush"),
        ("X-Team", "https://store/model?X-Amz-Signature=hush"),
        ("X-Team", "https://me:hush@host/path"),
        ("X-Token", "83920183"),
        ("X-Access-Token", "123456789012"),
        ("accessToken", "1234"),
        ("token_key", "123456"),
        ("TOKENS_AUTH", "1234"),
        ("OPENAI_API_KEY", "abc"),
        ("APIKEY", "abc"),
        ("AWS_SECRET_ACCESS_KEY", "abc"),
        ("DB_PASSWORD", "12"),
        ("AUTHORIZATION", "abc"),
        ("DB_PASS", "abc"),
        ("PGPASS", "abc"),
        ("AWS_CREDS", "abc"),
        ("HFTOKEN", "abc"),
        ("OPENAIKEY", "abc"),
        ("SIGNATURE", "abc"),
        ("image_key", "4711-hush"),
    ],
)
def test_a_value_or_a_name_tells_of_a_secret(name: str, value: str):
    assert may_be_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eos_token", "</s>"),
        ("prompt", "What is key=5?"),
        ("note", "group_by_token=yes, tokens=4k"),
        ("command", "vllm serve m --return-tokens-as-token-ids --port 8000"),
        ("TIKTOKEN_ENCODINGS_BASE", "/models/encodings"),
        ("HF_TOKEN_PATH", "/run/secrets/t"),
        ("MONKEY", "abc"),
        ("compat", "abc"),
        ("remote", "ssh://git@forge/repository"),
        ("image", "docker://vllm/vllm-openai:v0.32.0@sha256:00ab"),
        ("command", "vllm serve m --max-num-batched-tokens 2048 --tokenizer m"),
        ("KEYWORD", "abc"),
        ("AUTHOR", "me"),
        ("BYPASS", "abc"),
        ("max_num_batched_tokens", "auto"),
        ("max_tokens", "4k"),
        ("think_start_token", "<think>"),
        ("command", "python -m verl data.prompt_key=prompt reward_fn_key=data_source"),
        ("sort_key", "length"),
        ("model", "sk-learn-7b"),
        ("model", "eyJoker-model.v2"),
        ("tokenizer", "abc"),
        ("max_num_batched_tokens", "2048"),
        ("long_prefill_token_threshold", "64"),
        ("skip_tokenizer_init", "false"),
        ("VLLM_MOE_TOKEN_THRESHOLD", "256"),
    ],
)
def test_a_name_that_only_sounds_like_a_secret_passes(name: str, value: str):
    assert not may_be_secret(name, value)


def test_a_page_of_the_package_is_named_once_however_often_an_error_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    remedy = "see docs/reference/config.csv and config/README.md, not docs/none.md"
    first = UserError("a: is wrong", remedy)
    again = UserError(f"b.yaml: {first.problem}", first.remedy)
    there = f"see {REPOSITORY}/docs/reference/config.csv and {REPOSITORY}/config/README.md, not docs/none.md"
    assert again.remedy == there
    (tmp_path / "docs" / "reference").mkdir(parents=True)
    (tmp_path / "docs" / "reference" / "config.csv").touch()
    assert UserError("a: is wrong", "see docs/reference/config.csv").remedy == "see docs/reference/config.csv"
