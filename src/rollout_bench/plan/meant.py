"""Values that a user may have meant where another kind of value is needed."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from rollout_bench.contracts.fields import HUB_ID, name_made_of
from rollout_bench.core.numbers import share_meant

_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

_FACTORS = {"k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}
"""Suffixes of a count, as vLLM reads those of its arguments."""

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}

_MILLISECONDS = {"ms": 1, "s": 1000}

_RATES = ("rps", "qps", "req/s", "requests/s", "hz")
"""Units of `request_rate`."""

_KEY_OF = {
    "engine": "python",
    "lora": "rank",
    "placement": "devices",
    "precision": "half_width",
    "rollout": "replicas",
    "shared_prefix": "tokens",
    "synthetic": "preset",
}
"""Keys with a mapping -> its key that a single value is likely meant for."""

_TRUE, _FALSE = ("yes", "y", "on", "true", "1"), ("no", "n", "off", "false", "0")

_AXES = ("quant", "model", "workload", "setting")

_ON_HUB = re.compile(rf"(?:hub:|hf:|huggingface:|https?://huggingface\.co/)?({HUB_ID})/?")


_NUMBER = r"[0-9]+(?:\.[0-9]+)?"


def _shortest(amount: float) -> int | float:
    return int(amount) if amount.is_integer() else amount


def hub_name(text: str) -> str | None:
    """Return <owner>/<name> of a model on the hub, however it is named; None if `text` has no such form."""
    found = _ON_HUB.fullmatch(text)
    return found[1] if found else None


def model_of_the_hub(text: str) -> str | None:
    """Return what names the model of the hub that `text` is; None if it is none."""
    path = hub_name(text)
    name = name_made_of(path or "")
    if not path or not name:
        return None
    return f"write models: [{name}] and model_settings: {{{name}: {{weights: {{bf16: 'hub:{path}'}}}}}}"


def values_meant(key: str, value: Any, read: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what `value` of the `key` may mean, the likeliest first; `read` is the config. Some fit no key."""
    if isinstance(value, str):
        yield from _of_text(key, value, read)
    if isinstance(value, float) and math.isfinite(value):
        yield math.ceil(value)
    if share := share_meant(value):
        yield float(share)
    if isinstance(value, list):
        yield list({repr(one): one for one in value}.values())
        pairs = [str(one).partition("=") for one in value]
        if all(equals for _, equals, _ in pairs):
            yield {name.strip(): yaml.safe_load(text) for name, _, text in pairs}
    if value is None and isinstance(defined := read.get(f"{key.removesuffix('s')}_settings"), Mapping):
        yield list(defined)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        yield [value]
        if key in _KEY_OF:
            yield {_KEY_OF[key]: value}
        yield {"format": "prompts", "path": value}


def _of_text(key: str, text: str, read: Mapping[str, Any]) -> Iterator[Any]:
    word = text.strip().lower()
    if re.fullmatch(r"\d+", word):
        yield int(word)
    if (option := re.fullmatch(r"--?([a-z][\w-]*)[ =](\S+)", text.strip())) and key == "engine_args":
        yield {option[1].replace("-", "_"): yaml.safe_load(option[2])}
    if key == "baseline":
        lists = {axis: read.get(f"{axis}s") for axis in _AXES}
        yield from ({axis: text} for axis, names in lists.items() if isinstance(names, list) and text in names)
    if word in _WORDS:
        yield _WORDS.index(word) + 1
    if number := re.fullmatch(rf"({_NUMBER}) ?([A-Za-z/]+)", text.strip()):
        factors = _SECONDS if key.endswith("_s") else _MILLISECONDS if key.endswith("_ms") else _FACTORS
        of_key = number[2].lower() in _RATES if key == "request_rate" else number[2].lower().rstrip("s") in key
        factor = factors.get(number[2], 1 if of_key else 0)
        if factor:
            yield _shortest(float(number[1]) * factor)
    if re.fullmatch(rf"{_NUMBER}([,; ]+{_NUMBER})+", text.strip()):
        yield [_shortest(float(each)) for each in re.split("[,; ]+", text.strip())]
    if word in (*_TRUE, *_FALSE):
        yield word in _TRUE
    if (path := hub_name(text)) and text.startswith(("http", "hf:", "huggingface:")):
        yield f"hub:{path}"
    if word in ("all", "none", "max", "null", "default"):
        yield None
