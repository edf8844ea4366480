"""The roofline of profiles: their operator classes below the limits of the machine that they ran on."""

from __future__ import annotations

from matplotlib.figure import Figure

from rollout_bench.analysis.looked import Looked
from rollout_bench.bounds.limits import measured
from rollout_bench.bounds.share import profile_costs, same_machine
from rollout_bench.reporting.figures.roofline import Point, points_of, roofline_figure
from rollout_bench.reporting.figures.style import label_styles


def profile_roofline(looked: Looked, where: str, alarm: str) -> Figure:
    """Draws the profiles of the first machine whose limits are known, or of all without a roof where none is."""
    limits = looked.limits[0] if looked.limits else None
    shown = [
        each for each in looked.profiles.profiled if limits is None or same_machine(limits, each.record.environment)
    ]
    points: list[Point] = []
    for each in shown:
        for phase, breakdown in looked.profiles.of(each).items():
            traced = any(step.profiled and step.phase == phase for step in each.record.steps)
            known = looked.architectures.get(each.place)
            costs = profile_costs(each.record, phase, profiled=traced, architecture=known)
            if not isinstance(costs, str):
                seconds = {part: us / 1e6 for part, us in breakdown.scaled.items()}
                points += points_of(costs, seconds, phase, each.quant)
    styles = label_styles(each.quant for each in shown)
    return roofline_figure(points, None if limits is None else measured(limits), styles, where, alarm)
