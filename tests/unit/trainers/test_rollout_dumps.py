"""Rollouts that verl has written down become a trace of each step, with groups, or of one engine's part of it."""

import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from made_workloads import workload
from planned import planned
from refusals import refused
from trainer_commands import Made
from training_runs import ROLLOUT, TRL, VERL

from rollout_bench.checkpoints.tokenizer import write_tokenizer
from rollout_bench.commands import trainers
from rollout_bench.contracts.load import DatasetSpec
from rollout_bench.contracts.spec import replicas
from rollout_bench.core.errors import UserError
from rollout_bench.measure.engine.vllm import sequence_rows
from rollout_bench.trainers.rollout_dumps import read_dumps, trace
from rollout_bench.trainers.step import StepPart
from rollout_bench.workloads.requests import Source, sharing

LONGEST = 100


def words(texts: Sequence[str]) -> list[int]:
    """Count words in place of tokens."""
    return [len(text.split()) for text in texts]


def dump(folder: Path, steps: int = 2, prompts: int = 16, samples: int = 4) -> Path:
    """Write steps whose prompts and answers have different numbers of words."""
    folder.mkdir()
    for step in range(1, steps + 1):
        rows = [
            {"input": f"{step} {'ask ' * prompt}", "output": "say " * (prompt + sample), "score": 0.5, "step": step}
            for prompt in range(prompts)
            for sample in range(samples)
        ]
        (folder / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def with_tokenizer(model: Path) -> Path:
    """Make the folder of a model that has a tokenizer, and return it."""
    model.mkdir()
    write_tokenizer(model, 4096, 4096)
    (model / "config.json").write_text("{}")
    return model


def test_lengths_and_groups_are_those_of_the_dump(tmp_path: Path):
    first, second = read_dumps(dump(tmp_path / "d"), words, 10)
    assert [(one["prompt_tokens"], one["output_tokens"]) for one in first[4:8]] == [(2, 2), (2, 3), (2, 4), (2, 5)]
    assert [{one["prompt_group"] for one in step} for step in (first, second)] == [set(range(16)), set(range(16, 32))]
    assert max(one["output_tokens"] for one in first) == 10  # a cut answer has no end token
    assert min(one["output_tokens"] for (one, *_) in read_dumps(tmp_path / "d", words, 10, 1)) == 1  # as in verl


@pytest.mark.parametrize(
    "output",
    [
        "call it\n<tool_response>\n{page}\n</tool_response>\nthe end",
        "call it\nuser\n<tool_response>\n{page}\n</tool_response>\nassistant\nthe end",
        "call it\ntool\n{page}\nassistant\nthe end",
        "call it <information>{page}</information> the end",
        "call <interpreter>{page}</interpreter> it the <interpreter>{page}",
        "call\n<tool_response>\n{page}\nassistant\nit\n<tool_response>\n{page}\nassistant\nthe end",
        "call <information>{page}\nassistant\n</information> it\nuser\n{page}\nassistant\nthe end",
    ],
)
def test_the_text_of_tools_is_not_generated(tmp_path: Path, output: str, capsys: pytest.CaptureFixture[str]):
    rows = [{"input": "ask", "output": output.format(page="page " * 90)}, {"input": "ask", "output": "a user says it"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "1.jsonl").write_text(lines)
    ((tools, plain),) = read_dumps(tmp_path, words, LONGEST)
    turns = 1 + output.count("{page}")
    words_of_it = sum(word in output for word in ("call", "it", "the", "end"))
    assert (tools["output_tokens"], plain["output_tokens"]) == (words_of_it + turns, 4 + 1)
    assert f"{turns - 1} result" in capsys.readouterr().err


def test_an_answer_that_repeats_a_role_takes_no_quadratic_time(tmp_path: Path):
    output = "call\ntool\npage\nassistant\n" + "\nuser\n" * 50_000  # minutes, where each looks for an answer after it
    began_s = time.monotonic()
    (tmp_path / "1.jsonl").write_text(json.dumps({"input": "ask", "output": output}))
    ((line,),) = read_dumps(tmp_path, words, LONGEST)
    assert line["output_tokens"] == LONGEST
    assert time.monotonic() - began_s < 20


def test_steps_are_taken_in_their_order_of_numbers(tmp_path: Path):
    for step in (1, 2, 10):
        (tmp_path / f"{step}.jsonl").write_text(json.dumps({"input": "ask", "output": "say " * step}))
    assert [one["output_tokens"] for step in read_dumps(tmp_path, words, LONGEST) for one in step] == [2, 3, 11]


def test_each_step_gives_an_engine_whole_groups_or_spread_ones(tmp_path: Path):
    steps = read_dumps(dump(tmp_path / "d"), words, LONGEST)
    together = trace(steps, StepPart(16, 4), spread=False)
    assert Counter(line["prompt_group"] for line in together) == dict.fromkeys([0, 1, 2, 3, 16, 17, 18, 19], 4)
    spread = trace(steps, StepPart(16, 11), spread=True)
    assert [len({line["prompt_group"] for line in part}) > 6 for part in (spread[:16], spread[16:])] == [True, True]
    assert spread == trace(steps, StepPart(16, 11), spread=True)


def test_a_group_shares_one_prompt_that_changes_between_passes(tmp_path: Path):
    lines = [{"prompt_tokens": 9, "output_tokens": n + 1, "prompt_group": n // 3} for n in range(6)]
    lines += [{"prompt_tokens": 9, "output_tokens": 1}] * 2
    path = tmp_path / "t"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    named = DatasetSpec(format="trace", sha256="0" * 64)
    source = Source(workload(dataset=named, prompts=8, samples_per_prompt=1), 4096, "m", path)
    asked = source.requests(0, 0)
    distinct = list(dict.fromkeys(tuple(one.prompt_token_ids) for one in asked))
    assert [distinct.index(tuple(one.prompt_token_ids)) for one in asked] == [0, 0, 0, 1, 1, 1, 2, 3]
    assert [one.output_tokens for one in asked] == [1, 2, 3, 4, 5, 6, 1, 1]
    assert [(one.prompt, one.sample) for one in asked] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (3, 0)
    ]  # fmt: skip
    assert sharing(asked).tokens == 4 * 9
    assert source.requests(0, 1)[0].prompt_token_ids != asked[0].prompt_token_ids


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"prompt_tokens": 9, "output_tokens": 1, "prompt_group": True}, "line 2: prompt_group is true"),
        ({"prompt_tokens": 8, "output_tokens": 1, "prompt_group": 0}, "prompt_group 0 has 8 prompt_tokens, above 9"),
    ],
)
def test_a_damaged_group_is_told_in_two_lines(tmp_path: Path, line: dict[str, object], problem: str):
    path = tmp_path / "t"
    path.write_text('{"prompt_tokens": 9, "output_tokens": 1, "prompt_group": 0}\n' + json.dumps(line))
    with pytest.raises(UserError, match=problem):
        Source(workload(dataset=DatasetSpec(format="trace", sha256="0")), 4096, "m", path)


@pytest.mark.parametrize(
    ("content", "problem", "remedy"),
    [
        (None, "there is no such folder", "rollout_data_dir"),
        ("", "contains no rollouts", "rollout_data_dir"),
        ('{"input": "a", "outp', "line 1 has no texts of prompt and answer", "each line is an object"),
        ('{"input": "a"}', "line 1 has no texts of prompt and answer", "trainer.rollout_data_dir"),
        ('{"input": "a", "output": "b"}', "at most 1 sequences, but 100 are needed", "of the recorded run"),
        ("[1]", "line 1 has no texts of prompt and answer", "trainer.rollout_data_dir"),
    ],
    ids=["gone", "empty", "torn", "no_output", "smaller", "a_list"],
)
def test_a_damaged_dump_is_told_in_two_lines(tmp_path: Path, content: str | None, problem: str, remedy: str):
    if content is not None:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "1.jsonl").write_text(content)
    with refused(problem, remedy):
        trace(read_dumps(tmp_path / "d", words, LONGEST), StepPart(100, 50), spread=True)


def test_the_command_writes_a_data_set_that_its_config_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = with_tokenizer(tmp_path / "m")
    (tmp_path / "verl.yaml").write_text(VERL.replace("Qwen/Qwen3-8B", str(model)))
    file = tmp_path / "l.jsonl"
    dump(tmp_path / "d")
    arguments = f"{tmp_path}/verl.yaml data.train_batch_size=16 actor_rollout_ref.rollout.n=4 trainer.n_gpus_per_node=4"
    arguments += f" --lengths {tmp_path}/d --lengths-file {file}"

    def config(*more: str) -> str:
        assert trainers.from_verl([*shlex.split(arguments), *more]) == 0
        return capsys.readouterr().out

    config()
    text = config()  # the same content may be there already
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["prompt_group"] for line in lines] == [number // 4 for number in range(2 * 16 * 4)]
    assert yaml.safe_load(text)["workload_settings"]["verl-step"]["dataset"] == {"format": "trace", "path": str(file)}
    experiment, _ = planned(text).experiments  # bf16 and fp8
    assert (experiment.spec.workload.prompts, replicas(experiment.spec)) == (64, 4)
    assert [one.spec.workload.prompts for one in planned(config("--placement")).experiments] == [64, 64]
    as_before = config("+algorithm.adv_estimator=remax", "+trainer.use_v1=false")  # verl saves no baselines
    assert yaml.safe_load(as_before) == yaml.safe_load(text)
    with pytest.raises(UserError, match="temperature: 500"):
        config("+actor_rollout_ref.rollout.temperature=500", "--lengths-file", f"{tmp_path}/x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="already exists with different content"):
        config("--one-engine")
    file.unlink()
    experiment, _ = planned(config("--one-engine")).experiments
    assert (experiment.spec.workload.prompts, replicas(experiment.spec), len(file.read_text().splitlines())) == (
        16,
        1,
        32,
    )


def test_an_answer_has_the_room_that_its_prompt_leaves(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model, folder = with_tokenizer(tmp_path / "m"), dump(tmp_path / "d")
    made, sizes = Made("from-verl", tmp_path, capsys), f"data.train_batch_size=16 {ROLLOUT}.n=4"

    def lengths(name: str, more: str) -> list[tuple[int, int]]:
        file = tmp_path / name
        made(f"{sizes} --lengths {folder} --lengths-file {file} {more}", VERL.replace("Qwen/Qwen3-8B", str(model)))
        lines = map(json.loads, file.read_text().splitlines())
        return [(line["prompt_tokens"], line["output_tokens"]) for line in lines]

    recorded = lengths("recorded", "")
    most = max(prompt + answer for prompt, answer in recorded) - 4
    longest = max(answer for _, answer in recorded) - 1
    held = lengths(
        "held", f"data.max_prompt_length={most - 1} data.max_response_length={longest} +{ROLLOUT}.max_model_len={most}"
    )
    assert held == [(prompt, min(answer, longest, most - prompt)) for prompt, answer in recorded]
    assert len({answer for _, answer in held}) > 10


def logged(folder: Path) -> Path:
    """Write two generations as TRL does, the first of which is logged twice, as with two optimizer steps."""
    folder.mkdir()
    for step, words_more in enumerate((0, 0, 1), 1):
        prompts = [f"ask {prompt}" for prompt in range(8) for _ in range(8)]
        answers = ["say " * (1 + words_more + number % 8) for number in range(64)]
        table = pd.DataFrame({"step": step, "prompt": prompts, "completion": answers, "advantage": 0.5})
        table.to_parquet(folder / f"completions_{step:05d}.parquet")
    return folder


def test_completions_that_trl_has_logged_become_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = with_tokenizer(tmp_path / "m")
    made, file = Made("from-trl", tmp_path, capsys), tmp_path / "l.jsonl"
    training = TRL.replace("Qwen/Qwen3-1.7B", str(model)).replace("max_prompt_length: 512\n", "")
    (load,) = made(f"--lengths {logged(tmp_path / 'c')} --lengths-file {file}", training)["workload_settings"].values()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["prompt_group"] for line in lines] == [number // 8 for number in range(2 * 64)]
    assert load["dataset"] == {"format": "trace", "path": str(file)}
    assert load["engine_args"]["max_model_len"] == lines[0]["prompt_tokens"] + 256
    assert replicas(made.experiment().spec) == 8
    made(f"--placement --lengths {tmp_path / 'c'} --lengths-file {file}", training)
    both = [one.spec.engine.args["max_model_len"] for one in planned(made.text).experiments]
    assert both == [load["engine_args"]["max_model_len"]] * 2


def test_parquet_needs_a_reader_and_a_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "completions_00001.parquet").write_bytes(b"PAR")
    with refused("is no parquet file", "completions in the output folder of TRL"):
        read_dumps(tmp_path, words, LONGEST)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with refused("is parquet, which pandas cannot read here", "install pyarrow here"):
        read_dumps(tmp_path, words, LONGEST)


@pytest.mark.parametrize(("requests", "samples"), [("per_sequence", 1), ("per_sequence", 2), ("per_prompt", 2)])
def test_rows_of_an_offline_pass_have_their_requests_numbers(tmp_path: Path, requests: str, samples: int):
    path = tmp_path / "t"
    line = json.dumps({"prompt_tokens": 9, "output_tokens": 1, "prompt_group": 0}) + "\n"
    path.write_text(line * 2 + line.replace("0}", "1}"))
    load = workload(
        dataset=DatasetSpec(format="trace", sha256="0"), prompts=3, samples_per_prompt=samples, requests=requests
    )
    asked = Source(load, 4096, "m", path).requests(0, 0)
    sent, each = (asked[::samples], samples) if requests == "per_prompt" else (asked, 1)
    answer = SimpleNamespace(token_ids=[1], finish_reason="length")
    output = SimpleNamespace(outputs=[answer] * each, prompt_token_ids=[1] * 9, num_cached_tokens=0, metrics=None)
    rows = sequence_rows([output] * len(sent), sent, 0, 0.0)
    assert [(row.prompt, row.sample) for row in rows] == [(one.prompt, one.sample) for one in asked]
