"""Print the keys of a config: those at its top, or those that a word names, with what they take and mean."""

import textwrap
from collections.abc import Sequence

from rollout_bench.core.errors import UserError, near_miss
from rollout_bench.core.model_keys import Key
from rollout_bench.core.options import Parser, completed_by
from rollout_bench.core.yaml_files import flow
from rollout_bench.plan.checks import OTHER_QUANTS, quants_meant
from rollout_bench.plan.config_file import ENGINE_ARGS, OTHER_KEYS
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.quants import known_quants
from rollout_bench.report.reference import config_keys

_WIDTH = 110

_SAID = {
    **dict.fromkeys(("quant", "quantization", "dtype"), "quants"),
    **dict.fromkeys(("limit", "limits", "latency"), "slo"),
    **dict.fromkeys(("server", "servers", "url", "host"), "endpoints"),
    **dict.fromkeys(("batch", "load", "lengths"), "workload_settings"),
    "model": "models",
}
"""What a user may call a key at the top."""


def main(argv: Sequence[str]) -> int:
    """Print the keys that the arguments ask for."""
    parser = Parser(prog="rollout-bench keys", description=__doc__, epilog="Exit status: 0, or 1 for an unknown word.")
    name = parser.add_argument(
        "word", nargs="*", help="a key, a part of its name, or what vLLM, verl or TRL call it: slo, num-prompts"
    )
    completed_by(name, lambda: {key.path.rpartition(".")[2] for key in config_keys()})
    word = "_".join(parser.parse_args(argv).word)
    print("\n".join(_named(word) if word else _at_the_top()))
    return 0


def _at_the_top() -> list[str]:
    keys = config_keys()
    top = [key for key in keys if "." not in key.path]
    width = max(len(key.path) for key in top)
    lines = []
    for key in top:
        below = [other.path.split(".")[1] for other in keys if other.path.startswith(f"{key.path}.")]
        meaning = key.meaning or f"has {', '.join(dict.fromkeys(below))}"
        line = f"{key.path:<{width}}  {meaning}"
        lines.append(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 4].rstrip()} ...")
    return [*lines, "", "rollout-bench keys WORD: all that it says, also of keys below; rollout-bench keys online"]


def _named(word: str) -> list[str]:
    """Return what each key that `word` names takes and means.

    Raises:
        UserError: it names none.
    """
    name = word.strip("-").replace("-", "_").replace(" ", "_").lower().rpartition(".")[2]
    name = _SAID.get(name) or OTHER_KEYS.get(name, name)
    keys = config_keys()
    named = [key for key in keys if name in key.path.split(".") or key.path.startswith(f"{name}.")]
    found = named or [key for key in keys if name in key.path]
    known = [] if named else [one for one in ENGINE_ARGS if name in one]
    of_vllm = known if found or known else sorted(one for one in _arguments_of_vllm() if name in one)
    arguments = [
        f"engine_args.{one}: an argument of vLLM's: --config 'engine_args={{{one}: VALUE}}'" for one in of_vllm
    ]
    if name in known_quants({}) or name in OTHER_QUANTS:
        both = (list(dict.fromkeys(["bf16", one])) for one in quants_meant(name))
        return [f"{names[-1]}: a quantization: --config 'quants={flow(names)}'" for names in both]
    if not found and not arguments:
        last = near_miss(name, {key.path.rpartition(".")[2] for key in keys}) or near_miss(name, OTHER_KEYS)
        remedy = f"did you mean {last}?" if last else "`rollout-bench keys` lists them; `vllm serve --help` has vLLM's"
        raise UserError(f"no key of a config has {word!r} in its name", remedy)
    return [*(line for key in found for line in _told(key)), *arguments]


def _arguments_of_vllm() -> frozenset[str]:
    return probe_engine(None, is_needed=False).arguments


def _told(key: Key) -> list[str]:
    default = "" if key.default in ("", "required") else f"; default: {key.default}"
    indent = "    "
    meaning = textwrap.wrap(key.meaning, _WIDTH, initial_indent=indent, subsequent_indent=indent)
    return [f"{key.path}: {key.takes}{default}", *meaning]
