"""Prediction of a rollout: the schedule of its steps from vLLM's own scheduler, and their times from a calibration."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from rollout_bench.analysis.stats.anatomy import rank
from rollout_bench.analysis.stats.percentiles import Array
from rollout_bench.checkpoints.formats import hf_config
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.contracts.forecasts import Expected
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import Spec, is_local, replicas
from rollout_bench.contracts.steps import Steps
from rollout_bench.core.errors import UserError
from rollout_bench.core.model_files import cached_config
from rollout_bench.core.numbers import percent
from rollout_bench.core.places import python_path
from rollout_bench.modes.steps.predict.calibrations import Calibration
from rollout_bench.modes.steps.predict.model import LARGEST_ERROR, StepModel
from rollout_bench.modes.steps.predict.replay import Replayed, ReplayJob, WaitingSequence
from rollout_bench.workloads.policies import Balancer
from rollout_bench.workloads.requests import Request, Source

PREDICTED = tuple(mode.name for mode in MODES.values() if mode.is_predicted)
"""Modes whose iterations are predicted."""

VOCABULARY = 1 << 20
"""Ids of drawn prompts: their values do not matter, only which prompts are alike."""

DRAWS = 4000
"""Draws of an interval. Between seeds its ends move by 0.1 to 0.3 % of the value, by up to 0.5 % with 3 launches."""

AGAIN = "measure its calibration again, on a quiet machine"

TIMES = (50, 90, 99)
"""Percentages of sequences whose completion is predicted."""


@dataclass(frozen=True)
class Prediction:
    """The predicted iteration of an experiment, as means over its passes.

    Attributes:
        spec: its spec.
        output_tokens: generated tokens.
        length: output tokens of a sequence, as a mean.
        devices: devices of all engines.
        launches: launches of the calibration.
        complete_s: percentage of sequences -> draws of the time at which they are complete [draws], in seconds. 100 is
            the whole step.
        central_s: the same numbers without any draw.
        steps: steps of the engine that has most.
        preemptions: number of preemptions.
        kv_peak: largest used share of a KV cache.
        beyond: sentences on work beyond the calibration.
    """

    spec: Spec
    output_tokens: float
    length: float
    devices: int
    launches: int
    complete_s: dict[int, Array]
    central_s: dict[int, float]
    steps: float
    preemptions: float
    kv_peak: float
    beyond: tuple[str, ...]

    @property
    def step(self) -> Expected:
        """Time of the whole step, in seconds."""
        return self.complete(100)

    @property
    def tokens_per_s(self) -> Expected:
        """Output tokens per second."""
        return expected(self.output_tokens / self.central_s[100], self.output_tokens / self.complete_s[100])

    def complete(self, percent: int) -> Expected:
        """Return the time at which this percentage of sequences is complete, in seconds."""
        return expected(self.central_s[percent], self.complete_s[percent])


def expected(value: float, draws: Array) -> Expected:
    """Return a number with the 95 % interval of its draws [draws]."""
    low, high = np.percentile(draws, (2.5, 97.5))
    return Expected(value, min(float(low), value), max(float(high), value))


class Replays:
    """A process of the engine's interpreter, which takes seconds to start, and then replays one job after the other.

    It starts with the first job, so that a refusal of a call waits for no engine.

    Args:
        python: interpreter with vLLM.
    """

    def __init__(self, python: str) -> None:
        self._python = python
        self._kept = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    @cached_property
    def _process(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [self._python, "-m", "rollout_bench.modes.steps.predict.replay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "PYTHONPATH": python_path()},
            text=True,
        )
        self._kept.callback(process.communicate)
        return process

    @cached_property
    def _stderr(self) -> IO[str]:
        return self._kept.enter_context(tempfile.TemporaryFile("w+"))

    def answer(self, job: ReplayJob, title: str) -> Replayed:
        """Return the answer to `job` of the experiment `title`.

        Raises:
            UserError: the engine cannot be followed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # its last words say why
            self._process.stdin.write(f"{job.model_dump_json()}\n")
            self._process.stdin.flush()
        if line := self._process.stdout.readline():
            return Replayed.model_validate_json(line)
        self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().strip().splitlines()[-2:] or ["the replay ended without a word"]
        problem, _, remedy = "\n".join(lines).partition("-> ")
        raise UserError(f"{title}: {problem.strip()}", remedy.strip() or "measure it instead")


class Predictor:
    """Predicts experiments; each engine is fitted once, and each schedule replayed once.

    Args:
        replays: replays the schedules.
    """

    def __init__(self, replays: Replays) -> None:
        self._replays = replays
        self.models: dict[str, StepModel] = {}
        """Key of a calibration -> its fit."""

    def model(self, calibration: Calibration) -> StepModel:
        """Return the fitted model of a calibration."""
        key = calibration.spec.key()
        if key not in self.models:
            self.models[key] = calibration.model()
        return self.models[key]

    def predict(
        self, spec: Spec, calibration: Calibration, launches: Iterable[int], model_path: str, dataset: str | None
    ) -> Prediction:
        """Return the prediction of `spec`: of the iterations that count, whose drawn lengths differ.

        Args:
            spec: spec of a rollout.
            calibration: the calibration of its engine.
            launches: indices of its launches, whose lengths differ, too.
            model_path: folder of its model, which need not exist if the model is synthetic.
            dataset: file of the workload's data set.

        Raises:
            UserError: the workload or the engine cannot be followed, or the fit is bad for its steps.
        """
        check(spec)
        model = self.model(calibration)
        if model.faults:
            raise UserError(f"{spec.title}: {model.faults[0]}", AGAIN)
        args = spec.engine.args
        tokenizer = str(args.get("tokenizer") or model_path)
        source = Source(spec.workload, VOCABULARY, tokenizer, dataset, bool(args.get("trust_remote_code")))
        first = spec.measuring.warmup_iterations
        numbers = range(first, first + spec.measuring.iterations)
        asked = [_waiting_sequences(spec, source.requests(launch, number)) for launch in launches for number in numbers]
        engines = [sequences for each in asked for sequences in each]
        replayed = self._replay(spec, calibration.launches[0], model_path, engines)
        following = iter(replayed)
        passes = [list(islice(following, len(each))) for each in asked]  # engines without a sequence are left out
        made = [_completion_times(model, each, calibration.launches[0].arrival_s) for each in passes]
        works = [work for each in replayed for work in each.steps]
        misfit = model.misfit(works)
        if misfit > LARGEST_ERROR:
            raise UserError(
                f"{spec.title}: its kinds of steps are predicted with a mean error of {percent(misfit)} if they are "
                f"left out of the fit; the largest allowed is {percent(LARGEST_ERROR)}",
                AGAIN,
            )
        central_s, complete_s = (
            {each: np.mean([one[each] for one in side], axis=0) for each in (*TIMES, 100)}
            for side in zip(*made, strict=True)
        )
        lengths = [each.output_tokens for engine in engines for each in engine]
        return Prediction(
            spec=spec,
            output_tokens=sum(lengths) / len(passes),
            length=float(np.mean(lengths)),
            devices=replicas(spec) * int(spec.engine.args.get("tensor_parallel_size") or 1),
            launches=len(calibration.launches),
            complete_s=complete_s,
            central_s={each: float(value) for each, value in central_s.items()},
            steps=float(np.mean([max(len(each.steps) for each in one) for one in passes])),
            preemptions=float(np.mean([sum(each.preemptions for each in one) for one in passes])),
            kv_peak=max(each.kv_peak_blocks for each in replayed) / calibration.launches[0].kv_blocks,
            beyond=tuple(model.outside(works)),
        )

    def _replay(
        self, spec: Spec, record: Steps, model_path: str, engines: Sequence[list[WaitingSequence]]
    ) -> list[Replayed]:
        args: dict[str, Any] = {name: value for name, value in spec.engine.args.items() if name != "data_parallel_size"}
        args |= {"async_scheduling": record.async_scheduling}
        for name in ("max_num_seqs", "max_num_batched_tokens"):
            args.setdefault(name, getattr(record, name))
        with tempfile.TemporaryDirectory(prefix="rollout-bench-predict-") as folder:
            model = config_folder(spec, model_path, Path(folder))
            blocks = {"kv_blocks": record.kv_blocks, "block_tokens": record.block_tokens}
            jobs = [ReplayJob(model=model, args=args, **blocks, sequences=each) for each in engines]
            return [self._replays.answer(job, spec.title) for job in jobs]


def check(spec: Spec) -> None:
    """Check that iterations of `spec` can be predicted.

    Raises:
        UserError: it has turns or over-sampling, or its texts end by themselves.
    """
    name = spec.mode_spec.unpredictable
    if spec.workload.turns:
        name = "turns"
    elif not spec.workload.ignore_eos:
        name = "ignore_eos: false"
    if name:
        raise UserError(f"{spec.title}: {name} is not predicted", "leave it out, or measure the experiment")


def _waiting_sequences(spec: Spec, requests: Sequence[Request]) -> list[list[WaitingSequence]]:
    """Return the sequences of each engine in an iteration."""
    engines: list[list[WaitingSequence]] = [[] for _ in range(replicas(spec))]
    for engine, request in zip(_homes(spec, requests), requests, strict=True):
        asked = WaitingSequence(prompt_token_ids=list(request.prompt_token_ids), output_tokens=request.output_tokens)
        engines[engine].append(asked)
    return [each for each in engines if each]


def _homes(spec: Spec, requests: Sequence[Request]) -> list[int]:
    """Return the engine of each sequence: all are sent before any ends."""
    if replicas(spec) == 1:
        return [0] * len(requests)
    balancer = Balancer(spec.mode_spec.router_policy, replicas(spec))
    return [balancer.choose(request.prompt) for request in requests]


def _completion_times(
    model: StepModel, engines: Sequence[Replayed], arrival_s: float
) -> tuple[dict[int, Array], dict[int, Array]]:
    """Return when each percentage of the sequences of a pass is complete, in seconds: [], and draws [draws].

    Steps begin when all sequences of an engine have arrived. It begins with the first, but gets ahead little.
    """
    central, drawn = list[Array](), list[Array]()
    for each in engines:
        arrived_s = arrival_s * len(each.finished)
        central.append(arrived_s + np.cumsum(model.times(each.steps))[each.finished])
        drawn.append(arrived_s + model.total_draws(each.steps, each.finished, DRAWS))
    ends = np.sort(np.concatenate(central)), np.sort(np.concatenate(drawn, axis=1))
    at, drawn_at = ({each: side[..., rank(each, side.shape[-1])] for each in (*TIMES, 100)} for side in ends)
    return at, drawn_at


def config_folder(spec: Spec, model_path: str, folder: Path) -> str:
    """Return `folder` with the model's config.json, without a quantization that this platform may refuse."""
    path, args = Path(model_path).expanduser() / "config.json", spec.engine.args
    if not is_local(model_path):
        path = cached_config(model_path, str(args.get("revision") or "main"), args.get("download_dir")) or path
    if spec.model.synthetic is not None:
        config = hf_config(ResolvedShape.model_validate(spec.model.synthetic), "bf16")
    elif path.is_file():
        config = json.loads(path.read_text())
        config.pop("quantization_config", None)
    else:
        remedy = (
            "bring the model's config.json there" if is_local(model_path) else f"download it: hf download {model_path}"
        )
        raise UserError(f"{model_path}: has no config.json here", remedy)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)
