"""The record of a cycle launch."""

from rollout_bench.contracts.record import EngineFacts, Flag
from rollout_bench.contracts.weights import WeightProof
from rollout_bench.measure.launch.flags import invalid, not_finite_flags, stale_flags
from rollout_bench.measure.launch.recorder import Measurement


class Collector(Measurement):
    """Collects the iterations and transitions of a launch."""

    def doubts(self, facts: EngineFacts, log: str) -> list[Flag]:
        """Return the flags that need the whole launch."""
        repeats = self.spec.lora is None or self.spec.platform != "cuda"
        flags = not_finite_flags(self.proofs) or cycle_flags(*self.proofs, repeats=repeats)
        return [*super().doubts(facts, log), *flags, *stale_flags(self.proofs)]


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
