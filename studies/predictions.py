"""How far off are predictions of loads that a calibration has not seen, and how often do their intervals hold?

Each of results/predictions-*.tar.xz has results folders with a calibration of an engine, and rollouts of that engine.
Beside our prediction stands the simplest one: the load's tokens, divided by the tok/s of the folder's first load; and
aiconfigurator's (0.12.0), where lengths are equal, as it knows no others:
`aiconfigurator cli estimate --estimate-mode static --backend vllm --system h100_sxm --isl 512 --osl 768 --tp-size 1
--batch-size 128 --model-path FOLDER --gemm-quant-mode MODE`, kept in results/aiconfigurator.csv. Its time of prompts
is divided by the samples of a prompt, which share it.
`python studies/predictions.py`, where vLLM is installed, writes results/predictions.md.
"""

import csv
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from kept import RESULTS, Share
from scipy import stats

from rollout_bench.contracts.store import read_record
from rollout_bench.core.errors import UserError
from rollout_bench.core.mappings import grouped
from rollout_bench.modes.steps.predict.calibrations import calibration_of, calibrations
from rollout_bench.modes.steps.predict.prediction import PREDICTED, Prediction, Predictor, Replays
from rollout_bench.modes.steps.predict_commands import Predicted, ranked

CELLS = (
    "| load | measured s | its iterations, s | predicted s | error | interval holds it | by tok/s | aiconfigurator |"
)


FEWEST = 4
"""Launches of a load from which on the spread of its time is known: Student's t has one from three degrees on."""


@dataclass(frozen=True)
class Cell:
    """A load: its prediction, and the times of the iterations that count, for each launch, in seconds."""

    made: Prediction
    launches_s: tuple[tuple[float, ...], ...]

    @property
    def name(self) -> str:
        """Title of its experiment."""
        return self.made.spec.title

    @property
    def predicted(self) -> Predicted:
        """The prediction beside the mean over the iterations."""
        return Predicted(self.name, self.made, self.measured_s)

    @property
    def measured_s(self) -> float:
        """Mean over the launches."""
        return float(np.mean(self.means_s))

    @property
    def means_s(self) -> list[float]:
        """Mean over the iterations of each launch."""
        return [float(np.mean(times)) for times in self.launches_s]

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.made.step.value / self.measured_s - 1


def cells_of(results: Path, predictor: Predictor, refused: list[str]) -> Iterator[Cell]:
    """Yield the loads of a results folder, in the order in which they were measured; the others are `refused`."""
    known = calibrations(results)
    records = [read_record(path) for mode in PREDICTED for path in results.glob(f"{mode}/*/launch-*.json")]
    for launches in grouped((each.key, each) for each in sorted(records, key=lambda each: each.started_at)).values():
        spec = launches[0].spec
        try:
            made = predictor.predict(spec, calibration_of(spec, known), [each.launch for each in launches], "", None)
        except UserError as error:
            refused.append(f"- refused: {error.args[0].splitlines()[0]}.")
            continue
        yield Cell(made, tuple(tuple(i.elapsed_s for i in one.iterations if not i.warmup) for one in launches))


def lines_of(cells: list[Cell]) -> Iterator[str]:
    """Yield the rows of a folder's table."""
    if not cells:  # all were refused
        return
    rate = cells[0].made.output_tokens / cells[0].measured_s
    with (RESULTS / "aiconfigurator.csv").open() as file:
        others = {each["load"]: each for each in csv.DictReader(file)}
    for each in cells:
        step, simple = each.made.step, each.made.output_tokens / rate / each.measured_s - 1
        other = "-"
        if kept := others.get(each.name):
            workload = each.made.spec.workload
            decode_s = (each.made.length - 1) * float(kept["tpot_ms"]) / 1e3
            theirs = float(kept["ttft_ms"]) / 1e3 / workload.samples_per_prompt + decode_s
            other = f"{100 * (theirs / each.measured_s - 1):+.1f} %"
        times = ", ".join(f"{time:.2f}" for launch_s in each.launches_s for time in launch_s)
        yield (
            f"| {each.name} | {each.measured_s:.2f} | {times} "
            f"| {step.value:.2f} [{step.low:.2f}, {step.high:.2f}] | {100 * each.error:+.2f} % "
            f"| {'yes' if each.predicted.held else 'no'} | {100 * simple:+.0f} % | {other} |"
        )


def choices_of(cells: list[Cell]) -> Iterator[str]:
    """Yield, for each load with several settings, whether those that are recommended have the best one."""
    for load, settings in grouped((each.made.spec.workload.name, each) for each in cells).items():
        if len({each.made.spec.axes["setting"] for each in settings}) < 2:
            continue
        truly = min(settings, key=lambda each: each.measured_s)
        best, rest = ranked([each.predicted for each in settings])
        named = [best, *(each for each, (_, tied) in rest if tied)]
        lost = next(each for each in settings if each.name == best.name).measured_s / truly.measured_s
        among = "is" if truly.name in [each.name for each in named] else "is not"
        first, fastest = best.made.spec.axes["setting"], truly.made.spec.axes["setting"]
        yield (
            f"- {load}: {fastest}, measured best of {len(settings)} settings, {among} among the {len(named)} "
            f"recommended; the first of these, {first}, takes {lost:.3f} times as long."
        )


def repeats_of(cells: list[Cell]) -> Iterator[str]:
    """Yield how often a launch of a load is as near to its other launches as a prediction should be."""
    apart = [
        abs(mean_s / float(np.mean(each.means_s[:place] + each.means_s[place + 1 :])) - 1)
        for each in cells
        if len(each.means_s) > 1
        for place, mean_s in enumerate(each.means_s)
    ]
    if apart:
        near = Share(count=sum(distance <= 0.08 for distance in apart), of=len(apart))
        counts = f"{near.count} of {near.of}, {near}"
        yield f"A launch is within 8 % of the mean of the other launches of its load: {counts}."
        yield ""


def ratios_of(cells: list[Cell]) -> Iterator[str]:
    """Yield how far measured ratios of settings lie from predicted ones, in the spread that is stated.

    That of a measured ratio comes from few launches: with n of them a perfect prediction gives the standard deviation
    of Student's t with n - 1 degrees of freedom.
    """
    distances, degrees = list[float](), list[int]()
    for settings in grouped((each.made.spec.workload.name, each) for each in cells).values():
        for one, other in combinations(settings, 2):
            launches = len(one.launches_s)
            if one.made.steps == other.made.steps or launches != len(other.launches_s) or launches < FEWEST:
                continue
            measured = np.log(np.array(one.means_s) / np.array(other.means_s))
            predicted = np.log(one.made.complete_s[100] / other.made.complete_s[100])
            spread = np.hypot(measured.std(ddof=1) / np.sqrt(launches), predicted.std())
            distances.append((measured.mean() - np.log(one.made.step.value / other.made.step.value)) / spread)
            degrees.append(launches - 1)
    if distances:
        yield (
            f"- Ratios of settings: {len(distances)} pairs err by {float(np.sqrt(np.mean(np.square(distances)))):.2f} "
            "times the spread of prediction and measurement together; from so few launches alone "
            f"{stats.t(min(degrees)).std():.2f} is usual."
        )


def main() -> None:
    """Predict the loads of each archive and write the tables."""
    lines = list[str]()
    with Replays(sys.executable) as replays, tempfile.TemporaryDirectory() as name:
        for archive in sorted(RESULTS.glob("predictions-*.tar.xz")):
            place = Path(name) / archive.name
            with tarfile.open(archive) as file:
                file.extractall(place, filter="data")
            predictor, rows, cells, refused = Predictor(replays), list[str](), list[Cell](), list[str]()
            for folder in sorted(place.iterdir()):
                folder_cells = list(cells_of(folder, predictor, refused))
                rows += lines_of(folder_cells)
                cells += folder_cells
            errors = [abs(each.error) for each in cells]
            shares = [Share(count=sum(error <= most for error in errors), of=len(errors)) for most in (0.05, 0.08)]
            held = Share(count=sum(each.predicted.held for each in cells), of=len(cells))
            lines += [f"{archive.name}: within 5 % {shares[0]}, within 8 % {shares[1]}, intervals hold {held}.", ""]
            lines += [*repeats_of(cells), CELLS, "|---|--:|--:|--:|--:|---|--:|--:|", *rows, ""]
            lines += [*refused, *choices_of(cells), *ratios_of(cells), ""]
    text = "\n".join(lines)
    (RESULTS / "predictions.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
