"""Several replicas as one engine: one stream of events, one start, one iteration for each pass.

All replicas run the same program, so the n-th event of each replica belongs to the n-th event of the others. A pass
begins only after all replicas have sent `IterationBegins`.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from rollout_bench.contracts.record import (
    Drafting,
    EngineFacts,
    Environment,
    Flag,
    GraphUse,
    Iteration,
    ReplicaPass,
    ReplicaStart,
    SequenceRow,
    routed_bytes_of,
)
from rollout_bench.contracts.spec import Platform
from rollout_bench.measure.launch.protocol import Event, IterationDone, Ready

APART_SHARE = 0.01
"""Largest allowed gap between the replicas' start times, as a share of the step: the smallest relevant difference."""

KV_CACHE_SHARE = 0.01
"""Largest allowed relative difference of KV cache sizes, because free device memory varies a little."""

OF_KV_CACHE = frozenset({"num_gpu_blocks"})
"""Resolved settings that repeat the size of the KV cache."""

SHORTEST_S = 1e-9
"""Time of a pass for a replica without sequences, in seconds."""

TIMES = ("queued_s", "scheduled_s", "first_token_s", "last_token_s")


def merged_iteration(index: int, warmup: bool, parts: list[ReplicaPass]) -> Iteration:
    """Return the joint pass of the replicas: it ends with the last replica, and its counts are sums."""
    cached = [part.cached_prompt_tokens for part in parts]
    return Iteration(
        index=index,
        warmup=warmup,
        elapsed_s=max(part.end_s for part in parts),
        requests=sum(part.requests for part in parts),
        sequences=sum(part.sequences for part in parts),
        prompt_tokens=sum(part.prompt_tokens for part in parts),
        cached_prompt_tokens=None if None in cached else sum(tokens or 0 for tokens in cached),
        output_tokens=sum(part.output_tokens for part in parts),
        replicas=parts,
    )


def done_together(passes: Sequence[IterationDone]) -> IterationDone:
    """Return the joint iteration of the `passes` of replicas 0, 1, ..., which were released together.

    The step that training waits for begins with the first replica and ends with the last. Tokens, requests and
    sequences are sums. Prompt numbers continue from replica to replica, and all times count from the common start.
    Replicas that share one load report their parts separately, with prompts already numbered.
    """
    moments = [done.began for done in passes if done.began is not None]
    assert len(moments) == len(passes), "a replica says when it began"
    release = min(moments)
    parts, rows, prompts = list[ReplicaPass](), list[SequenceRow](), 0
    for replica, (done, began) in enumerate(zip(passes, moments, strict=True)):
        of = done.iteration
        offset_s = began - release
        parts += of.replicas or [
            ReplicaPass(
                start_offset_s=offset_s,
                elapsed_s=of.elapsed_s,
                requests=of.requests,
                sequences=of.sequences,
                prompt_tokens=of.prompt_tokens,
                cached_prompt_tokens=of.cached_prompt_tokens,
                output_tokens=of.output_tokens,
            )
        ]
        rows += [_shifted_row(row, replica, prompts, offset_s) for row in done.sequences]
        if of.replicas is None:
            prompts += max((row.prompt for row in done.sequences), default=-1) + 1
    first = passes[0].iteration
    sums = {
        "drafting": Drafting.together([done.iteration.drafting for done in passes]),
        "graphs": GraphUse.together([done.iteration.graphs for done in passes]),
        "routed_bytes": routed_bytes_of(rows),
    }
    iteration = merged_iteration(first.index, first.warmup, parts).model_copy(update=sums)
    flags = _numbered_flags(done.flags for done in passes)
    return IterationDone(iteration=iteration, sequences=rows, flags=flags, began=release)


def ready_together(readies: Sequence[Ready], platform: Platform) -> Ready:
    """Return the joint start of replicas 0, 1, ...: the times of the slowest, the facts of replica 0.

    The launch's cores (on cpu) or devices are the sum over all replicas.
    """
    slowest = max(readies, key=lambda ready: ready.import_s + ready.init_s)
    return Ready(
        import_s=slowest.import_s,
        init_s=slowest.init_s,
        forked=slowest.forked,
        environment=_environment([ready.environment for ready in readies], platform),
        engine=readies[0].engine,
        flags=[
            *_numbered_flags(ready.flags for ready in readies),
            *difference_flags([ready.engine for ready in readies]),
        ],
        processes={pid: name for ready in readies for pid, name in ready.processes.items()},
        vocabulary=readies[0].vocabulary,
        replicas=[
            ReplicaStart(import_s=r.import_s, init_s=r.init_s, kv_cache_tokens=r.engine.kv_cache_tokens)
            for r in readies
        ],
    )


def difference_flags(engines: Sequence[EngineFacts]) -> list[Flag]:
    """Return a flag if the engines of replicas 0, 1, ... differ, with the first difference of each."""
    problems = [
        f"{found[0]} is {found[1]} on replica 0 and {found[2]} on replica {replica}"
        for replica, engine in enumerate(engines[1:], 1)
        if (found := _difference(engines[0], engine)) is not None
    ]
    if not problems:
        return []
    return [Flag(code="replicas_differ", severity="warning", sentence=f"{'; '.join(problems)}.")]


def apart_flags(iterations: Iterable[Iteration]) -> list[Flag]:
    """Return a flag if the replicas of an iteration began further apart than `APART_SHARE` of the step."""
    shares = [
        (max(part.start_offset_s for part in iteration.replicas) / iteration.elapsed_s, iteration)
        for iteration in iterations
        if iteration.replicas
    ]
    share, worst = max(shares, key=lambda pair: pair[0], default=(0.0, None))
    if worst is None or share <= APART_SHARE:
        return []
    sentence = (
        f"Iteration {worst.index}: the last replica began {1e3 * share * worst.elapsed_s:.1f} ms after the first, "
        f"{100 * share:.1f} % of the step (limit {100 * APART_SHARE:.0f} %)."
    )
    return [Flag(code="replicas_apart", severity="warning", sentence=sentence)]


def _shifted_row(row: SequenceRow, replica: int, prompts: int, offset_s: float) -> SequenceRow:
    times = {name: getattr(row, name) for name in TIMES}
    moved = {name: round(time + offset_s, 6) for name, time in times.items() if time is not None}
    return row.model_copy(update={"replica": replica, "prompt": prompts + row.prompt, **moved})


def _numbered_flags(flags: Iterable[Sequence[Flag]]) -> list[Flag]:
    return [
        flag.model_copy(update={"sentence": f"Replica {replica}: {flag.sentence}"})
        for replica, flags_of_replica in enumerate(flags)
        for flag in flags_of_replica
    ]


def _environment(environments: Sequence[Environment], platform: Platform) -> Environment:
    first = environments[0]
    if platform == "cpu":
        return first.model_copy(update={"cpu_cores": sum(each.cpu_cores for each in environments)})
    return first.model_copy(update={"device_count": sum(each.device_count for each in environments)})


def _difference(one: EngineFacts, other: EngineFacts) -> tuple[str, object, object] | None:
    """Return name and both values of the first fact that differs; None if there is no difference."""
    tokens, others = one.kv_cache_tokens or 0, other.kv_cache_tokens or 0
    if abs(tokens - others) > KV_CACHE_SHARE * max(tokens, others):
        return "kv_cache_tokens", one.kv_cache_tokens, other.kv_cache_tokens
    for name in ("weights_bytes_by_dtype", "linear_methods", "linear_kernels", "kv_cache"):
        if getattr(one, name) != getattr(other, name):
            return name, getattr(one, name), getattr(other, name)
    for name in sorted((one.resolved.keys() | other.resolved.keys()) - OF_KV_CACHE):
        if one.resolved.get(name) != other.resolved.get(name):
            return name, one.resolved.get(name), other.resolved.get(name)
    return None


class ReplicaEvents:
    """Gathers the events of `replicas` replicas; `join` makes one event of the n-th events of all."""

    def __init__(self, replicas: int, join: Callable[[Sequence[Event]], Event]) -> None:
        self._join = join
        self._events: list[deque[Event]] = [deque() for _ in range(replicas)]

    def take(self, replica: int, event: Event) -> list[Event]:
        """Add the next event of `replica`; return the joint events that are now complete, in order.

        Raises:
            RuntimeError: if the replicas sent events of different types.
        """
        self._events[replica].append(event)
        complete = []
        while all(self._events):
            events = [events_of_replica.popleft() for events_of_replica in self._events]
            if len({type(event) for event in events}) > 1:
                raise RuntimeError(f"replicas sent different events: {', '.join(event.event for event in events)}")
            complete.append(self._join(events))
        return complete

    def behind(self) -> list[int]:
        """Return the replicas that the others wait for; all replicas if none waits."""
        fewest = min(len(events) for events in self._events)
        return [number for number, events in enumerate(self._events) if len(events) == fewest]


def merge_events(events: Sequence[Event], platform: Platform) -> Event:
    """Return the joint event of replicas from their n-th events, by number."""
    if len(events) == 1:
        return events[0]
    if passes := [event for event in events if isinstance(event, IterationDone)]:
        return done_together(passes)
    if readies := [event for event in events if isinstance(event, Ready)]:
        return ready_together(readies, platform)
    return events[0]
