"""Values that a user may have meant where another kind of value is needed."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from rollout_bench.contracts.fields import HUB_ID, name_made_of, typed
from rollout_bench.contracts.load import DISTRIBUTIONS
from rollout_bench.contracts.modes import MODES
from rollout_bench.core.numbers import share_meant

_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

_FACTORS = {"k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}
"""Suffixes of a count, as vLLM reads those of its arguments."""

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}

_MILLISECONDS = {"ms": 1, "s": 1000}

_RATES = ("rps", "qps", "req/s", "requests/s", "hz")
"""Units of `request_rate`."""

KEY_OF = {
    "engine": "python",
    "lora": "rank",
    "online": "request_rate",
    "placement": "devices",
    "precision": "half_width",
    "rollout": "replicas",
    "shared_prefix": "tokens",
    "slo": "ttft_ms",
    "synthetic": "preset",
}
"""Keys with a mapping -> its key that a single value is likely meant for."""

_USUAL = {"lora": {"rank": 16}, "rank": 16, "synthetic": {"preset": "qwen3-90m"}}
"""Keys that are required or only switched on -> a usual value."""

BOUNDS = {"max": "high", "maximum": "high", "min": "low", "minimum": "low"}
"""Common names of the bounds of lengths -> ours."""

_UNLIMITED = ("inf", "infinite", "infinity", "no limit", "unlimited")

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


def api_meant(url: str) -> str:
    """Return the address of a server's API: /v1 of a server that is named without a path."""
    return re.sub(r"(://[^/]+)/?$", r"\1/v1", url)


def values_meant(key: str, value: Any, read: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what `value` of the `key` may mean, the likeliest first; `read` is the config. Some fit no key."""
    if isinstance(value, str):
        yield from _of_text(key, value, read)
    if isinstance(value, float) and math.isfinite(value):
        yield math.ceil(value)
    if key == "request_rate" and typed(value) == 0 and value is not False:
        yield "inf"
    if share := share_meant(value):
        yield float(share)
    if isinstance(value, list):
        yield from _of_list(key, value, read)
    if isinstance(value, Mapping):
        bounds = {BOUNDS.get(name, name): inner for name, inner in value.items()}
        yield from ({"distribution": "", **bounds} | {"distribution": name} for name in DISTRIBUTIONS)
    if (value is None or value is True) and key in _USUAL:
        yield _USUAL[key]
    if value is None and isinstance(defined := read.get(f"{key.removesuffix('s')}_settings"), Mapping):
        yield list(defined)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        yield [value]
        if key in KEY_OF:
            yield {KEY_OF[key]: value}
        yield {"format": "prompts", "path": value}


def _of_list(key: str, value: list[Any], read: Mapping[str, Any]) -> Iterator[Any]:
    yield list({repr(one): one for one in value}.values())
    if len(value) == 1:
        yield typed(value[0])  # text on the command line
    if all(isinstance(one, Mapping) for one in value):
        yield {name: inner for one in value for name, inner in one.items()}
    if key == "devices":
        yield len(value)
    if key == "metrics":
        yield from ({mode: value} for mode in (*(read.get("modes") or ()), *MODES))
    pairs = [str(one).partition("=") for one in value]
    if all(equals for _, equals, _ in pairs):
        yield {name.strip(): yaml.safe_load(text) for name, _, text in pairs}


def _of_text(key: str, text: str, read: Mapping[str, Any]) -> Iterator[Any]:
    word = text.strip().lower()
    if re.fullmatch(r"\d+", word):
        yield int(word)
    if re.fullmatch(r"\d(\.\d+)?e\d\d?", word):  # text to YAML
        yield _shortest(float(word))
    if (option := re.fullmatch(r"--?([a-z][\w-]*)[ =](\S+)", text.strip())) and key == "engine_args":
        yield {option[1].replace("-", "_"): yaml.safe_load(option[2])}
    if key == "baseline":
        lists = {axis: read.get(f"{axis}s") for axis in _AXES}
        yield from ({axis: text} for axis, names in lists.items() if isinstance(names, list) and text in names)
    if word in _WORDS:
        yield _WORDS.index(word) + 1
    yield from _of_numbers(key, text.strip())
    if word in (*_TRUE, *_FALSE):
        yield word in _TRUE
    if (path := hub_name(text)) and text.startswith(("http", "hf:", "huggingface:")):
        yield f"hub:{path}"
    if word in _UNLIMITED:
        yield "inf"
    if key == "temperature" and word in ("argmax", "greedy"):
        yield 0
    if word in ("all", "none", "max", "null", "default", *_UNLIMITED):
        yield None


_BYTES = {f"{unit}{end}": 1024 ** (n + 1) if end == "iB" else 1000 ** (n + 1)
          for n, unit in enumerate("KMGT") for end in ("B", "iB")}  # fmt: skip


def count_meant(text: str) -> int | None:
    """Return the count that a number with its suffix or its bytes means, as 4k or 256MB; None for other texts."""
    found = re.fullmatch(rf"({_NUMBER}) ?([A-Za-z]+)", text.strip())
    factor = {**_FACTORS, "g": 1000**3, "G": 1024**3, **_BYTES}.get(found[2]) if found else None
    return int(float(found[1]) * factor) if found and factor else None


def _of_numbers(key: str, text: str) -> Iterator[Any]:
    """Yield what a number with its unit, several numbers, or the bounds of lengths mean."""
    if number := re.fullmatch(rf"({_NUMBER}) ?([A-Za-z/]+)", text):
        factors = _SECONDS if key.endswith("_s") else _MILLISECONDS if key.endswith("_ms") else _FACTORS
        of_key = number[2].lower() in _RATES if key == "request_rate" else number[2].lower().rstrip("s") in key
        factor = factors.get(number[2], 1 if of_key else 0)
        if factor:
            yield _shortest(float(number[1]) * factor)
    if re.fullmatch(rf"{_NUMBER}([,; ]+{_NUMBER})+", text):
        numbers = [_shortest(float(each)) for each in re.split("[,; ]+", text)]
        yield len(numbers) if key == "devices" else numbers
    if ends := re.fullmatch(r"(\d+) ?(?:-|to|\.\.) ?(\d+)", text):
        low, high = int(ends[1]), int(ends[2])
        yield {"distribution": "uniform", "low": low, "high": high}
        if 0 < low < high:  # loads, each twice as high as the one before
            yield [*(low << step for step in range((high // low).bit_length()) if low << step < high), high]
