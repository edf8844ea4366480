"""Write a config, with which `rollout-bench plan`, `check` and `run` work in this folder."""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import yaml

from rollout_bench.commands.trainers import trl_text, verl_text
from rollout_bench.contracts.fields import name_made_of
from rollout_bench.contracts.load import Places
from rollout_bench.core.errors import MeasuringFailed, UserError, did_you_mean
from rollout_bench.core.files import write_whole
from rollout_bench.core.options import Parser, completed_by
from rollout_bench.core.places import CONFIG, CONFIGS, home
from rollout_bench.core.yaml_files import flow, read_text
from rollout_bench.llmd.loads import mode_of_harness
from rollout_bench.measure.reachable import problems_of
from rollout_bench.plan.checks import quant_meant
from rollout_bench.plan.config import Config
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.meant import hub_name
from rollout_bench.plan.quants import known_quants
from rollout_bench.trainers.launch_scripts import is_script
from rollout_bench.trainers.shell import with_values
from rollout_bench.trainers.shell_words import commands

_URL, _SCRIPT = re.compile(r"^https?://"), re.compile(r"\.(sh|py|ya?ml)$")

_A_SERVER = "write the URL of a server that is up: --from endpoint http://127.0.0.1:8000/v1"

_UNNAMED = "MODEL"
"""Name of a model until the server says its own."""

_OPTIONS = ("--base-url", "--endpoint", "--model", "--server", "--target", "--url")
"""Options of other programs for a server and its model."""

_KINDS = """\
kinds:
  demo                          a small model that is built here (default)
  model PLACE [QUANT ...]       a folder, or OWNER/NAME of the hub, in these quantizations (default: bf16)
  endpoint URL [MODEL]          a server that is up
  verl FILE [KEY=VALUE ...]     verl's settings: a launch script, a YAML or words
  trl FILE [KEY=VALUE ...]      TRL's; both take the options of `rollout-bench from-verl` and `from-trl`
  example NAME                  NAME.yaml from config/NAME.yaml, to lay over the demo
  llm-d [PROFILE] [URL [MODEL]] a workload profile of llm-d-benchmark as HARNESS/PROFILE, or its SCENARIO.sh, for the
                                demo's model or a server (default: inference-perf/sanity_random)

examples:
  rollout-bench init --from model Qwen/Qwen3-8B bf16 fp8
  rollout-bench init --from endpoint http://127.0.0.1:8000/v1
  rollout-bench init --from verl run_grpo.sh trainer.n_gpus_per_node=8

Exit status: 0 when the config is written, 1 on an error, such as a file of that name."""

SANITY = "inference-perf/sanity_random"
"""The profile of llm-d-benchmark's run.sh without arguments."""

_SERVERS = ("openai", "server", "sglang", "tensorrt-llm", "tgi", "trtllm", "url", "vllm")
"""What a user may call a server that is up."""


def main(argv: Sequence[str]) -> int:
    """Write the config that the arguments ask for, and print the next command."""
    parser = Parser(
        prog="rollout-bench init",
        description=__doc__,
        epilog=_KINDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_argument(
        "--from", dest="source", nargs="+", default=["demo"], metavar=("KIND", "WHAT"), help="source"
    )
    completed_by(source, lambda: [*SOURCES, "example"])
    if {"-f", "--force", "--overwrite"} & {*argv}:
        raise UserError("rollout-bench init: nothing is overwritten", f"leave it out, and move {CONFIG} away")
    _check_kind_given(argv)
    options, trainers = parser.parse_known_args(argv)
    kind, *words = options.source
    if kind in ("verl", "trl"):
        words += trainers
    elif trainers:
        _refuse(trainers, kind, words)
        parser.error(f"unrecognized arguments: {' '.join(trainers)}")
    if kind == "example":
        return _write_example(words)
    if kind not in SOURCES:
        raise UserError(f"--from {kind}: is no kind of source", _meant(options.source))
    _check_absent(CONFIG)
    if kind == "llm-d" and len(words) == 2 and is_script(words[0]):
        words += filter(None, _scenario(Path(words[0])).get("DEPLOY_MODEL_LIST", "").split(",")[:1])
    text, url = SOURCES[kind](words), next((place for place, word in enumerate(words) if _URL.match(word)), 0)
    try:
        config = read_config(yaml.safe_load(text))
    except UserError as error:
        address = re.fullmatch(r"(?:write|did you mean) (https?://[^\s?]+)\??", error.remedy)
        if address is None or kind not in ("endpoint", "llm-d"):
            raise
        raise UserError(error.problem, f"write {_from(kind, *words[:url], address[1], *words[url + 1 :])}") from None
    if config.endpoints:
        text = SOURCES[kind]([*words[:url], *_ask(config, [kind, *words[:url]], words[url:])])
    return _write(CONFIG, text, "")


def _refuse(others: Sequence[str], kind: str, words: Sequence[str]) -> None:
    """Refuse the options `others` for a server, which a config has as keys, or after the URL among `words`."""
    if kind != "endpoint":
        return
    if words and len(others) == 2 and others[0] == "--model":
        raise UserError("rollout-bench init: a model stands after the URL", _as_endpoint(words[0], others[1]))
    after = f"leave it out here; then `rollout-bench plan {shlex.join(others)}` takes it, or names its key"
    raise UserError(f"rollout-bench init: {others[0]}: there is no such option", after)


def _check_kind_given(argv: Sequence[str]) -> None:
    """Refuse a source without --from, also as options of other programs."""
    options = [word for word in argv if word.partition("=")[0] in _OPTIONS]
    known = (*SOURCES, "example", *_SERVERS)
    words = [word.rpartition("=")[2] for word in argv if word not in options or "=" in word]
    words = [word.lstrip("-") if word.lstrip("-") in known else word for word in words]
    is_place = bool(words) and any((_URL.match(words[0]), _SCRIPT.search(words[0]), hub_name(words[0])))
    is_source = is_place or (bool(words) and words[0] in known)
    if "--from" not in argv and (options or is_source):
        remedy = f"write --from {shlex.join(words)}" if words and words[0] in (*SOURCES, "example") else _meant(words)
        raise UserError("rollout-bench init: the source stands after --from", remedy)


def _ask(config: Config, source: Sequence[str], words: Sequence[str]) -> Sequence[str]:
    """Ask the server of a config for the model that `words` name, URL and model; return them with its only model.

    `source` is what stands before them after --from.
    """
    for problem in problems_of(Places(endpoints=tuple(config.endpoints.values()))):
        if isinstance(problem, MeasuringFailed):
            if len(words) == 1 and problem.category == "wrong_model" and len(problem.instead) == 1:
                return [*words, *problem.instead]
            _refuse_place(problem, source, *words)
        if len(words) == 1:
            raise UserError(
                problem.problem, f"{problem.remedy}; or name its model too: {_from(*source, *words, _UNNAMED)}"
            )
        print(f"not asked for its models: {problem.problem}", file=sys.stderr)
    if len(words) == 1:
        raise UserError(f"{words[0]}: does not say which models it has", f"write {_from(*source, *words, _UNNAMED)}")
    return words


def _refuse_place(problem: MeasuringFailed, source: Sequence[str], url: str, model: str = "") -> None:
    """Raise the error of a server that is up, and has not what it is to be asked for; None for other problems."""
    place = "" if url in problem.problem else f"{url}: "
    if problem.instead and problem.category != "wrong_model":
        words = (problem.instead[0], *([model] if model else []))
        raise UserError(f"{place}{problem.problem}", f"write {_from(*source, *words)}")
    if problem.instead:
        lacking = problem.problem if model else f"which model? The server has {', '.join(problem.instead[:5])}"
        raise UserError(f"{place}{lacking}", f"write {_from(*source, url, problem.instead[0])}")
    if problem.category == "wrong_model":
        raise UserError(f"{place}{problem.problem}", problem.remedy)


def _from(*words: str) -> str:
    return f"--from {shlex.join(words)}"


def _as_endpoint(url: str, *model: str) -> str:
    return f"write {_from('endpoint', url, *model)}"


def _meant(source: Sequence[str]) -> str:
    """Return the remedy for words that begin with no kind of source."""
    source = source or [""]
    servers, files = ([word for word in source if form.search(word)] for form in (_URL, _SCRIPT))
    if servers:
        return _as_endpoint(servers[0], *[word for word in source[1:] if word not in servers][:1])
    if files:
        return f"say whose it is: --from verl {shlex.quote(files[0])}, or --from trl {shlex.quote(files[0])}"
    if source[0] in _SERVERS:
        return _A_SERVER
    if hub_name(source[0]):
        return f"write {_from('model', *source)}"
    return did_you_mean(source[0], [*SOURCES, "example"])


def _check_absent(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path.absolute()}: exists", "move it away, or change to an empty folder")


def _write(path: Path, text: str, arguments: str) -> int:
    write_whole(path, text.encode())
    print(f"{path} is written. Next: rollout-bench plan{arguments}, rollout-bench run{arguments}")
    return 0


def _write_example(words: Sequence[str]) -> int:
    (name,) = _expected_words(words, "NAME")
    examples = {path.stem: path for path in (home() / CONFIGS).glob("*.yaml") if path.name != CONFIG.name}
    if name not in examples:
        raise UserError(f"--from example {name}: there is no such example", did_you_mean(name, examples))
    path = Path(f"{name}.yaml")
    _check_absent(path)
    text = examples[name].read_text().replace(f"--configfile config/{path}", f"--configfile {path}")
    return _write(path, text, f" --configfile {path}")


def _demo(words: Sequence[str]) -> str:
    _expected_words(words)
    return (home() / CONFIGS / CONFIG).read_text()


def _model(words: Sequence[str]) -> str:
    """Return a config of one engine's part of a training step, for the user's model."""
    if not words:
        raise UserError("--from model: needs a folder or OWNER/NAME", "write --from model OWNER/NAME bf16 fp8")
    place, *quants = words[0], *(quant for word in words[1:] for quant in word.strip("[]").split(",") if quant)
    path = hub_name(place)
    name = name_made_of(path or place)
    if not (path or Path(place).is_dir()) or not name:
        raise UserError(f"--from model {place}: is no folder, and no OWNER/NAME of the hub", "correct it")
    for quant in quants:
        if quant not in known_quants({}):
            raise UserError(f"--from model {place} {quant}: is no quantization", quant_meant(quant))
    weights = f"hub:{path}" if path and not Path(place).is_dir() else place
    load = {"prompts": 32, "samples_per_prompt": 8, "prompt_tokens": 512, "output_tokens": 256}
    content = {
        "models": [name],
        "quants": quants or ["bf16"],
        "workloads": ["step"],
        "launches": 3,
        "model_settings": {name: {"weights": {"bf16": weights}}},
        "workload_settings": {"step": load},
    }
    comment = (
        "# One engine's part of a training step: prompts x samples, and the tokens of each. Write your own numbers; a\n"
        "# quantization with a checkpoint of its own needs its place in weights, too: `rollout-bench keys weights`.\n"
    )
    return comment + "".join(f"{key}: {flow(value)}\n" for key, value in content.items())


def _llmd(words: Sequence[str]) -> str:
    if not words or _URL.match(words[0]):
        words = [SANITY, *words]
    profile, *place = words
    scenario = _scenario(Path(profile)) if is_script(profile) else {}
    if scenario:
        name = Path(scenario.get("HARNESS_EXPERIMENT_PROFILE", SANITY)).name.partition(".")[0]
        profile = f"{scenario.get('HARNESS_NAME', SANITY.partition('/')[0])}/{name}"
    harness, _, path = profile.partition("/")
    if not path:
        files = sorted((home() / CONFIGS / "llm-d").glob("*/*"))
        found = [file.parent.name for file in files if file.name.partition(".")[0] == profile]
        meant = f"{found[0]}/{profile}" if found else "HARNESS/PROFILE"
        raise UserError(f"--from llm-d {profile}: names no harness and profile", f"write --from llm-d {meant}")
    overrides = scenario.get("HARNESS_EXPERIMENT_PROFILE_OVERRIDES")
    load = {"profile": {"harness": harness, "path": path, **({"overrides": overrides} if overrides else {})}}
    read = {"workloads": ["llm-d"], "workload_settings": {"llm-d": load}}
    if place:
        url, model = _expected_words([*place, _UNNAMED] if len(place) == 1 else place, "URL", "MODEL")
        server = {"url": url, "model": model, "api_key_env": None}
        asked = {"modes": ["online"], "models": [], "endpoints": {"mine": server}, **read, "launches": 3}
        comment = "# Each launch sends the profile once, as run.sh does; several give an interval.\n"
        return comment + yaml.safe_dump({**asked, "warmup_iterations": 0, "iterations": 1}, sort_keys=False)
    demo = yaml.safe_load((home() / CONFIGS / CONFIG).read_text())
    kept = {key: demo[key] for key in ("models", "model_settings")}
    comment = "# The model is the demo's: name yours in models and model_settings.\n"
    modes = [mode_of_harness(harness)]
    return comment + yaml.safe_dump({**kept, "quants": ["bf16"], "modes": modes, **read}, sort_keys=False)


def _scenario(path: Path) -> dict[str, str]:
    """Return the variables of one of llm-d-benchmark's scenarios without LLMDBENCH_, as far as it assigns texts.

    Raises:
        UserError: there is no such file, or it assigns none of them.
    """
    text = read_text(path, "scenario", "give a scenario of llm-d-benchmark, or HARNESS/PROFILE")
    words = [word for command in with_values(commands(text), -1) for word in command if not word.variable]
    assigned = [word.text.removeprefix("LLMDBENCH_").partition("=") for word in words if "LLMDBENCH_" in word.text[:10]]
    if not assigned:
        raise UserError(f"{path}: assigns no LLMDBENCH_...", "give a scenario of llm-d-benchmark, or HARNESS/PROFILE")
    return {name: value for name, _, value in assigned}


def _trainer(kind: str, convert: Callable[[Sequence[str]], str], words: Sequence[str]) -> str:
    if not words:
        raise UserError(f"--from {kind}: needs a launch script, a YAML or words", f"write --from {kind} training.yaml")
    return convert(words)


def _endpoint(words: Sequence[str]) -> str:
    if not words:
        raise UserError("--from endpoint: needs the URL of a server that is up", _A_SERVER)
    url, model = _expected_words([*words, _UNNAMED] if len(words) == 1 else words, "URL", "MODEL")
    if _URL.match(model) and not _URL.match(url):
        raise UserError(f"--from endpoint {url} {model}: the URL stands first", _as_endpoint(model, url))
    example = (home() / CONFIGS / "endpoint.yaml").read_text().replace(" --configfile config/endpoint.yaml", "")
    for key, value, given in (("url", "http://127.0.0.1:8000/v1", url), ("model", "my-model", model)):
        example = example.replace(f"{key}: {value}", f"{key}: {json.dumps(given, ensure_ascii=False)}")
    return example


def _expected_words(words: Sequence[str], *names: str) -> Sequence[str]:
    if len(words) != len(names):
        problem = f"--from: needs {' and '.join(names) or 'no more words'}, and has {' '.join(words) or 'none'}"
        raise UserError(problem, "`rollout-bench init --help` has each kind of source with its words")
    return words


SOURCES: dict[str, Callable[[Sequence[str]], str]] = {
    "demo": _demo,
    "model": _model,
    "verl": partial(_trainer, "verl", verl_text),
    "trl": partial(_trainer, "trl", trl_text),
    "llm-d": _llmd,
    "endpoint": _endpoint,
}
