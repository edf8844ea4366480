"""The record of a cycle launch."""

from collections.abc import Sequence

from rollout_bench.contracts.drafts import trained_draft
from rollout_bench.contracts.record import EngineFacts, Flag, Iteration
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.weights import WeightProof
from rollout_bench.measure.launch.flags import invalid, not_finite_flags, stale_flags
from rollout_bench.measure.launch.recorder import Measurement
from rollout_bench.modes.cycle.record import Transition
from rollout_bench.modes.cycle.settings import CycleSpec


class Collector(Measurement):
    """Collects the iterations and transitions of a launch."""

    def doubts(self, facts: EngineFacts, log: str) -> list[Flag]:
        """Return the flags that need the whole launch."""
        repeats = self.spec.lora is None or self.spec.platform != "cuda"
        flags = not_finite_flags(self.proofs) or cycle_flags(*self.proofs, repeats=repeats)
        held = [flag for iteration in self.iterations for flag in kv_cache_flags(iteration, self.spec)]
        lost = draft_flags(self.iterations) if trained_draft(self.spec.engine.args) else []
        return [*super().doubts(facts, log), *flags, *held[:1], *lost, *stale_flags(self.proofs)]


KEPT_SHARE = 0.5
"""Least share of the tokens accepted of a draft before any update that it has to have after each: one that lost its
weights has none, and those of other prompts differ by less."""


def draft_flags(iterations: Sequence[Iteration]) -> list[Flag]:
    """Return a flag unless the engine accepts about as many tokens of a trained draft after each update as before any.

    The same weights came each time, so a fall is the draft's own: vLLM's sleep level 2 once left it all zeros, without
    a word (its pull request 52487).
    """
    used = [each.drafting for each in iterations]
    accepted = [0.0 if one is None else one.accepted_tokens / max(1, one.drafts) for one in used]
    before, after = accepted[0], min(accepted[1:])
    if not before:
        sentence = "No token of a draft was accepted before any update, so nobody can see whether one loses it."
    elif after < KEPT_SHARE * before:
        sentence = (
            f"Of a draft {before:.3g} tokens were accepted before any update, and {after:.3g} after one, though the "
            "same weights came."
        )
    else:
        return []
    return [invalid("draft_lost", sentence)]


def kv_cache_flags(iteration: Iteration, spec: Spec) -> list[Flag]:
    """Return a flag if requests under way at an update kept or lost their KV cache otherwise than asked.

    The engine counts a request whose cache it drops as preempted; one that is preempted for memory counts too.
    """
    in_flight, transition = spec.of(CycleSpec).in_flight, iteration.of(Transition)
    if in_flight is None or transition is None or transition.under_way is None:
        return []
    under_way = transition.under_way
    if not under_way.requests:
        what = "no request was under way at the update"
    elif in_flight == "keep" and under_way.recomputed:
        lost = f"{under_way.recomputed} of {under_way.requests} requests under way"
        what = f"{lost} lost their KV cache, or it had no room"
    elif in_flight == "recompute" and not under_way.recomputed:
        what = f"all {under_way.requests} requests under way kept their KV cache"
    else:
        return []
    return [invalid("kv_cache_not_as_asked", f"Iteration {iteration.index}: {what}, and in_flight is {in_flight}.")]


def cycle_flags(loaded: WeightProof, second: WeightProof, first: WeightProof, *, repeats: bool = True) -> list[Flag]:
    """Return flags if the first weights are not the same after two updates, or if an update has no full effect.

    Args:
        loaded: proof of the weights as loaded.
        second: proof after an update to other weights.
        first: proof after another one, back.
        repeats: whether an engine with the same weights always generates the same greedy tokens. On CUDA vLLM's
            kernels for adapters do not: they add parts of a sum in the order in which they become ready.
    """
    differs = ["greedy tokens"] if repeats and first.tokens != loaded.tokens else []
    if first.checksum != loaded.checksum:
        differs.append("checksum")
    if differs:
        sentence = (
            f"After an update to other weights and one back, the engine had other {' and another '.join(differs)} than "
            "as loaded, where they should be the same."
        )
        return [invalid("output_changed", sentence)]
    still = max(proof.trained - proof.changed_trained for proof in (second, first))
    lost = loaded.trained - min(second.trained, first.trained)  # of an adapter, only tensors with values have to change
    if lost > 0:
        what = f"{lost} of {loaded.trained} tensors of its adapter had only zeros"
    elif still:
        what = f"{still} of {first.trained} weights that had to change were what they had been before"
    elif second.tokens == loaded.tokens:
        what = "the engine generated the same greedy tokens as before"
    else:
        return []
    return [invalid("update_without_effect", f"After an update to other weights, {what}.")]
