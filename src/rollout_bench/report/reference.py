"""The config's schema and the reference tables, derived from the models that validate configs and records."""

import csv
import io
from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from rollout_bench.contracts.failure_kinds import FAILURES
from rollout_bench.contracts.flags import FLAGS
from rollout_bench.contracts.load import LogNormal, Normal, Uniform
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.record import Failure, Record, SequenceRow
from rollout_bench.core.mappings import grouped
from rollout_bench.core.model_keys import Key, keys_of
from rollout_bench.numbers.registry import NUMBERS
from rollout_bench.plan.config import Config

LENGTHS: tuple[type[BaseModel], ...] = (Uniform, Normal, LogNormal)


def config_keys() -> list[Key]:
    """Return every key of the config. `<name>` is a name of the user's choice, `<length>` one that has a length."""
    lengths = grouped((row, kind.__name__.lower()) for kind in LENGTHS for row in keys_of(kind))
    of_lengths = [
        row._replace(path=f"<length>.{row.path}", meaning=f"{row.meaning} Of {', '.join(of)}.")
        for row, of in lengths.items()
        if row.path != "distribution"
    ]
    return [*keys_of(Config), *of_lengths]


def config_table() -> str:
    """Return every key of the config as CSV: type, default, meaning."""
    return _csv(_KEYS, config_keys())


def modes_table() -> str:
    """Return every mode as CSV: its measurement, its page, and an example config."""
    return _csv(("mode", "measures", "page", "example"), [(m.name, m.title, m.page, m.example) for m in MODES.values()])


def flags_table() -> str:
    """Return every flag as a table of Markdown: its severity, and what raises it with its limits."""
    kinds = FLAGS.values()
    return _markdown(
        ("flag", "severity", "raised if"), [(f"`{k.code}`", k.severity, k.raised_if or k.found) for k in kinds]
    )


def remedies_table() -> str:
    """Return what to do about flags as a table of Markdown."""
    return _by_remedy("flag", ((kind.code, kind.remedy) for kind in FLAGS.values()))


def failures_table() -> str:
    """Return as a table of Markdown what to do about failures whose own fix does not say all."""
    return _by_remedy("category", ((kind.category, kind.remedy) for kind in FAILURES.values()))


def _by_remedy(header: str, remedies: Iterable[tuple[str, str]]) -> str:
    rows = grouped((remedy, f"`{name}`") for name, remedy in remedies if remedy)
    return _markdown((header, "what to do"), [(", ".join(names), remedy) for remedy, names in rows.items()])


def with_table(page: str, header: str, table: str) -> str:
    """Return the text of a page with `table` in place of its table whose first line begins with `header`."""
    before, found, after = page.partition(f"\n{header}")
    if not found:
        raise ValueError(f"no table {header}")
    rest = after.split("\n\n", 1)[1]
    return f"{before}\n{table}\n{rest}"


def records_table() -> str:
    """Return every field of a launch's files as CSV; for a single mode only the fields that not all records have."""
    parts: list[tuple[str, type[BaseModel]]] = [
        ("launch-<i>.json", Record),
        *((f"launch-<i>.json of {mode.name}", mode.record.get()) for mode in MODES.values()),
        ("launch-<i>.sequences.jsonl.gz", SequenceRow),
        *((f"launch-<i>{mode.side_files[0]}", mode.rows.get()) for mode in MODES.values() if mode.rows),
        ("results/failures/<mode>/<experiment>/launch-<i>.json", Failure),
    ]
    of_all = set(keys_of(Record))
    rows = ((file, row) for file, model in parts for row in keys_of(model))
    return _csv(("file", *_KEYS), [(file, *row) for file, row in rows if " of " not in file or row not in of_all])


def numbers_table() -> str:
    """Return every number as CSV: its name, the better direction, its definition."""
    header = ("number", "unit", "better", "heading", "of its speed-up", "mode", "definition")
    return _csv(
        header, [(n.name, n.unit, n.better, n.header, n.speedup, n.mode, n.definition) for n in NUMBERS.values()]
    )


def commands_text(helps: dict[str, str], rules: str) -> str:
    """Return `--help` of every command, and the workflow's rules."""
    outputs = {"snakemake --list-rules": rules, **{f"{name} --help": text for name, text in helps.items()}}
    return "\n\n".join(f"$ {command}\n{text.strip()}" for command, text in outputs.items()) + "\n"


_KEYS = ("key", "type", "default", "meaning")


def _csv(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(header), "|".join("---" for _ in header), *(" | ".join(row) for row in rows)]
    return "".join(f"| {line} |\n" if not line.startswith("---") else f"|{line}|\n" for line in lines)
