"""The figures of messages: their bytes, and their share of a step."""

from rollout_bench.modes.messages.links import message_of, step_shares
from rollout_bench.modes.messages.report import WAYS, found_in
from rollout_bench.report.figures.charts import Chart, Line, Lines, colours_of
from rollout_bench.report.figures.drawings import range_of
from rollout_bench.report.parts import Findings


def messages(findings: Findings) -> Chart:
    """Chart the bytes of each step of the largest batch: a panel for each experiment."""
    runs = found_in(findings)
    panels, most = [], 0
    for run in runs:
        batch = run.batches[-1]
        steps = [s for s in run.launches[0].steps if (s.purpose, s.batch) == ("contents", batch)]
        sent = {word: [(s.index, message_of(s, way).size_bytes) for s in steps] for way, word in WAYS.items()}
        most = max(most, *(size for points in sent.values() for _, size in points))
        lines = [Line(word, points) for word, points in sent.items()]
        panels.append(Lines(f"{run.valid.name}, batch {batch}", "step", "bytes", lines, log="y"))
    title = f"A step sends up to {most:,d} bytes to the workers or back"
    marks = "The first launch of each experiment, at its largest batch."
    return Chart(title, "", marks, panels, colours_of(WAYS.values()))


def message_shares(findings: Findings) -> Chart:
    """Chart the share of messages in a decode step over the batch size."""
    confidence = findings.collection.comparison.confidence
    shares_of_runs = [(run, shares) for run in found_in(findings) if (shares := step_shares(run, confidence))]
    lines = [
        Line(
            run.valid.name,
            [(float(share.batch), 100 * share.value) for share in shares],
            [(float(share.batch), 100 * min(share.launches), 100 * max(share.launches)) for share in shares],
        )
        for run, shares in shares_of_runs
    ]
    batches = sorted({float(share.batch) for _, shares in shares_of_runs for share in shares})
    marks = "Line: pickling and unpickling, mean over launches. Band: from the lowest launch to the highest."
    panel = Lines("", "sequences at once", "% of a decode step", lines, batches, "x")
    title = f"Messages take {range_of([y for line in lines for _, y in line.points], 2)} % of a decode step"
    return Chart(title, "", marks, [panel] if lines else [], colours_of(run.valid.name for run, _ in shares_of_runs))


DRAWINGS = {"messages": messages, "message_shares": message_shares}
