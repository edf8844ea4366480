"""Why a launch failed, and who is at fault."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from rollout_bench.engines.known_causes import KNOWN_CAUSES
from rollout_bench.errors import printable

AtFault = Literal["experiment", "node"]

NODE_FAULTS = frozenset(
    {
        "cann_missing",
        "cuda_driver",
        "device_broken",
        "device_memory_taken",
        "disk_full",
        "no_platform",
        "node_failure",
        "port_or_ipc",
        "preempted",
    }
)
"""Categories that are no fault of what is measured: the same launch may well succeed on another node."""


def at_fault(category: str) -> AtFault:
    """Who has to change for a launch to succeed that failed like this."""
    return "node" if category in NODE_FAULTS else "experiment"


@dataclass(frozen=True)
class Cause:
    """Why a launch failed.

    Args:
        category: short name of the kind of failure.
        cause: what happened, in one line.
        fix: what to do about it, in one line.
    """

    category: str
    cause: str
    fix: str


SEARCHED = 200_000
"""Characters at each end of a text that are searched for a known cause: as many as are kept of a log."""

SEARCHED_OF_LINE = 10_000
"""The same of a line."""

CRASH_FIX = "read the log; run the same command again, since a crash may be chance"


WRAPPERS = re.compile(r"EngineDeadError|Engine core initialization failed|WorkerProc initialization failed")
"""Exceptions that only say that another process of the engine failed; its own stands in the log."""

CHATTER = re.compile(r"^(?:\(.*?\) )?(?:INFO|WARNING|DEBUG) .*\n?", re.MULTILINE)
"""Lines of the log that are no errors, though some quote one."""

PREFIX = re.compile(r"^(?:\(.*?\) )?ERROR [\d-]+ [\d:]+ \[[\w.]+:\d+\] ", re.MULTILINE)
"""What the engine's logger puts before each line of an error."""


def diagnose(exception: str, log: str) -> Cause:
    """The cause of a failure.

    Args:
        exception: type and text of the exception that ended the engine; empty if there was none.
        log: what the engine logged.

    Returns:
        The first known cause that matches the exception, then the log's errors; else a crash that quotes
        the exception.
    """
    exception = _searched(exception)
    errors = PREFIX.sub("", CHATTER.sub("", _searched(log)))
    for text in (exception, errors):
        for known in KNOWN_CAUSES:
            match = re.search(known.pattern, text, re.MULTILINE)
            if match is not None:
                return Cause(known.category, f"{known.cause}: {_quote(text, match)}", known.fix)
    quoted = exception
    if not exception or WRAPPERS.search(exception):
        quoted = last_exception(errors) or exception or "no exception in the log"
    return Cause("crash", f"the engine failed: {_shorten(quoted)}", CRASH_FIX)


def died(status: int, log: str, out_of_memory: bool) -> Cause:
    """The cause of an engine process that ended by itself without a word.

    Args:
        status: exit status; negative for a signal, as in `subprocess`.
        log: what the engine logged.
        out_of_memory: whether the kernel ended a process for want of memory meanwhile.
    """
    if out_of_memory:
        fix = "use a smaller model or KV cache (on cpu VLLM_CPU_KVCACHE_SPACE), or give the job more memory"
        return Cause("out_of_memory", "the kernel ended an engine process because memory ran out", fix)
    if status < 0:
        return Cause("crash", f"the engine process was ended by signal {-status}", CRASH_FIX)
    known = diagnose("", log)
    if known.category != "crash":
        return known
    return Cause("crash", f"the engine process ended with status {status}", CRASH_FIX)


def last_exception(log: str) -> str:
    """The last line of `log` that looks like the end of a traceback; else empty."""
    found = re.findall(r"(?:^|\s)((?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception): .+)$", log, re.MULTILINE)
    plain = [line for line in found if not WRAPPERS.search(line)]
    return str(plain[-1]) if plain else ""


def _searched(text: str) -> str:
    """`text` without its middle where it is long, and so its long lines: an error may quote megabytes."""
    if len(text) > 2 * SEARCHED:
        text = f"{text[:SEARCHED]}\n...\n{text[-SEARCHED:]}"
    lines = text.split("\n")
    most = SEARCHED_OF_LINE
    return "\n".join(x if len(x) <= 2 * most else f"{x[:most]} ... {x[-most:]}" for x in lines)


def _quote(text: str, match: re.Match[str]) -> str:
    """The line of the match, and the two after it where it only announces them (pydantic); without decoration."""
    lines = text[text.rfind("\n", 0, match.start()) + 1 :].splitlines()
    announces = re.search(r"validation errors? for \w+$", lines[0])
    quoted = " ".join(lines[:3]) if announces else lines[0]
    return _shorten(re.sub(r" \[type=.*| For further information visit.*", "", quoted))


def _shorten(text: str) -> str:
    return printable(" ".join(text.split()))
