"""The record of a cycle launch."""

from rollout_bench.contracts.record import EngineFacts, Flag
from rollout_bench.contracts.weights import WeightProof
from rollout_bench.measure.launch.flags import invalid, not_finite_flags
from rollout_bench.measure.launch.recorder import Measurement


class Collector(Measurement):
    """Collects the iterations and transitions of a launch."""

    def doubts(self, facts: EngineFacts, log: str) -> list[Flag]:
        """Return the flags that need the whole launch."""
        return [*super().doubts(facts, log), *(not_finite_flags(self.proofs) or cycle_flags(*self.proofs))]


def cycle_flags(loaded: WeightProof, second: WeightProof, first: WeightProof) -> list[Flag]:
    """Return flags if the first weights are not the same after two updates, or if an update has no full effect."""
    differs = [
        what
        for what, now, then in (
            ("greedy tokens", first.tokens, loaded.tokens),
            ("checksum", first.checksum, loaded.checksum),
        )
        if now != then
    ]
    if differs:
        sentence = (
            f"After an update to other weights and one back, the engine had other {' and another '.join(differs)} than "
            "as loaded, where they should be the same."
        )
        return [invalid("output_changed", sentence)]
    still = max(proof.trained - proof.changed_trained for proof in (second, first))
    if still:
        what = f"{still} of {first.trained} weights that had to change were what they had been before"
    elif second.tokens == loaded.tokens:
        what = "the engine generated the same greedy tokens as before"
    else:
        return []
    return [invalid("update_without_effect", f"After an update to other weights, {what}.")]
