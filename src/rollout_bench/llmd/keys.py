"""The keys of a profile, read by the table of its harness, so that none is dropped silently."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import yaml

from rollout_bench.core.errors import UserError, did_you_mean, value_text
from rollout_bench.core.readers import Reader, count, index, not_negative, number, positive, switch, text

SERVED, STARTED = "online", "startup"
"""Modes of the config that measure what a harness does: it sends a load, or only waits for the engine."""

NOTHING: tuple[Any, ...] = (None, False, [], {}, "")
"""Values with which an unsupported key has no effect."""

CORRECT = "correct it in the profile, or in overrides"

GOODPUT = {"ttft": "ttft_ms", "tpot": "tpot_ms", "e2el": "e2el_ms"}


def several(reader: Reader[Any]) -> Reader[list[Any]]:
    """Return a reader of a value, or of a list of at least one, as a list."""

    def values(value: Any) -> list[Any]:
        if value == []:
            raise ValueError("a number, or a list of at least one")
        return [reader(one) for one in (value if isinstance(value, list) else [value])]

    return values


def rate(value: Any) -> float | None:
    """Return requests per second, or None for `inf`."""
    return None if str(value).lower().lstrip(".") == "inf" else positive(value)


def changes(value: Any) -> list[dict[str, Any]]:
    """Return a list of mappings."""
    if not isinstance(value, list) or not value or not all(isinstance(one or {}, dict) for one in value):
        raise ValueError("a list of mappings: what each benchmark changes of spec")
    return [one or {} for one in value]


def ratios(value: Any) -> tuple[float, float]:
    """Return the relative spread of input and output lengths, from one number or from JSON with both."""
    try:
        read = json.loads(value) if isinstance(value, str) else value
        both = [number(read[key] if isinstance(read, dict) else read) for key in ("input", "output")]
    except (ValueError, KeyError):
        both = [-1.0]
    if not all(0 <= ratio < 1 for ratio in both):
        raise ValueError('a number from 0 to below 1, or {"input": NUMBER, "output": NUMBER}')
    return both[0], both[1]


def goodput(value: Any) -> dict[str, float]:
    """Return limits in milliseconds, from `ttft:500 tpot:50` or a list of such pairs."""
    pairs = [str(one).partition(":") for one in (value if isinstance(value, list) else str(value).split())]
    try:
        return {GOODPUT[name]: positive(limit) for name, _, limit in pairs}
    except (ValueError, KeyError):
        raise ValueError(f"pairs of {', '.join(GOODPUT)} and milliseconds, as ttft:500 tpot:50") from None


EXTRA_INPUTS: dict[str, Reader[Any]] = {
    "ignore_eos": switch,
    "temperature": not_negative,
    "top_p": positive,
    "top_k": lambda value: int(number(value)),
}
"""Field of a request that a workload sets, too -> its reader."""


def extra_inputs(value: Any) -> dict[str, Any]:
    """Return a workload's keys, from `ignore_eos:true temperature:0`, a list of such pairs, or a mapping."""
    pairs = (
        [(str(name), one) for name, one in value.items()]
        if isinstance(value, dict)
        else [str(one).split(":", 1) for one in (value if isinstance(value, list) else str(value).split())]
    )
    try:
        return {name: EXTRA_INPUTS[name](yaml.safe_load(one) if isinstance(one, str) else one) for name, one in pairs}
    except (ValueError, KeyError, yaml.YAMLError):
        raise ValueError(f"pairs of {', '.join(EXTRA_INPUTS)} and a value, as ignore_eos:true") from None


def listed(reader: Reader[Any]) -> Reader[list[Any]]:
    """Return a reader of a value or of several, also as `1,2,4`."""

    def values(value: Any) -> list[Any]:
        parts = value.split(",") if isinstance(value, str) else value
        return several(reader)([yaml.safe_load(one) for one in parts] if isinstance(value, str) else parts)

    return values


def translated_value(row: Mapping[str, Any], value: Any) -> Any:
    """Return our value of one of the words that a row supports; those that it refuses are unchanged."""
    take = row["take"]
    if value not in [*take, *row.get("refused", ())]:
        raise ValueError(f"known here ({', '.join(take)})")
    return take[value] if isinstance(take, dict) and value in take else value


READERS: dict[str, Reader[Any]] = {
    "changes": changes,
    "count": count,
    "counts": several(count),
    "extra_inputs": extra_inputs,
    "flag": lambda value: True if value == "none" else switch(value),  # llm-d's flag without a value
    "goodput": goodput,
    "index": index,
    "listed_counts": listed(count),
    "listed_rates": listed(positive),
    "not_negative": not_negative,
    "positive": positive,
    "rate": rate,
    "rates": several(positive),
    "ratios": ratios,
    "switch": switch,
    "text": text,
    "whole": lambda value: int(number(value)),
}
"""Name in a table -> reader; `model` and `url` depend on the config."""


@dataclass
class Meaning:
    """The settings that follow from a profile.

    Attributes:
        workload: keys of a workload, without `online`.
        online: keys below the workload's `online`.
        otherwise: default values for keys of the workload that the config does not set.
        slo: goodput limits of a request, in milliseconds, with the config's names.
        notes: differences to the harness that a reader of the results must know.
        mode: the mode that measures the profile.
    """

    workload: dict[str, Any] = field(default_factory=dict)
    online: dict[str, Any] = field(default_factory=dict)
    otherwise: dict[str, Any] = field(default_factory=dict)
    slo: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    mode: str = SERVED


class Keys:
    """The values of a profile's keys, by path, read by the rows of tables/README.md.

    Attributes:
        where: name of the profile in messages.
        meaning: settings that receive the values of rows with `to`.
        found: path -> value of each supported key: our value, the harness's default, the number of a list's entries.
    """

    def __init__(self, where: str, meaning: Meaning, readers: Mapping[str, Reader[Any]]) -> None:
        """Make keys without values; `readers` add to `READERS`."""
        self.where, self.meaning, self._readers = where, meaning, {**READERS, **readers}
        self.found: dict[str, Any] = {}

    def __getitem__(self, path: str) -> Any:
        """Return the value at `path`; None if there is none."""
        return self.found.get(path)

    def error(self, path: str, problem: str, remedy: str) -> UserError:
        """Return an error about the key at `path`."""
        return UserError(f"{self.where}: {path}: {problem}", remedy)

    def read(self, content: Mapping[str, Any], table: Mapping[str, Any], above: str = "") -> None:
        """Read the keys of a mapping.

        Args:
            content: the mapping.
            table: its rows, by the names of keys.
            above: path of the mapping in the profile, with a dot at its end.

        Raises:
            UserError: if a key is unknown or unsupported, or has an invalid value.
        """
        rows = {name: row for names, row in table.items() for name in names.split(", ")}
        for key in content:
            if key not in rows:
                raise self.error(f"{above}{key}", "there is no such key", did_you_mean(str(key), rows))
        for name, row in rows.items():
            self._read(f"{above}{name}", content.get(name), row, above)

    def _read(self, path: str, value: Any, row: Mapping[str, Any], above: str) -> None:
        if {"take", "ignore", "refuse", "keys", "each"}.isdisjoint(row):
            row = {"keys": row}
        elsewhere = self._unmet_condition(row.get("only", {}), above)
        reason = elsewhere or row.get("refuse")
        if reason is not None:
            if value not in NOTHING and value not in row.get("unless", ()) and "otherwise" not in row:
                raise self.error(path, f"{value_text(value)}: {reason}", without(path))
            return
        value = self._of_variables(path, value, row)
        self.found[path] = value
        if "ignore" in row:
            return
        if "needed" in row and value in (None, []):
            remedy = "write it into the profile: the load is not defined without it"
            raise self.error(path, "is missing", remedy if row["needed"] is True else row["needed"])
        if "each" in row:
            self._read_list(path, [] if value is None else value, row)
        elif "keys" in row and ("take" not in row or isinstance(value, dict)):
            if not isinstance(value or {}, dict):
                raise self.error(path, f"{value_text(value)} is not a mapping", "write keys below it")
            self.read(value or {}, row["keys"], f"{path}.")
        else:
            self._take(path, value, row)

    def _of_variables(self, path: str, value: Any, row: Mapping[str, Any]) -> Any:
        """Return the path of a file that llm-d's variables name, where the profile has none."""
        places = [os.environ.get(name, "") for name in row.get("variables", ())]
        if value is not None or not all(places) or not places:
            return value
        self.meaning.notes.append(f"{path}: {'/'.join(places)}, from {' and '.join(row['variables'])}")
        return "/".join(places)

    def _read_list(self, path: str, value: Any, row: Mapping[str, Any]) -> None:
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.error(
                path, f"{value_text(value)} is not a list of mappings", "write a list whose entries have keys"
            )
        if len(value) > 1 and "one" in row:
            raise self.error(path, f"has {len(value)} entries, and a workload has one", row["one"])
        for number_of, one in enumerate(value):
            self.read(one, row["each"], f"{path}[{number_of}].")
        self.found[path] = len(value)

    def _take(self, path: str, value: Any, row: Mapping[str, Any]) -> None:
        try:
            reader = partial(translated_value, row) if not isinstance(row["take"], str) else self._readers[row["take"]]
            found = row.get("default") if value is None else reader(value)
            if "most" in row and found is not None and found > row["most"]:
                raise ValueError(f"{row['most']:g} or less")
        except ValueError as error:
            beside = "; several loads are written beside it, as online: {request_rate: [1, 2]}"
            remedy = row.get("remedy", CORRECT + (beside if isinstance(value, list) else ""))
            raise self.error(path, f"{value_text(value)} is not {error}", remedy) from None
        if isinstance(found, str | bool) and found in row.get("refused", ()):
            named = f"{found}: " if isinstance(found, str) else ""
            raise self.error(path, named + row["refused"][found], row["remedy"])
        if "factor" in row and found is not None:
            found *= row["factor"]
        if "note" in row and (found in row["noted"] if "noted" in row else found):
            self.meaning.notes.append(row["note"])
        section, _, key = row.get("to", "").partition(".")
        if section and found is not None:
            getattr(self.meaning, section).update({key: found} if key else found)
        self.found[path] = found

    def _unmet_condition(self, only: Mapping[str, Any], above: str) -> str | None:
        """Return why a key is not supported beside the others; None if it is."""
        values = {name: self.found.get(f"{above}{name}", self.found.get(name)) for name in only}
        keys = {name: name.rpartition(".")[2] for name, value in values.items() if value not in only[name]}
        unmet = [f"needs {key}: {' or '.join(only[name])}, but {key} is {values[name]}" for name, key in keys.items()]
        return unmet[0] if unmet else None


def without(path: str) -> str:
    """Return the remedy for an unsupported key."""
    quote = "'" if "[" in path else ""  # inside {} YAML reads [ as the start of a list
    return f"if the load is the same without it, remove it with overrides: {{{quote}{path}{quote}: null}}"


def with_first_names(content: Mapping[str, Any], table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a profile in which keys of a row that takes a value have the first of its names.

    Raises:
        UserError: if a key stands there under two names.
    """
    rows = [names.split(", ") for names, row in table.items() if "take" in row]
    first = {name: names[0] for names in rows for name in names}
    found: dict[str, Any] = {}
    for name, value in content.items():
        if first.get(name, name) in found:
            raise UserError(f"{where}: {name}: is {first[name]}, which stands there too", "leave one of the two out")
        found[first.get(name, name)] = value
    return found
