"""Foreign results: Benchmark Reports that were read in, whoever wrote them, each a file in a folder of their own.

A foreign result is no record: it has no launches, no passes and no flags, and nothing of that is made up. It is kept as
it was reported, with what was done to it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from rollout_bench.contracts.axes import DEFAULT_SETTING
from rollout_bench.contracts.fields import Strict, Text, absent
from rollout_bench.contracts.metrics import METRICS, MetricName
from rollout_bench.contracts.store import find_results
from rollout_bench.core.errors import UserError, printable
from rollout_bench.core.files import read_model, write_whole
from rollout_bench.core.secrets import without_secrets
from rollout_bench.core.yaml_files import read_mapping
from rollout_bench.exchange.benchmark_report import (
    TO_OURS,
    AggregatePerformance,
    BenchmarkReport,
    InferenceEngine,
    StandardLoad,
    Statistics,
    content_of,
    dropped,
    report_of,
)
from rollout_bench.exchange.performance import LATENCY_UNITS

FOLDER: Final = "foreign"
"""Folder of foreign results inside the folder that they were imported to."""

MOST_BYTES: Final = 16 << 20
"""Of a report: time series may be long."""

REMEDY: Final = "import the report again"

_LATENCIES = {measure: field for field, (measure, _) in LATENCY_UNITS.items()}

REPORTED: Final[tuple[MetricName, ...]] = tuple(
    name for name in METRICS if name == "output_tokens_per_s" or name in _LATENCIES
)
"""Metrics that a report has a place for."""


class ForeignResult(Strict):
    """A Benchmark Report that was imported: `<folder>/foreign/<uid>.json`."""

    schema_version: Literal[1] = Field(description="Version of this schema.")
    source: Text = Field(description="Name of the file that it was read from.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of that file.")
    model: Text | None = absent("What the model is called where results are compared. Null: as the report says.")
    report: dict[str, Any] = Field(
        description="The report as it was read, in llm-d's words, with its values in its own units."
    )


@dataclass(frozen=True)
class Entrant:
    """One result of a comparison in which some are foreign: ours as a report of all launches, or one that was imported.

    `launches` are ours; None where it is foreign, since a report does not say what it stands for.
    """

    name: str
    model: str
    report: BenchmarkReport
    launches: int | None = None

    @property
    def foreign(self) -> bool:
        """Whether it was imported."""
        return self.launches is None

    @property
    def load(self) -> StandardLoad:
        """What was sent."""
        assert self.report.scenario is not None
        assert self.report.scenario.load is not None
        return self.report.scenario.load.standardized

    @property
    def engine(self) -> InferenceEngine | None:
        """The engine, of several the first; None where the report names none."""
        return engine_of(self.report)

    @property
    def performance(self) -> AggregatePerformance:
        """What requests met."""
        return _performance(self.report)

    @property
    def setting(self) -> str | None:
        """The setting of a report of ours; None of any other, which has no such thing."""
        assert self.report.scenario is not None
        assert self.report.scenario.load is not None
        config = self.report.scenario.load.native.config
        if not isinstance(config, dict) or "rollout_bench_commit" not in config:
            return None
        return str(config.get("setting") or DEFAULT_SETTING)

    def value(self, metric: MetricName) -> float | None:
        """Return the mean that it reports of one of `REPORTED`, in our unit; None without one."""
        found = statistics_of_metric(self.report, metric)
        return None if found is None else found.mean * TO_OURS[found.units]


def statistics_of_metric(report: BenchmarkReport, metric: MetricName) -> Statistics | None:
    """Return what `report` says of one of `REPORTED`, in its own units; None where it does not."""
    performance = _performance(report)
    if metric in _LATENCIES:
        latency = performance.latency
        return None if latency is None else getattr(latency, _LATENCIES[metric])
    return None if performance.throughput is None else performance.throughput.output_token_rate


def _performance(report: BenchmarkReport) -> AggregatePerformance:
    found = report.results.request_performance
    return (found and found.aggregate) or AggregatePerformance()


def engine_of(report: BenchmarkReport) -> InferenceEngine | None:
    """Return the first engine of the stack; None where the report names none."""
    stack = (report.scenario and report.scenario.stack) or []
    engines = (part.standardized for part in stack if isinstance(part.standardized, InferenceEngine))
    return next(engines, None)


@dataclass(frozen=True)
class Imported:
    """Reports that were read: each result by the path that it is written to, and what of the files was left out."""

    results: dict[Path, ForeignResult]
    left_out: tuple[str, ...]


def read_reports(paths: Sequence[Path], out: Path, model: str | None = None) -> Imported:
    """Read `paths` as foreign results of the folder `out`, and look for what stands in their way.

    Args:
        paths: files, YAML or JSON.
        out: the folder.
        model: what their model is called where they are compared, in place of what they say.

    Raises:
        UserError: a file is no report that can be compared, two are the same run, or `out` is taken.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file", "name a folder for the foreign results")
    if find_results(out).records:
        raise UserError(
            f"{out}: holds launches of its own, and foreign results lie in a folder of theirs", "name another folder"
        )
    results: dict[Path, ForeignResult] = {}
    left_out: list[str] = []
    for path in paths:
        result, unread = _read_report(path, model)
        left_out += [f"{path}: {line}" for line in unread]
        uid = str(result.report["run"]["uid"])
        place = out / FOLDER / f"{_file_name(uid)}.json"
        before = results.get(place) or (read_foreign(place) if place.exists() or place.is_symlink() else None)
        if before is not None and before.report != result.report:
            raise UserError(
                f"{path}: has the uid of another report, {before.source}: {uid}",
                f"import it into another folder, or remove {place} and import again",
            )
        results[place] = result
    return Imported(results, tuple(left_out))


def write_foreign(imported: Imported) -> None:
    """Write the foreign results, each whole."""
    for place, result in imported.results.items():
        write_whole(place, (json.dumps(result.model_dump(mode="json"), indent=1, allow_nan=False) + "\n").encode())


def read_foreign(path: Path) -> ForeignResult:
    """Return the foreign result at `path`; raise `UserError` where it is damaged, naming file and field."""
    return read_model(path, ForeignResult, REMEDY)


def has_foreign(folder: Path) -> bool:
    """Return whether `folder` holds foreign results."""
    return any((folder / FOLDER).glob("*.json"))


def entrants(folder: Path) -> list[Entrant]:
    """Return the foreign results in `folder`; raise `UserError` for one that is damaged."""
    found = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        result = read_foreign(path)
        report = report_of(result.report, str(path))
        _check_comparable(report, str(path), result.model)
        engine = engine_of(report)
        model = result.model or (engine.model.name if engine else "")
        found.append(Entrant(_name(report), model, report))
    shared = Counter(entrant.name for entrant in found)
    named = [
        replace(each, name=f"{each.name} ({each.report.run.uid[:8]})") if shared[each.name] > 1 else each
        for each in found
    ]
    return sorted(named, key=lambda entrant: entrant.name)


def without_launches(found: Sequence[Entrant]) -> list[Entrant]:
    """Return `found` without reports of single launches of ours whose experiment is there, too, under the same load."""
    launches = [e for e in found if e.setting and re.search(r", launch \d+$", e.report.run.description or "")]
    whole = {(e.report.run.eid, e.load.stage) for e in found if e not in launches}
    return [e for e in found if e not in launches or (e.report.run.eid, e.load.stage) not in whole]


def _name(report: BenchmarkReport) -> str:
    """Return what tables call a foreign result: its description, or else its tool; and its stage beyond the first."""
    assert report.scenario is not None
    assert report.scenario.load is not None
    load = report.scenario.load.standardized
    name = printable((report.run.description or load.tool).strip() or report.run.uid)
    return f"{name}, stage {load.stage}" if load.stage else name


def _read_report(path: Path, model: str | None) -> tuple[ForeignResult, list[str]]:
    remedy = "give a Benchmark Report of llm-d, as YAML or JSON"
    if path.is_dir():
        raise UserError(f"{path}: is a folder", f"name the reports: {path}/*.yaml")
    content = read_mapping(path, "Benchmark Report", remedy, most_bytes=MOST_BYTES)
    report = report_of(content, str(path))
    _check_comparable(report, str(path), model)
    try:
        kept, secrets = without_secrets(_in_words(content_of(report)))
    except ValueError as error:  # of bytes that are no text, and of 300 mappings in one another
        raise UserError(f"{path}: holds a value that no report has: {error}", remedy) from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    result = ForeignResult(schema_version=1, source=printable(path.name), sha256=digest, model=model, report=kept)
    left_out = [f"{name}: left out, since a Benchmark Report has no such key" for name in dropped(content, report)]
    return result, left_out + [f"{name}: left out, since it may be a secret" for name in secrets]


def _in_words(content: Any) -> Any:
    """Return `content` with text in place of numbers that JSON has no word for; they are read again as numbers."""
    if isinstance(content, dict):
        return {name: _in_words(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_in_words(value) for value in content]
    return str(content) if isinstance(content, float) and not math.isfinite(content) else content


def _check_comparable(report: BenchmarkReport, name: str, model: str | None) -> None:
    if report.scenario is None or report.scenario.load is None:
        raise UserError(
            f"{name}: scenario.load: is missing", "only the same load can be compared: have the report say what it was"
        )
    engine = engine_of(report)
    if not model and (engine is None or not engine.model.name.strip()):
        raise UserError(f"{name}: scenario.stack: names no model", "say which it was: --model NAME")
    rate = statistics_of_metric(report, "output_tokens_per_s")
    if rate is None:
        raise UserError(
            f"{name}: results.request_performance.aggregate.throughput.output_token_rate: is missing",
            "without a throughput nothing can be compared: have the harness report it",
        )
    if rate.mean <= 0:
        raise UserError(
            f"{name}: results.request_performance.aggregate.throughput.output_token_rate.mean: is {rate.mean:g}",
            "nothing was generated: import a run that succeeded",
        )


def _file_name(uid: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", uid):
        return uid
    return hashlib.sha256(uid.encode(errors="surrogatepass")).hexdigest()[:32]


TOLERANCE: Final = 0.05
"""By how much mean lengths may differ in loads that count as the same: harnesses count the tokens of a prompt
differently."""


def load_differences(one: Entrant, other: Entrant) -> list[str]:
    """Return in what the model and the load of two results differ, `one`'s first; empty where they can be compared."""
    found = []
    if None not in (one.setting, other.setting) and one.setting != other.setting:
        found.append(f"setting {one.setting} and {other.setting}")
    if _plain_name(one.model) != _plain_name(other.model):
        found.append(f"model {one.model or 'unknown'} and {other.model or 'unknown'}")
    for name, sides in {
        "tokens of a prompt": (_length(one, "input"), _length(other, "input")),
        "tokens of an answer": (_length(one, "output"), _length(other, "output")),
    }.items():
        if None not in sides and not math.isclose(*_numbers(sides), rel_tol=TOLERANCE):
            found.append(f"{name} {sides[0]:g} and {sides[1]:g}")
    rates = [_finite(entrant.load.rate_qps) for entrant in (one, other)]
    if rates.count(None) == 1 or (None not in rates and not math.isclose(*_numbers(rates), rel_tol=0.01)):
        found.append(f"requests per second {_or_all(rates[0])} and {_or_all(rates[1])}")
    for name, sides_told in {
        "shared prefixes": (_prefixes(one.load), _prefixes(other.load)),
        "requests that are": (_turns(one.load), _turns(other.load)),
    }.items():
        if sides_told[0] != sides_told[1]:
            found.append(f"{name} {sides_told[0]} and {sides_told[1]}")
    at_once = [_at_once(entrant) for entrant in (one, other)]
    if at_once[0] != at_once[1]:
        found.append(f"requests at once {at_once[0] or 'unlimited'} and {at_once[1] or 'unlimited'}")
    return found


def _plain_name(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2].lower()


def _length(entrant: Entrant, side: Literal["input", "output"]) -> float | None:
    """Return the mean length that was measured, or else what was asked for; None where the report says neither."""
    requests = entrant.performance.requests
    measured = None if requests is None else getattr(requests, f"{side}_length")
    if measured is not None:
        return float(measured.mean)
    asked = getattr(entrant.load, f"{side}_seq_len")
    return None if asked is None else float(asked.value)


def _prefixes(load: StandardLoad) -> str:
    shared = load.prefix
    if shared is None or not shared.prefix_len.value:
        return "none"
    return f"{shared.num_groups * shared.num_prefixes} of {shared.prefix_len.value:g} tokens"


def _turns(load: StandardLoad) -> str:
    turns = load.multi_turn
    single = turns is None or not turns.enabled or (turns.max_turns is not None and turns.max_turns.value <= 1)
    return "single" if single else "parts of conversations"


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value


def _or_all(rate: float | None) -> str:
    return "all at once" if rate is None else f"{rate:g}"


def _at_once(entrant: Entrant) -> int | None:
    """Return how many requests were under way at once, at most: all of them where neither limit nor rate is known."""
    limit = _finite(entrant.load.concurrency)
    if limit is not None:
        return int(limit)
    requests = entrant.performance.requests
    return requests.total if requests is not None and _finite(entrant.load.rate_qps) is None else None


def told_differences(one: Entrant, other: Entrant) -> list[str]:
    """Return in what two results of one load differ besides, `one` -> `other`, as far as reports say it."""
    mine, theirs = _facts(one), _facts(other)
    return [f"{name} {mine[name]} -> {theirs[name]}" for name in mine if name in theirs and mine[name] != theirs[name]]


def _facts(entrant: Entrant) -> dict[str, str]:
    load = entrant.load
    facts = {"sent by": f"{load.tool} {load.tool_version}".strip(), "source of prompts": load.source}
    engine = entrant.engine
    if engine is not None:
        device, spread = engine.accelerator, engine.accelerator.parallelism
        facts |= {
            "engine": f"{engine.tool} {engine.tool_version}".strip(),
            "accelerator": f"{device.count} {device.model}".strip(),
            "replicas": str(engine.replicas),
            "parallelism": f"tp {spread.tp}, dp {spread.dp}, ep {spread.ep}, pp {spread.pp}",
        }
    return {name: value or "unknown" for name, value in facts.items()}
