"""Turns the records of front end, core and workers on a pass into its steps and messages."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout_bench.contracts.inside import Phase
from rollout_bench.contracts.messages import Link, Look, MessageRead, MessageRow, MessageStep
from rollout_bench.measure.engine.message_contents import Contents
from rollout_bench.measure.probes.message_notes import CORE_FILE, WORKER_FILES, Noted
from rollout_bench.measure.server.stream import ServingFailed

S = 1e-9
"""Seconds in a nanosecond."""


@dataclass(frozen=True)
class NotedPass:
    """The processes' records of one pass.

    Attributes:
        look: whether the pass recorded times or contents.
        batch: number of sequences.
        began: start time, in nanoseconds.
        front_end: the front end's records.
        core: the core's records, with its steps.
        workers: each worker's records, by rank.
    """

    look: Look
    batch: int
    began: int
    front_end: dict[str, Any]
    core: dict[str, Any]
    workers: list[dict[str, Any]]

    @staticmethod
    def read(look: Look, batch: int, began: int, folder: Path, front_end: str) -> NotedPass:
        """Read the files of this pass from `folder`, and remove them."""
        paths = {path.name: path for path in folder.iterdir()}
        contents = {name: pickle.loads(path.read_bytes()) for name, path in paths.items()}
        for path in paths.values():
            path.unlink()
        ranks = len(contents) - 2
        workers = [contents[WORKER_FILES.format(rank=rank)] for rank in range(ranks)]
        return NotedPass(look, batch, began, contents[front_end], contents[CORE_FILE], workers)

    def check(self) -> None:
        """Raise `ServingFailed` if a process had no room to record a message."""
        for process in (self.front_end, self.core, *self.workers):
            dropped = sum(each.dropped for each in process["noted"])
            if dropped:
                raise unmatched(f"{dropped} messages were not noted for want of room")

    def calls(self) -> dict[str, int]:
        """Return the number of calls of each probe, by the name of its cost."""
        counted = {"put_s": 0, "got_s": 0, "encode_s": 0, "decode_s": 0, "step_s": len(self.core["steps"])}
        for process in (self.front_end, self.core, *self.workers):
            for each in process["noted"]:
                on_socket = each.name in ("front_end_to_core", "core_to_front_end")
                name = ("encode_s" if each.writes else "decode_s") if on_socket else "put_s" if each.writes else "got_s"
                counted[name] += len(each.rows)
        return counted


def unmatched(problem: str) -> ServingFailed:
    """Return the failure of a launch whose messages cannot be matched."""
    return ServingFailed(
        "messages_unmatched",
        f"the messages of a pass can't be matched: {problem}",
        "run the same command again; if it stays, leave messages out of modes: this vLLM sends them otherwise",
    )


def steps_of(noted: NotedPass) -> list[MessageStep]:
    """Return the steps of a pass, in order."""
    steps, ended_before = [], 0
    for index, step in enumerate(noted.core["steps"]):
        if not step["ended"]:
            raise unmatched(f"step {index} never ended")
        prefill, sequences = step["prefill"], step["sequences"]
        phase: Phase = "decode" if not prefill else "prefill" if prefill >= sequences else "mixed"
        steps.append(
            MessageStep(
                look=noted.look,
                batch=noted.batch,
                index=index,
                phase=phase,
                tokens=step["tokens"],
                sequences=sequences,
                new_requests=step["new_requests"],
                new_prompt_tokens=step["new_prompt_tokens"],
                began_s=(step["began"] - noted.began) * S,
                latency_s=(step["ended"] - step["began"]) * S,
                elapsed_s=(step["ended"] - max(step["began"], ended_before)) * S,
            )
        )
        ended_before = step["ended"]
    return steps


@dataclass(frozen=True)
class _Seen:
    """One message before it becomes a row; `read` has rank, asked, got and decoded of each reader."""

    link: Link
    writer: Noted
    place: int
    rank: int | None
    method: str
    step: int
    read: list[tuple[int | None, int, int, int]]


def rows_of(noted: NotedPass, contents: Contents | None) -> list[MessageRow]:
    """Return a row for each message that belongs to a step, link after link, in the order of sending.

    Args:
        noted: the records.
        contents: analyses the messages of a pass for contents; None in a pass for times.

    Raises:
        ServingFailed: if the records at the two ends of a link do not match.
    """
    noted.check()
    rows = []
    for seen in (*_requests(noted), *_to_workers(noted), *_from_workers(noted), *_outputs(noted)):
        _, began, encoded, _, _ = seen.writer.rows[seen.place]
        timed = contents is None
        content = None
        if contents is not None:
            assert seen.writer.sent is not None, "the pass was one for contents"
            through_socket = seen.place in seen.writer.through_socket
            content = contents.of(seen.writer.sent[seen.place], through_socket, seen.link, seen.rank, seen.method)
        rows.append(
            MessageRow(
                look=noted.look,
                batch=noted.batch,
                link=seen.link,
                rank=seen.rank,
                method=seen.method,
                step=seen.step,
                began_s=(began - noted.began) * S,
                encode_s=(encoded - began) * S if timed else None,
                reads=[_read(encoded, *read) for read in seen.read] if timed else None,
                content=content,
            )
        )
    return rows


def _read(encoded: int, rank: int | None, asked: int, got: int, decoded: int) -> MessageRead:
    if got < encoded:
        raise unmatched(f"one was read {encoded - got} ns before it was encoded")
    waited_s = max(min(asked, got) - encoded, 0) * S
    return MessageRead(rank=rank, transport_s=(got - encoded) * S, waited_s=waited_s, decode_s=(decoded - got) * S)


def _one(process: dict[str, Any], writes: bool, name: str | None = None) -> Noted:
    """Return the only writing or reading end of a queue in `process`, or of the socket `name`."""
    sockets = ("front_end_to_core", "core_to_front_end")
    found: list[Noted] = [
        each
        for each in process["noted"]
        if each.writes == writes and (each.name == name if name else each.name not in sockets)
    ]
    if len(found) != 1:
        raise unmatched(f"{len(found)} ends {name or 'of a queue'} where there is one")
    return found[0]


def _by_number(noted: Noted) -> dict[int, tuple[int, ...]]:
    return {row[0]: row for row in noted.rows}


def _to_workers(noted: NotedPass) -> Iterator[_Seen]:
    calls = _one(noted.core, writes=True)
    readers = [_by_number(_one(worker, writes=False, name=calls.name)) for worker in noted.workers]
    for place, (row, (method, _, step)) in enumerate(zip(calls.rows, calls.tags, strict=True)):
        if step is None or not isinstance(method, str) or method.startswith("rollout_bench"):
            continue
        missing = [rank for rank, reader in enumerate(readers) if row[0] not in reader]
        if missing:
            raise unmatched(f"worker {missing[0]} never got one of {method}")
        read: list[tuple[int | None, int, int, int]] = [
            (rank, reader[row[0]][1], reader[row[0]][2], reader[row[0]][3]) for rank, reader in enumerate(readers)
        ]
        yield _Seen("core_to_workers", calls, place, None, method, step, read)


def _from_workers(noted: NotedPass) -> Iterator[_Seen]:
    """Yield the workers' answers; the n-th answer from a worker belongs to the n-th call that expects one."""
    calls = _one(noted.core, writes=True)
    for rank, worker in enumerate(noted.workers):
        wanted = [(method, step) for method, of, step in calls.tags if of in (None, rank)]
        answers = _one(worker, writes=True) if any(each.writes for each in worker["noted"]) else None
        if answers is None:
            continue
        got = _one(noted.core, writes=False, name=answers.name).rows
        if len(got) != len(wanted):
            raise unmatched(f"worker {rank} gave {len(got)} answers to {len(wanted)} calls")
        places = {row[0]: place for place, row in enumerate(answers.rows)}
        for row, (method, step) in zip(got, wanted, strict=True):
            if step is None or not isinstance(method, str) or method.startswith("rollout_bench"):
                continue
            if row[0] not in places:
                raise unmatched(f"worker {rank} never put an answer to {method}")
            yield _Seen(
                "workers_to_core", answers, places[row[0]], rank, method, step, [(None, row[1], row[2], row[3])]
            )


def _requests(noted: NotedPass) -> Iterator[_Seen]:
    steps = {name: index for index, step in enumerate(noted.core["steps"]) for name in step["requests"]}
    sent = _one(noted.front_end, writes=True, name="front_end_to_core")
    received = _in_turn([each for each in noted.core["noted"] if each.name == "front_end_to_core"])
    for place, (row, tag) in enumerate(zip(sent.rows, sent.tags, strict=True)):
        if tag in steps:
            yield _through_socket("front_end_to_core", sent, place, row, received.get(tag), "add", steps[tag])


def _outputs(noted: NotedPass) -> Iterator[_Seen]:
    sent = _one(noted.core, writes=True, name="core_to_front_end")
    got = _one(noted.front_end, writes=False, name="core_to_front_end")
    received = _in_turn([got])
    for place, (row, (made, step)) in enumerate(zip(sent.rows, sent.tags, strict=True)):
        if step is not None:
            yield _through_socket("core_to_front_end", sent, place, row, received.get(made), "outputs", step)


def _in_turn(ends: Sequence[Noted]) -> dict[Any, tuple[int, ...]]:
    """Return the rows of one thread's reads from a socket, by tag; each read begins after decoding the previous one."""
    tagged = [(row, tag) for each in ends for row, tag in zip(each.rows, each.tags, strict=True)]
    found: dict[Any, tuple[int, ...]] = {}
    asked = 0
    for (number, _, got, decoded, size), tag in sorted(tagged, key=lambda one: one[0][2]):
        found[tag] = (number, asked, got, decoded, size)
        asked = decoded
    return found


def _through_socket(
    link: Link, writer: Noted, place: int, sent: Sequence[int], got: Sequence[int] | None, method: str, step: int
) -> _Seen:
    if got is None:
        raise unmatched(f"one of {sent[4]} bytes from {link.replace('_', ' ')} never came")
    if got[4] != sent[4]:
        raise unmatched(f"one from {link.replace('_', ' ')} has {sent[4]} bytes, and {got[4]} where it was read")
    return _Seen(link, writer, place, None, method, step, [(None, got[1], got[2], got[3])])
