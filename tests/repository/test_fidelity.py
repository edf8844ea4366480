"""The command that a launch is compared with has the same engine and the same load."""

from itertools import pairwise
from pathlib import Path

import pytest
from fidelity import COMMAND, GPU_RESULT, OURS, Fidelity, throughput_words
from kept import kept
from online_clients import CLIENTS
from online_fidelity import SUBJECTS, OnlineFidelity, server_words
from online_sections import online_fidelity
from synthetic_records import make_record


def test_the_command_has_the_arguments_and_the_load_of_the_launch():
    spec = make_record().spec
    args = {"max_num_seqs": 8, "enforce_eager": True, "enable_prefix_caching": False, "seed": 0}
    spec = spec.model_copy(update={"engine": spec.engine.model_copy(update={"args": args})})
    words = [str(word) for word in throughput_words(spec, Path("models/x"), seed=7)]
    arguments = {name: value for name, value in pairwise(words) if name.startswith("--")}
    load = spec.workload
    assert arguments["--num-prompts"] == arguments["--num-warmups"] == str(load.prompts)
    assert arguments["--n"] == str(load.samples_per_prompt)
    assert arguments["--random-output-len"] == str(load.output_tokens)
    assert arguments["--max-num-seqs"] == "8"
    assert "--enforce-eager" in words
    assert "--no-enable-prefix-caching" in words
    assert arguments["--seed"] == "7"


def test_the_kept_rounds_have_both_arms_and_one_number_of_tokens():
    result = kept(GPU_RESULT, Fidelity)
    assert result is not None
    assert all(set(one.passes_s) == {OURS, COMMAND} for one in result.rounds)
    load = result.load
    tokens = load["prompts"] * load["samples_per_prompt"] * load["output_tokens"]
    assert {one.output_tokens for one in result.rounds} == {tokens}


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_kept_rounds_of_clients_are_continued_by_the_same_server_and_load(subject):
    result = kept(subject.result, OnlineFidelity)
    assert result is not None
    assert (result.model, result.server, result.load) == (subject.preset, server_words(subject), subject.load)
    load = subject.load
    for one in result.rounds:
        assert set(CLIENTS) <= set(one.clients)
        assert {seen.output_tokens for seen in one.clients.values()} == {load.requests * load.output_tokens}
        asked = load.requests * load.prompt_tokens
        prompts = [seen.prompt_tokens for seen in one.clients.values() if seen.prompt_tokens is not None]
        assert prompts == pytest.approx([asked] * len(prompts), rel=0.02)


def test_a_client_that_was_not_in_all_rounds_is_compared_in_those_where_it_was():
    result = kept(SUBJECTS["cuda"].result, OnlineFidelity)
    assert result is not None
    later = [one for one in result.rounds if "ours_as_text" in one.clients]
    assert 1 < len(later) < len(result.rounds)
    assert {one.server for one in later}.isdisjoint(one.server for one in result.rounds if one not in later)
    only = result.model_copy(update={"rounds": later})
    measure = "ttft_ms"
    assert result.ratio(measure, "ours_as_text", "bench") == only.ratio(measure, "ours_as_text", "bench")
    assert result.ratio(measure, "ours", "bench") != only.ratio(measure, "ours", "bench")
    text = online_fidelity(result)
    assert "rollout-bench with its texts" in text
    assert "on 2 servers" in text


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_a_server_has_a_tokenizer_where_a_client_sends_text(subject):
    assert ("--skip-tokenizer-init" in server_words(subject)) is not subject.load.text
