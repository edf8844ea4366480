"""Data sets are read whole, in order and again from their beginning; damaged ones are told in two lines."""

import gzip
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_workloads import workload
from refusals import refused

from rollout_bench.checkpoints.tokenizer import write_tokenizer
from rollout_bench.contracts.load import Turns
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config import WorkloadSettings
from rollout_bench.plan.load_checks import checked_load, dataset_facts
from rollout_bench.workloads.datasets import read_bytes, read_dataset
from rollout_bench.workloads.requests import Source

VOCABULARY = 4096


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a model folder that holds a tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    write_tokenizer(folder, VOCABULARY, 4096)
    return str(folder)


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def source(path: Path, format: str, model: str = "m", own: Mapping[str, Any] = {}, **changes: object) -> Source:
    named = {"format": format, "sha256": dataset_facts(path, format).sha256, **own}
    return Source(workload(dataset=named, **changes), VOCABULARY, model, path)


def test_a_trace_gives_lengths_and_arrivals(tmp_path: Path):
    rows = [{"prompt_tokens": 10 + n, "output_tokens": 1 + n, "arrival_s": 5 + n / 2} for n in range(5)]
    found = source(lines(tmp_path / "t", *rows), "trace", prompts=2, samples_per_prompt=2)
    asked = [found.requests(0, index) for index in range(3)]
    lengths = [[len(request.prompt_token_ids) for request in each] for each in asked]
    assert lengths == [[10, 10, 11, 11], [12, 12, 13, 13], [14, 14, 10, 10]]
    assert [r.output_tokens for r in asked[1]] == [3, 3, 4, 4]
    assert [[r.arrival_s for r in each] for each in asked] == [[0.0, 0.0, 0.5, 0.5]] * 3
    assert found.requests(0, 0) == asked[0]
    assert found.requests(1, 0)[0].prompt_token_ids != asked[0][0].prompt_token_ids


AREAL = {
    "task_id": 7,
    "segments": [
        {"role": role, "len": tokens, "text": ""}
        for role, tokens in [("prompt", 9), ("gen", 4), ("context", 2), ("gen", 3), ("context", 5)]
    ],
}
NEMO_RL = {"token_ids": [*range(16), 0, 0], "token_loss_mask": [0] * 9 + [1] * 4 + [0] * 2 + [1] * 3 + [0] * 5}
OURS = {"prompt_tokens": 9, "output_tokens": [4, 3], "tool_tokens": [2], "tool_ms": [0.0]}


def test_a_timestamp_is_in_milliseconds_only_in_a_line_of_mooncakes(tmp_path: Path):
    row = {"input_length": 9, "output_length": 4, "hash_ids": [1]}
    found = read_dataset(lines(tmp_path / "t", {**row, "timestamp": 0}, {**row, "timestamp": 2500}), "trace")
    assert [(one.prompt, one.output, one.arrival_s) for one in found] == [(9, 4, 0.0), (9, 4, 2.5)]
    assert [one.arrival_s for one in read_dataset(lines(tmp_path / "t", row), "trace")] == [None]
    ours = {"prompt_tokens": 9, "output_tokens": 4, "timestamp": 0.0}
    for mixed in (ours, {**ours, "input_length": 9}, {"prompt_tokens": 9, "output_length": 4, "timestamp": 0.0}):
        with refused("line 1: has a timestamp, which is in milliseconds only beside", "arrival_s"):
            read_dataset(lines(tmp_path / "t", mixed), "trace")
    with refused("timestamp is", "arrival_s"):
        read_dataset(lines(tmp_path / "t", {**row, "timestamp": "2026-11-28"}), "trace")
    with refused("timestamp is 9999", "arrival_s"):
        read_dataset(lines(tmp_path / "t", {**row, "timestamp": int("9" * 400)}), "trace")
    assert [one.arrival_s for one in read_dataset(lines(tmp_path / "t", {**ours, "arrival_s": 2}), "trace")] == [2]


@pytest.mark.parametrize("row", [{**OURS, "prompt_group": "p"}, AREAL, NEMO_RL])
def test_recorded_turns_are_replayed_and_samples_share_prompts(tmp_path: Path, row: dict[str, Any]):
    path = lines(tmp_path / "t", row, {**row, "tool_ms": [250]})
    first, second = source(path, "trace", prompts=2, samples_per_prompt=1).requests(0, 0)
    assert (first.prompt_token_ids, first.sample, second.sample) == (second.prompt_token_ids, 0, 1)
    assert [(len(one.prompt_token_ids), one.output_tokens) for one in (first, second)] == [(9, 4)] * 2
    (turn,), (later,) = first.further, second.further
    assert (turn.tool_s, later.tool_s, len(turn.tool_token_ids), turn.output_tokens) == (0.0, 0.25, 2, 3)
    assert turn.tool_token_ids != later.tool_token_ids


def test_a_workload_knows_the_largest_of_its_recorded_turns(tmp_path: Path):
    long = {"prompt_tokens": 5, "output_tokens": [1, 20, 2], "tool_tokens": [3, 1], "tool_ms": [10.5, 900]}
    facts = dataset_facts(lines(tmp_path / "t", OURS, long, {"prompt_tokens": 12, "output_tokens": 6}), "trace")
    assert (facts.longest_pair, facts.longest_prompt, facts.shortest_prompt) == ((9, 23), 12, 5)
    assert (facts.longest_output, facts.turns) == (20, Turns(count=3, tool_ms=900, tool_tokens=3))
    settings = {"prompts": 3, "dataset": {"format": "trace", "path": str(tmp_path / "t")}}
    assert checked_load("agents", WorkloadSettings.model_validate(settings)).spec.turns == facts.turns


def test_text_is_cut_and_gets_its_shared_prefix(tmp_path: Path, model: str):
    path = lines(
        tmp_path / "p",
        {"prompt": "abcdefgh", "prompt_tokens": 8},
        {"prompt": "xy", "output_tokens": 2},
        {"prompt": [9, 8, 7]},
    )
    shared = {"shared_prefix": {"tokens": 3}, "prompt_tokens": 8}
    found = source(path, "prompts", model, prompts=3, samples_per_prompt=1, **shared).requests(0, 0)
    ids = [r.prompt_token_ids for r in found]
    assert ids[0][:3] == ids[1][:3] == ids[2][:3]
    assert [prompt[3:] for prompt in ids] == [
        [64, 65, 66, 67, 68],
        [87, 88],
        [9, 8, 7],
    ]  # from "!" on, printable bytes are 0, 1 ...
    assert [r.output_tokens for r in found] == [4, 2, 4]


def test_an_answers_length_sets_the_output_up_to_a_limit(tmp_path: Path, model: str):
    asks = [("human", "Hi?"), ("gpt", "Yes")], [("system", "x"), ("human", "Hi?"), ("gpt", "A long answer")]
    asks += [("gpt", "no question"), ("human", "and no answer")], []
    turns = [{"conversations": [{"from": who, "value": text} for who, text in conversation]} for conversation in asks]
    path = tmp_path / "s"
    for content in (json.dumps(turns), "\n".join(map(json.dumps, turns))):
        path.write_text(content)
        found = source(path, "sharegpt", model, prompts=2, samples_per_prompt=1, output_tokens=5).requests(0, 0)
        assert ([r.output_tokens for r in found], len(found[0].prompt_token_ids)) == ([3, 5], 3)
        replaced = source(path, "sharegpt", model, {"output_lengths": "workload"}, prompts=2, output_tokens=7)
        assert {request.output_tokens for request in replaced.requests(0, 0)} == {7}


TEMPLATE = "{% for m in messages %}{{ m.role[0] + m.content }}{% endfor %}{% if add_generation_prompt %}a{% endif %}"


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a model folder whose tokenizer has a chat template."""
    folder = tmp_path_factory.mktemp("chat")
    write_tokenizer(folder, VOCABULARY, 4096)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return str(folder)


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": who, "content": text} for who, text in turns]


def test_messages_get_the_models_chat_template(tmp_path: Path, chat_model: str):
    rows = {"messages": said(("system", "S"), ("user", "Q"))}, {"prompt": said(("user", "Q"), ("assistant", "abc"))}
    path = lines(tmp_path / "m", *rows, {"messages": said(("user", "Q")), "output_tokens": 9})
    found = source(path, "messages", chat_model, prompts=3, samples_per_prompt=1, output_tokens=5).requests(0, 0)
    texts = ["".join(chr(33 + number) for number in one.prompt_token_ids) for one in found]
    assert (texts, [one.output_tokens for one in found]) == (["sSuQa", "uQa", "uQa"], [5, 3, 9])


def test_messages_without_a_template_or_against_it_are_refused(tmp_path: Path, model: str, chat_model: str):
    path = lines(tmp_path / "m", {"messages": said(("user", "Q"))})
    with refused("its tokenizer has no chat template", "use a model whose tokenizer has one"):
        source(path, "messages", model, prompts=1)
    strict = Path(chat_model).with_name("strict")
    shutil.copytree(chat_model, strict)
    (strict / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    with refused("refuses messages of its data set: no system role", "roles that this template knows"):
        source(path, "messages", str(strict), prompts=1).requests(0, 0)


@pytest.mark.parametrize(
    ("format", "content", "problem"),
    [
        ("trace", b"", "contains no prompts"),
        ("trace", b'{"prompt_tokens": 4, "output_tokens": 2}\n{"prompt_tokens"', "line 2: is no JSON"),
        ("trace", b"[4, 2]", "entry 1: is no JSON object"),
        ("trace", b'{"prompt_tokens": 4}', "line 1: has no output_tokens"),
        ("trace", b'{"prompt_tokens": 4, "output_tokens": 2, "arivals": 1}', 'line 1: has no arrival_s, but "arivals"'),
        ("trace", b'{"prompt_tokens": 4, "prompt_tokens": 9, "output_tokens": 2}', '"prompt_tokens" stands twice'),
        ("trace", b'\n{"prompt_tokens": 0, "output_tokens": 2}', "line 2: prompt_tokens is 0"),
        ("trace", b'{"prompt_tokens": true, "output_tokens": 2}', "prompt_tokens is true"),
        ("trace", b'{"prompt_tokens": "4", "output_tokens": 2}', 'prompt_tokens is "4"'),
        ("trace", b'{"prompt_tokens": 4, "output_tokens": 2, "arrival_s": "now"}', 'arrival_s is "now"'),
        ("trace", b'{"prompt_tokens": 4, "output_tokens": 2, "arrival_s": NaN}', "arrival_s is NaN"),
        (
            "trace",
            b'{"prompt_tokens": 4, "output_tokens": 2, "arrival_s": 1}\n{"prompt_tokens": 4, "output_tokens": 2}',
            "only 1 of 2 entries say when they arrive",
        ),
        (
            "trace",
            b'{"prompt_tokens": 4, "output_tokens": 2, "arrival_s": 1}\n'
            b'{"prompt_tokens": 4, "output_tokens": 2, "arrival_s": 0}',
            "entry 2 arrives before",
        ),
        ("trace", b'{"prompt_tokens": 4, "output_tokens": [2, 1], "tool_ms": [1]}', "has 0 tool_tokens and 1 tool_ms"),
        ("trace", b'{"prompt_tokens": 4, "output_tokens": []}', "output_tokens is []"),
        ("trace", b'{"segments": [{"role": "gen", "len": 4}]}', "begins with an answer"),
        ("trace", b'{"segments": [{"role": "prompt"}]}', "has segments without role and len"),
        ("trace", b'{"token_loss_mask": [0, 1]}', "a token_loss_mask without token_ids"),
        ("prompts", b"\xff\xfe", "byte 0 is not UTF-8 text"),
        ("prompts", b" \n ", "contains no prompts"),
        ("prompts", b'{"prompt": " "}', "line 1: prompt is"),
        ("prompts", b'{"prompt": []}', "line 1: prompt is []"),
        ("prompts", b'{"prompt": [1, -2]}', "line 1: prompt is [1, -2]"),
        ("prompts", b'{"prompt": [1, 2.5]}', "line 1: prompt is [1, 2.5]"),
        ("prompts", b'{"text": "x"}', "line 1: has no prompt"),
        ("prompts", b'{"prompt": "x", "output_tokens": -1}', "output_tokens is -1"),
        (
            "prompts",
            b'[{"prompt": "x"}, {"question": "y", "id": 1}]',
            'entry 2: has no prompt: its keys are "question"',
        ),
        ("prompts", b'[\n{"prompt": "x"},', "is no JSON"),
        ("prompts", b'["a", "b"]', 'entry 1: is no JSON object, but "a"'),
        ("messages", b'{"messages": []}', "line 1: messages is []"),
        ("messages", b'{"prompt": "x"}', 'line 1: prompt is "x"'),
        ("messages", b'{"messages": [{"role": "user"}]}', "line 1: has no content"),
        ("messages", b'{"messages": [{"role": "assistant", "content": "x"}]}', "no message before it"),
        ("sharegpt", b'{"conversations": []}\n{}', "line 2: has no list of conversations"),
        ("sharegpt", b"[", "is no JSON:"),
        ("sharegpt", b"[{}]", "entry 1: has no list of conversations"),
        ("sharegpt", b'[{"conversations": [{"from": "gpt", "value": "x"}]}]', "contains no prompts"),
        ("sharegpt", b"[" * 100_000, "is nested too deeply"),
    ],
)
def test_a_damaged_file_is_told_in_two_lines(tmp_path: Path, format: str, content: bytes, problem: str):
    (tmp_path / "data").write_bytes(content)
    with refused(problem, "  -> ") as raised:
        read_dataset(tmp_path / "data", format)
    assert "data: " in raised.value.problem


@pytest.mark.parametrize(
    ("format", "content", "meant"),
    [
        (
            "prompts",
            b'[{"id": "a", "conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}]',
            "sharegpt",
        ),
        ("prompts", b'{"messages": [{"role": "user", "content": "x"}]}', "messages"),
        ("sharegpt", b'{"prompt_tokens": 4, "output_tokens": 2}', "trace"),
        ("messages", b'{"prompt": "x"}', "prompts"),
    ],
)
def test_a_file_of_another_format_is_told_its_own(tmp_path: Path, format: str, content: bytes, meant: str):
    (tmp_path / "data.json").write_bytes(content)
    with refused("data.json: ", f"write format: {meant}"):
        read_dataset(tmp_path / "data.json", format)
    assert read_dataset(tmp_path / "data.json", meant)


def test_a_compressed_file_is_refused_with_the_command_that_unpacks_it(tmp_path: Path):
    path = tmp_path / "chats.json.gz"
    path.write_bytes(gzip.compress(b"[]"))
    with refused("chats.json.gz: is compressed (.gz)", "gunzip -k chats.json.gz), and name chats.json"):
        read_dataset(path, "sharegpt")


@pytest.mark.parametrize("format", ["trace", "prompts", "messages"])
def test_a_json_list_holds_the_entries_of_json_lines(tmp_path: Path, format: str):
    rows: dict[str, list[dict[str, Any]]] = {
        "trace": [OURS, AREAL],
        "prompts": [{"prompt": "a"}, {"prompt": [1]}],
        "messages": [{"messages": said(("user", "Q"))}],
    }
    path = tmp_path / "data.json"
    path.write_text(json.dumps(rows[format], indent=2))
    assert read_dataset(path, format) == read_dataset(lines(tmp_path / "data.jsonl", *rows[format]), format)


def test_plain_prompts_may_begin_with_a_bracket(tmp_path: Path):
    path = tmp_path / "prompts.txt"
    path.write_text("[INST] a [/INST]\r\n\n- b\n")
    assert [entry.prompt for entry in read_dataset(path, "prompts")] == ["[INST] a [/INST]", "- b"]


@pytest.mark.parametrize(
    ("name", "format", "problem", "remedy"),
    [
        ("p.csv", "prompts", "a table (.csv) is not read", "pandas.read_csv("),
        ("p.CSV", "trace", "a table (.csv) is not read", "to_json('p.jsonl', orient='records', lines=True)"),
        ("p.tsv", "prompts", "a table (.tsv) is not read", "rename(columns={'COLUMN': 'prompt'})"),
        ("p.parquet", "messages", "a table (.parquet) is not read", "pandas.read_parquet("),
        ("p.yaml", "prompts", "is no JSON, and .yaml is no suffix of plain text", "prompts are JSON lines"),
        ("p.json", "prompts", "is no JSON, and .json is no suffix of plain text", "prompts are JSON lines"),
    ],
)
def test_a_file_of_another_structure_is_not_read_as_text(
    tmp_path: Path, name: str, format: str, problem: str, remedy: str
):
    (tmp_path / name).write_text("id,question\n1,a\n")
    with refused(problem, remedy):
        read_dataset(tmp_path / name, format)


def test_token_ids_beyond_the_vocabulary_are_refused(tmp_path: Path):
    path = lines(tmp_path / "p", {"prompt": [1, VOCABULARY]})
    with pytest.raises(UserError, match="token id 4096, the vocabulary 4096 ids"):
        source(path, "prompts", prompts=1).requests(0, 0)


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_never_ends_is_no_data_set(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(UserError, match="it is not a regular file"):
        read_bytes(path if kind == "fifo" else Path("/dev/zero"))


@pytest.mark.parametrize(("name", "problem"), [("x" * 300, "File name too long"), ("x\0", "embedded null byte")])
def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    with refused(problem, "correct the path"):
        read_bytes(tmp_path / name)
