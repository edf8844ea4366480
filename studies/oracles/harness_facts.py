"""Facts about load generators' requests, from their own commands: run by `make load-oracles`.

Each profile, bundled or drawn, is filled in as a launch fills it in, and given to `vllm bench serve`, `guidellm run` or
`inference-perf`, as llm-d-benchmark does. They send to the stub of the tests in place of a server.

Not reached: conversations of files, and how many requests a closed loop sends in a time.
"""

import itertools
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from faker.providers.lorem.en_US import Provider
from oracle_table import refusal, write_table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rollout_bench.measure.server.vllm_command import COMMAND
from rollout_bench.workloads.requests import Request, sharing

REPOSITORY = Path(__file__).parents[2]
sys.path.append(str(REPOSITORY / "tests" / "fixtures"))

from stub_server import prompt_of, running_stub  # noqa: E402

ANSWER_MS = 150
"""Time from a request to the end of its answer."""

PROFILES = REPOSITORY / "config" / "llm-d"
INFERENCE_PERF = REPOSITORY / ".venv-oracles" / "inference-perf" / "bin" / "inference-perf"
DRAWS = 34
NUMBERS = 5000
WORDS: tuple[str, ...] = Provider.word_list
LIMIT_S = 100
PRELOADED = {"vllm-benchmark": "vllm.benchmarks.serve"}
FORKS = multiprocessing.get_context("forkserver")

SHORTER: dict[str, dict[str, Any]] = {
    "inference-perf": {"duration": 0.05, "least": 3},
    "guidellm": {"seconds": 0.2},
    "vllm-benchmark": {"num-prompts": 0.5},
}
"""Harness -> key of a bundled profile and the share of its value that is asked for, as recording it takes time."""


def shortened(value: Any, harness: str, key: str = "") -> Any:
    """Return a profile with less to send."""
    if isinstance(value, dict):
        return {name: shortened(one, harness, name) for name, one in value.items()}
    if isinstance(value, list):
        return [shortened(one, harness, key) for one in value]
    share = SHORTER[harness].get(key)
    return max(int(value * share), SHORTER[harness].get("least", 1)) if share else value


def bundled(harness: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and content of each bundled profile that sends text and needs no file."""
    for path in sorted((PROFILES / harness).glob("*.yaml.in")):
        name = path.name.removesuffix(".yaml.in")
        if name not in ("chatbot_sharegpt", "use_case_image_classification"):
            yield name, shortened(yaml.safe_load(path.read_text()), harness)


def lengths(chance: random.Random) -> dict[str, Any]:
    """Return a distribution of inference-perf, from 1 where it is log-normal: others are not read."""
    kind = chance.choice(["normal", "normal", "uniform", "lognormal", "fixed", None])
    low, mean = 1 if kind == "lognormal" else chance.choice([1, 5, 20]), chance.choice([25, 40, 90])
    found = {
        "type": kind, "min": low, "max": mean + chance.choice([10, 60, 400]), "mean": mean,
        "std_dev": chance.choice([0, 4, 20, 60]), "total_count": 500,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def inference_perf(chance: random.Random, content: dict[str, Any]) -> None:
    """Change a profile of inference-perf."""
    load, data = content["load"], content["data"]
    content.pop("report")
    load["type"] = chance.choice(["constant", "poisson", "concurrent"])
    if load["type"] == "concurrent":
        load["stages"] = [
            {"num_requests": chance.choice([30, 60]), "concurrency_level": chance.choice([1, 2, 5])}
            for _ in range(chance.choice([1, 2]))
        ]
    else:
        load["stages"] = [
            {"rate": chance.choice([4, 7.5, 12]), "duration": chance.choice([5, 8])}
            for _ in range(chance.choice([1, 2]))
        ]
    if chance.random() < 0.4:
        load["num_workers"], load["worker_max_concurrency"] = chance.choice([1, 2]), chance.choice([1, 50])
    content["server"]["ignore_eos"] = chance.choice([True, False, True])
    if chance.random() < 0.4:
        data.clear()
        shared = {
            "num_groups": chance.choice([1, 3, 8]), "num_prompts_per_group": chance.choice([2, 10, 40]),
            "system_prompt_len": chance.choice([16, 100]), "question_len": chance.choice([8, 50]),
            "output_len": chance.choice([4, 30]),
        }  # fmt: skip
        for what in ("question", "output"):
            if chance.random() < 0.3:
                shared[f"{what}_distribution"] = {
                    "type": "normal", "min": 5, "max": 60, "mean": 30, "std_dev": chance.choice([5, 25])
                }  # fmt: skip
        data |= {"type": "shared_prefix", "shared_prefix": shared}
    else:
        data |= {"type": "random", "input_distribution": lengths(chance), "output_distribution": lengths(chance)}


def guidellm(chance: random.Random, content: dict[str, Any]) -> None:
    """Change a profile of guidellm."""
    kinds = ["constant", "poisson", "async", "concurrent", "throughput", "synchronous"]
    spec, kind = content["spec"], chance.choice(kinds)
    spec["profile"] = {"kind": kind}
    if kind in ("constant", "poisson", "async"):
        rates = [chance.choice([4, 7.5, 12]) for _ in range(chance.choice([1, 2]))]
        spec["profile"]["rate"] = rates if len(rates) > 1 or chance.random() < 0.5 else rates[0]
        if chance.random() < 0.3:
            spec["profile"]["max_concurrency"] = chance.choice([1, 20])
    elif kind == "concurrent":
        spec["profile"]["streams"] = chance.choice([1, 3, [1, 4]])
    elif kind == "throughput":
        spec["profile"]["max_concurrency"] = chance.choice([2, 6])
    by_time = {"kind": "max_duration", "seconds": chance.choice([4, 6])}
    by_number = {"kind": "max_requests", "count": chance.choice([20, 40])}
    open_loop = kind in ("constant", "poisson", "async")
    spec["constraints"] = chance.choice([[by_time], [by_number], [by_time, by_number]] if open_loop else [[by_number]])
    data: dict[str, Any] = {"kind": "synthetic_text"}
    for what in ("prompt_tokens", "output_tokens"):
        data[what] = chance.choice([30, 64])
        if chance.random() < 0.6:
            data[f"{what}_stdev"] = chance.choice([3, 25])
        if chance.random() < 0.4:
            data[f"{what}_min"] = chance.choice([2, 20])
        if chance.random() < 0.4:
            data[f"{what}_max"] = chance.choice([70, 200])
    if chance.random() < 0.3:
        bucket = {"prefix_tokens": chance.choice([20, 50]), "prefix_count": chance.choice([1, 4])}
        data["prefix_buckets"] = [{"bucket_weight": 100, **bucket}]
    spec["data"] = [data]
    spec["backend"]["request_format"] = chance.choice(["/v1/completions", "/v1/completions", "/v1/chat/completions"])


def vllm_benchmark(chance: random.Random, content: dict[str, Any]) -> None:
    """Change a profile of `vllm bench serve`."""
    content |= {"num-prompts": chance.choice([20, 40]), "random-input-len": chance.choice([30, 64])}
    content["random-output-len"] = chance.choice([5, 50])
    drawn: dict[str, list[Any]] = {
        "max-concurrency": [None, 1, 4],
        "request-rate": [None, 5, 12.5, "inf"],
        "burstiness": [None, 0.3, 1.0, 4],
        "random-range-ratio": [None, 0.5, 0.2],
        "random-prefix-len": [None, 20],
        "temperature": [None, 0, 0.7, 1.0],
        "top-p": [None, 0.9],
        "top-k": [None, 20],
        "ignore-eos": [None, "none"],
        "seed": [None, 3],
        "backend": [None, "openai", "openai-chat"],
        "input-len": [None, None, 25],
        "output-len": [None, None, 12],
    }
    for key, values in drawn.items():
        content.pop(key, None)
        if (value := chance.choice(values)) is not None:
            content[key] = value
    if content.get("backend") == "openai-chat":
        content["endpoint"] = "/v1/chat/completions"
    if chance.random() < 0.3:
        for key in [key for key in content if key.startswith("random-")]:
            del content[key]
        content |= {
            "dataset-name": "prefix_repetition", "prefix-repetition-prefix-len": chance.choice([20, 60]),
            "prefix-repetition-suffix-len": chance.choice([10, 30]), "prefix-repetition-output-len": 8,
            "prefix-repetition-num-prefixes": chance.choice([1, 3, 7]),
        }  # fmt: skip
        content.pop("input-len", None)


CHANGES = {"inference-perf": inference_perf, "guidellm": guidellm, "vllm-benchmark": vllm_benchmark}


def draws(harness: str, number: int, seed: int) -> Iterator[tuple[None, dict[str, Any]]]:
    """Yield drawn profiles of a harness."""
    chance = random.Random(seed)
    for _ in range(number):
        content = yaml.safe_load((PROFILES / harness / "sanity_random.yaml.in").read_text())
        CHANGES[harness](chance, content)
        yield None, content


def command(harness: str, content: dict[str, Any], folder: Path) -> list[str]:
    """Return the command line of a harness for a profile that is filled in."""
    if harness == "vllm-benchmark":
        given = {key: value for key, value in content.items() if key != "executable"}
        flags = [f"--{key}" if value in ("none", None) else f"--{key}={value}" for key, value in given.items()]
        return ["vllm", "bench", "serve", "--ready-check-timeout-sec=0", *flags]
    file = folder / "profile.yaml"
    if harness == "guidellm":
        content["spec"]["backend"]["http2"] = False  # needs a package of its own
        # by default the first request waits for 4,096 prompts
        content["spec"]["data_loader"] = {"kind": "pytorch", "num_workers": 1, "prefetch_factor": 64}
        content["spec"]["outputs"] = [{"kind": "json", "path": str(folder / "report.json")}]
        file.write_text(yaml.safe_dump(content))
        return [sys.executable, "-m", "guidellm", "run", "--disable-console", "--config", str(file)]
    content["storage"] = {"local_storage": {"path": str(folder)}}
    file.write_text(yaml.safe_dump(content))
    return [str(INFERENCE_PERF), "--config_file", str(file)]


def began(folder: Path) -> None:
    """Write what this process says into the folder, and know nothing of other folders."""
    os.environ |= ENVIRONMENT | {"HOME": str(folder)}
    os.chdir(folder)
    with (folder / "said").open("wb") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)


def called(line: list[str], folder: Path) -> None:
    """Call the command of a module that is imported already."""
    began(folder)
    sys.argv = line
    exec(COMMAND, {})


def forked(line: list[str], folder: Path) -> bool:
    """Return whether a command failed, called in a fork of a process that has imported it: importing takes long."""
    process = FORKS.Process(target=called, args=(line, folder))
    process.start()
    process.join(LIMIT_S)
    process.kill()
    return process.exitcode != 0


def started(line: list[str], folder: Path) -> bool:
    """Run a command; return whether it failed."""
    with (folder / "said").open("wb") as output:
        done = subprocess.run(
            line, cwd=folder, stdout=output, stderr=output, timeout=LIMIT_S, check=False,
            env={**os.environ, **ENVIRONMENT, "HOME": str(folder)},
        )  # fmt: skip
    return done.returncode != 0


def facts(requests: list[dict[str, Any]], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what a stub kept of requests: lengths, times and shared beginnings, in the order of arrival."""
    known_keys = ("prompt", "messages", "model", "max_tokens", "max_completion_tokens", "stream", "stream_options")
    asked = [one["body"] for one in requests]
    bodies = [{name: value for name, value in body.items() if name not in known_keys} for body in asked]
    different = [body for body in bodies if body != bodies[0]]
    assert not different, f"a request has {different[0]}, and the first {bodies[0]}"
    texts = [prompt_of(body) for body in asked]
    prompts = [tokenizer.encode(text).ids if isinstance(text, str) else text for text in texts]
    numbers: dict[tuple[int, ...], int] = {}
    same = [Request(numbers.setdefault(tuple(one), len(numbers)), 0, one, 1) for one in prompts]
    shared = sharing(same).with_others
    came_s = [one["head_read_s"] for one in requests]
    ends = [(one.get("ended_s", float("inf")), -1) for one in requests]
    return {
        "path": requests[0]["path"],
        "body": bodies[0],
        "prompt_tokens": [len(one) for one in prompts],
        "output_tokens": [body.get("max_tokens", body.get("max_completion_tokens")) for body in asked],
        "sent_ms": [round(1000 * (one - came_s[0])) for one in came_s],
        "at_once": max(itertools.accumulate(change for _, change in sorted([(one, 1) for one in came_s] + ends))),
        "prompts": len(numbers),
        "shared_tokens": [shared[one.prompt] for one in same],
    }


def recorded(harness: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return the facts for a profile, or the harness's refusal."""
    with tempfile.TemporaryDirectory() as name, running_stub() as stub:
        model, folder = Path(name) / "model", Path(name)
        stub.become(model=str(model), max_model_len=1 << 20, keeps_bodies=True, ttft_ms=ANSWER_MS, itl_ms=0)
        tokenizer = write_tokenizer(model)
        known = {"MODEL": model, "TOKENIZER": model, "ENDPOINT_URL": stub.url}
        text = json.dumps(content)
        for place, value in known.items():
            for kind in ("DEPLOY_CURRENT_", "HARNESS_STACK_"):
                text = text.replace(f"REPLACE_ENV_LLMDBENCH_{kind}{place}", str(value))
        line = command(harness, json.loads(text), folder)
        run = forked if harness in PRELOADED else started
        failed = run(line, folder)
        requests = stub.truth()["requests"]
        if failed or not requests:
            errors = [line for line in (folder / "said").read_text().splitlines() if "rror" in line]
            return refusal(RuntimeError(errors[-1].replace(str(folder), "") if errors else "no request was sent"))
        return facts(requests, tokenizer)


ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OPENAI_API_KEY": "none", "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1", "VLLM_TARGET_DEVICE": "cpu", "GUIDELLM__MAX_WORKER_PROCESSES": "1", "COLUMNS": "200",
}  # fmt: skip


def write_tokenizer(folder: Path) -> Tokenizer:
    """Write a tokenizer with one token for a word, so that a text has as many tokens as the ids it was made of."""
    folder.mkdir()
    texts = [form for word in WORDS for form in (word, word.capitalize(), f"{word}.")]  # those of guidellm
    names = dict.fromkeys([*map(str, range(NUMBERS)), *texts, "other"])
    vocabulary = {f"▁{name}": number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="▁other"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    return tokenizer


def rows(number: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the row of each bundled and each drawn profile."""
    harness = next(harness for harness in CHANGES if Path(sys.argv[1]).name.startswith(harness.partition("-b")[0]))
    os.environ |= ENVIRONMENT
    FORKS.set_forkserver_preload([PRELOADED.get(harness, "json")])
    asked = [*bundled(harness), *draws(harness, number, seed)]
    with ThreadPoolExecutor(2) as pool:
        for (name, content), found in zip(asked, pool.map(lambda one: recorded(harness, one[1]), asked), strict=True):
            yield {"name": name, "profile": content, **found}


if __name__ == "__main__":
    write_table(__doc__, Path(sys.argv[1]).name, ("name", "profile"), DRAWS, rows, ("sent_ms", "at_once"))
