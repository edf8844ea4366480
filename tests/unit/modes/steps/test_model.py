"""The model of a step's time: it finds what made data were made of, knows how sure it is, and where it ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.contracts.steps import StepWork, TimedStep
from rollout_bench.modes.steps.predict.model import StepModel, fit, least_squares
from rollout_bench.modes.steps.predict.prediction import DRAWS

SIZES, CAPTURED = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32), (1, 2, 4, 8, 16, 24, 32)


def work(prefills: int, tokens: int, decodes: int, context: int) -> dict[str, int]:
    pairs = tokens * (tokens + 1) // 2
    fields = (prefills, tokens, pairs, decodes, decodes * context, decodes * context)
    return dict(zip(StepWork.model_fields, fields, strict=True))


WORKS = [work(0, 0, size, context) for size in SIZES for context in (20, 30, 200, 210) for _ in range(4)]
WORKS += [work(n, tokens, size, 25) for n in (1, 4) for tokens in (64, 128, 256) for size in (0, 8)] * 3


def seconds(one: dict[str, int], captured: tuple[int, ...] = ()) -> float:
    """Return what a step takes: 2 ms, 0.1 ms a token (of the captured size), 1 us a token in the cache."""
    tokens = one["prefill_tokens"] + one["decodes"]
    if captured and not one["prefills"]:
        tokens = min(size for size in captured if size >= tokens)
    return 2e-3 + 1e-4 * tokens + 1e-6 * one["context_tokens"] + 2e-7 * one["prefill_pairs"] + 3e-4 * one["prefills"]


def made(seed: int = 0, noise: float = 0.02, factor: float = 1.0, captured: tuple[int, ...] = ()) -> list[TimedStep]:
    draw = np.random.default_rng(seed)
    return [
        TimedStep(**one, elapsed_s=factor * seconds(one, captured) * float(np.exp(noise * draw.normal())))
        for one in WORKS
    ]


def passes(steps: list[TimedStep]) -> list[list[TimedStep]]:
    return [steps[: len(steps) // 2], steps[len(steps) // 2 :]]


LOAD = [work(8, 256, 0, 0), *(work(0, 0, size, 40 + 3 * size) for size in (30, 20, 10, 5, 5, 5, 2))]
STEPS = [StepWork(**one) for one in LOAD]


@pytest.mark.parametrize("captured", [(), CAPTURED], ids=["eager", "graphs"])
def test_a_load_takes_what_its_steps_take(captured: tuple[int, ...]):
    model = fit([passes(made(captured=captured))], captured)
    assert model.times(STEPS) == pytest.approx([seconds(one, captured) for one in LOAD], rel=0.05)
    assert not model.faults
    assert model.error(0.5) < 0.05


def test_intervals_hold_the_truth_as_often_as_they_say():
    truth, held = sum(map(seconds, LOAD)), 0
    for seed in range(40):
        luck = np.exp(0.03 * np.random.default_rng([1, seed]).normal(size=5))
        passes = [made(seed + number, factor=float(factor)) for number, factor in enumerate(luck)]
        draws = fit([passes], (), refits=20).total_draws(STEPS, [len(STEPS) - 1], 400)[:, 0]
        low, high = np.percentile(draws, (2.5, 97.5))
        held += low <= truth <= high
    assert held >= 36


def test_rare_pauses_count_in_sums_and_bend_no_curve():
    steps = made(noise=0.0)
    paused = [each.model_copy(update={"elapsed_s": 9 * each.elapsed_s}) for each in steps[::40]]
    steps[::40] = paused
    share = sum(each.elapsed_s for each in steps) / sum(map(seconds, WORKS))
    assert fit([passes(steps)], ()).times(STEPS) == pytest.approx([share * seconds(one) for one in LOAD], rel=0.02)


def test_launches_that_differ_widen_the_interval():
    alike, unlike = (fit([[made(0)], [made(1, factor=1 + off)]], ()) for off in (0.0, 0.1))
    widths = [np.ptp(np.percentile(each.total_draws(STEPS, [7])[:, 0], (2.5, 97.5))) for each in (alike, unlike)]
    assert widths[1] > 3 * widths[0]


def test_ends_of_an_interval_hardly_depend_on_the_seed():
    model = fit([[made(number, factor=1 + number / 50)] for number in range(5)], ())
    seeds = [model.model_copy(update={"seed": seed}) for seed in range(6)]
    ends = [np.percentile(each.total_draws(STEPS, [len(STEPS) - 1], DRAWS)[:, 0], (2.5, 97.5)) for each in seeds]
    assert np.std(np.log(ends), axis=0).max() < 0.01


def test_only_the_misfit_is_left_in_a_ratio():
    model = fit([[made(0), made(1)], [made(2, factor=1.1), made(3, factor=1.1)]], ())
    first, second = ([StepWork(**work(0, 0, 24, 100))] * steps for steps in (40, 80))
    draws, twice, same = (model.total_draws(load, [len(load) - 1])[:, 0] for load in (first, second, first))
    assert np.std(np.log(same / draws)) == 0
    wanted = np.sqrt(2) * model.misfit(first)
    assert np.std(np.log(twice / draws)) == pytest.approx(wanted, rel=0.3)
    assert np.std(np.log(draws)) > 4 * wanted


def test_samples_of_a_prompt_read_its_cache_once():
    alone = [work(0, 0, size, context) for size in SIZES for context in (20, 200, 900) for _ in range(4)]
    together = [one | {"kv_tokens": one["kv_tokens"] // 8} for one in alone]
    works = [*alone, *together, *WORKS]
    timed = [TimedStep(**one, elapsed_s=seconds(one) + 3e-6 * one["kv_tokens"]) for one in works]
    model = fit([passes(timed)], ())
    times = model.times([StepWork(**one) for one in (work(0, 0, 20, 800), work(0, 0, 20, 800) | {"kv_tokens": 4000})])
    assert times[0] - times[1] == pytest.approx(12000 * 3e-6, rel=0.1)


def test_a_slow_launch_delays_the_step_before_it():
    """A prompt's step takes 2 ms and its launch 12 ms, during which the device computes the step before."""
    order = np.random.default_rng(3).permutation(len(WORKS))
    works = [WORKS[place] for place in order]
    launch_s = [12e-3 if one["prefills"] else 1e-3 for one in works]
    timed = [
        TimedStep(**one, elapsed_s=max(2e-3 + 1e-4 * one["decodes"], following_s))
        for one, following_s in zip(works, [*launch_s[1:], 0.0], strict=True)
    ]
    model = fit([passes(timed)], (), overlapped=True)
    decode, prompt = StepWork(**work(0, 0, 8, 20)), StepWork(**work(1, 64, 8, 20))
    expected = [1e-3 + 12e-3, 2.8e-3, 2.8e-3]  # the first waits for its own launch too
    assert model.times([decode, prompt, decode]) == pytest.approx(expected, rel=0.1)


MODEL = fit([passes(made())], CAPTURED)


@given(st.integers(1, 31), st.integers(0, 3000), st.integers(0, 3000))
def test_more_work_never_takes_less_time(decodes: int, context: int, more: int):
    few, many, longer = (
        StepWork(**work(0, 0, size, 0) | {"context_tokens": tokens})
        for size, tokens in ((decodes, context), (decodes + 1, context), (decodes, context + more))
    )
    times = MODEL.times([few, many, longer])
    assert times[1] >= times[0]
    assert times[2] >= times[0]


def test_work_beyond_the_calibration_is_named():
    assert MODEL.outside(STEPS) == []
    assert (
        MODEL.outside([StepWork(**work(1, 300, 0, 20))])[0]
        == "1 step has up to 300 computed tokens; calibrated up to 264"
    )
    assert "up to 64 decoding sequences" in " ".join(MODEL.outside([StepWork(**work(0, 0, 64, 20))]))


def test_times_that_do_not_follow_the_work_predict_nothing():
    assert "Half of the kinds of steps are off by" in fit([passes(made(noise=1.0))], ()).faults[0]
    few = [each for each in made() if each.decodes < 3]
    assert "batch sizes of decoding" in fit([passes(few)], ()).faults[0]


def test_a_load_is_as_sure_as_its_steps():
    """Steps of 24 sequences take 15 % longer than those beside them say."""
    steps = [
        each.model_copy(update={"elapsed_s": (1.15 if each.decodes == 24 else 1) * each.elapsed_s})
        for each in made(noise=0.002)
    ]
    model = fit([passes(steps)], ())
    odd, usual = ([StepWork(**work(0, 0, size, 100))] * 9 for size in (24, 8))
    kind = next(kind for kind in model.kinds if kind.name == "decode of 24 sequences")
    assert model.misfit(odd) == pytest.approx(kind.error)
    assert kind.error > 0.08
    assert model.misfit(usual) < model.misfit([*usual, *odd]) < model.misfit(odd)
    widths = [np.ptp(np.percentile(model.total_draws(each, [8]), (2.5, 97.5))) for each in (usual, odd)]
    assert widths[1] > 2 * widths[0]


def test_no_rows_have_no_coefficients():
    for size in range(1, 200):  # scipy's own answer would be what the memory held
        assert not least_squares(np.empty((0, size)), np.empty(0), np.empty(0)).any()


def test_a_model_is_the_same_after_json():
    again = StepModel.model_validate_json(MODEL.model_dump_json())
    assert again.times(STEPS).tolist() == MODEL.times(STEPS).tolist()
