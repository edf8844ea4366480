"""Why a prediction and a measurement may be apart: likely reasons, each with what speaks for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from rollout_bench.analysis.profiles.breakdown import Breakdown
from rollout_bench.analysis.profiles.changes import batches_differ
from rollout_bench.analysis.profiles.checks import UNSTEADY_PERCENT
from rollout_bench.analysis.profiles.profiled import HOST_GAP, Profiled
from rollout_bench.analysis.profiles.reconciliation import Reconciliation
from rollout_bench.analysis.statistics import cv_percent
from rollout_bench.records.profile import Phase

SUM_OFF = 0.05
"""Steps of a pass that add up to its measured time but for less than this fraction say nothing."""

OTHER_BATCH = 0.10
"""Tokens of a step, or those that attention looks back at, may differ by this fraction from those of the pass."""

WAITS = 0.3
"""Share of a step in which the device waits from which on the host has a say in its duration."""


MOST = 6
"""Reasons that are told."""


def reasons(
    found: Reconciliation, of_own: Mapping[Phase, Breakdown], of_baseline: Mapping[Phase, Breakdown]
) -> tuple[str, ...]:
    """Likely reasons for predicted and measured being apart, each with its evidence.

    None where they agree, and none where nothing speaks for one.
    """
    if found.verdict != "apart":
        return ()
    sides = [(found.own, of_own), (found.baseline, of_baseline)]
    told = dict.fromkeys(
        [
            *_with_profiler(found),
            *_sums(found),
            *(text for side, of in sides for text in _batch(side, of)),
            *_batches(found, of_own, of_baseline),
            *(text for side, of in sides for text in _host_bound(side, of)),
            *(text for side, of in sides for text in _unsteady(side, of)),
            *(text for side, _ in sides for text in _doubts(side)),
            *_stand_ins(found),
            *_server(found),
        ]
    )
    return _first(list(told))


def _with_profiler(found: Reconciliation) -> Iterator[str]:
    # Overheads that are known and differ change what the traces alone say, not the prediction: no reason here.
    assert found.prediction is not None
    for phase in found.prediction.with_profiler:
        yield f"profiler overhead: nobody timed {phase} steps without the profiler, so it is part of the prediction"


def _sums(found: Reconciliation) -> Iterator[str]:
    """Which side's steps do not add up to its pass, of those that move the prediction the way that it is off."""
    prediction, ratio = found.prediction, found.ratio
    own, baseline = found.own.measured, found.baseline.measured
    assert prediction is not None
    assert ratio is not None
    assert own is not None
    assert baseline is not None
    # predicted / measured = (baseline's steps / its pass) / (own steps / own pass), if both were measured alike
    for side, steps_s, pass_s, way in (
        (found.own, prediction.own_s, own.elapsed_s, -1),
        (found.baseline, prediction.baseline_s, baseline.elapsed_s, 1),
    ):
        off = math.log(steps_s / pass_s)
        if abs(off) < math.log1p(SUM_OFF) or way * off * math.log(ratio) < 0:
            continue
        much = f"the steps of {side.quant} add up to {steps_s:.3g} s where a pass takes {pass_s:.3g} s"
        if off < 0:
            yield f"{much}: time outside steps, slower steps in the pass, or too few steps counted"
        else:
            yield f"{much}: slower steps in the profile's launch, or too many steps counted"


def _batch(side: Profiled, of: Mapping[Phase, Breakdown]) -> Iterator[str]:
    if side.measured is None:
        return
    for phase, breakdown in of.items():
        sample, tokens = breakdown.sample, side.measured.tokens.get(phase)
        if sample is None:
            continue
        if tokens and sample.tokens and _apart(sample.tokens, tokens, OTHER_BATCH):
            yield (
                f"another batch: {phase} steps of {side.quant} were profiled with {sample.tokens:.4g} tokens, those of "
                f"the pass have {tokens:.4g} in the mean"
            )
        context, passed = sample.context_tokens, side.measured.context_tokens
        if phase == "decode" and context and passed and _apart(context, passed, OTHER_BATCH):
            yield (
                f"another context: attention of {side.quant} looked back at {context:.4g} tokens in the timed decode "
                f"steps, at {passed:.4g} in those of the pass in the mean"
            )


def _batches(
    found: Reconciliation, of_own: Mapping[Phase, Breakdown], of_baseline: Mapping[Phase, Breakdown]
) -> Iterator[str]:
    for phase in of_own:
        differ = batches_differ(of_own[phase], of_baseline[phase]) if phase in of_baseline else None
        if differ:
            yield (
                f"another batch: {phase} steps were profiled with {differ[0]:.4g} tokens for {found.own.quant}, with "
                f"{differ[1]:.4g} for {found.baseline.quant}"
            )


def _host_bound(side: Profiled, of: Mapping[Phase, Breakdown]) -> Iterator[str]:
    for phase, breakdown in of.items():
        if breakdown.share(HOST_GAP) >= WAITS:
            yield (
                f"host-bound: the device waits in {100 * breakdown.share(HOST_GAP):.0f} % of a {phase} step of "
                f"{side.quant}, and what the host does is not the same in a profile as in a pass"
            )


def _unsteady(side: Profiled, of: Mapping[Phase, Breakdown]) -> Iterator[str]:
    for phase, breakdown in of.items():
        cv = cv_percent(breakdown.sample.unprofiled_s) if breakdown.sample else None
        if cv is not None and cv >= UNSTEADY_PERCENT:
            yield f"unsteady steps: {phase} steps of {side.quant} vary by {cv:.0f} % without the profiler"


def _doubts(side: Profiled) -> Iterator[str]:
    for flag in side.record.validity:
        yield f"a doubt about the profile of {side.quant}: {flag.sentence.rstrip('.')}"


def _stand_ins(found: Reconciliation) -> Iterator[str]:
    assert found.prediction is not None
    for phase, stand_in in found.prediction.taken_for.items():
        yield f"{phase} steps are not profiled and were taken as {stand_in} steps"


def _server(found: Reconciliation) -> Iterator[str]:
    if found.own.measured is not None and found.own.measured.mode == "online":
        yield "online: requests come and go through a server, which is in the measured pass and not in the steps"


def _apart(one: float, other: float, fraction: float) -> bool:
    return abs(math.log(one / other)) > math.log1p(fraction)


def _first(told: Sequence[str]) -> tuple[str, ...]:
    """The first of them, of which nobody reads more, and how many there are besides."""
    if len(told) <= MOST:
        return tuple(told)
    return (*told[:MOST], f"{len(told) - MOST} further doubts, of which the table of steps shows most")
