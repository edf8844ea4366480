"""The record of a placement launch."""

from collections.abc import Sequence

from rollout_bench.contracts.record import EngineFacts, Flag
from rollout_bench.contracts.spec import tensor_parallel_size
from rollout_bench.contracts.weights import WeightProof
from rollout_bench.measure.launch.flags import invalid, not_finite_flags, stale_flags
from rollout_bench.measure.launch.recorder import Measurement
from rollout_bench.modes.placement.record import PlacedStep


class Collector(Measurement):
    """Collects the steps of a launch."""

    def doubts(self, facts: EngineFacts, log: str) -> list[Flag]:
        """Return the flags that need the whole launch."""
        half = len(self.proofs) // 2
        trained = any(
            rank.loss is not None for it in self.iterations if (step := it.of(PlacedStep)) for rank in step.ranks
        )
        shards = tensor_parallel_size(self.spec)
        flags = placement_flags(self.proofs[:half], self.proofs[half:], shards, trained=trained)
        flags = not_finite_flags(self.proofs) or flags
        return [*super().doubts(facts, log), *flags, *stale_flags(self.proofs)]


def placement_flags(
    loaded: Sequence[WeightProof], proofs: Sequence[WeightProof], shards: int, *, trained: bool
) -> list[Flag]:
    """Return flags if engines of a placement lack the trainer's new weights.

    Args:
        loaded: of each generating rank, with the weights of the start.
        proofs: of the same ranks, after the last step.
        shards: ranks of each engine; each rank has its own weights.
        trained: whether training changed the trainer's weights.
    """
    when, flags = "After the last step", []
    # if all engines have the same weights, the first engine's proofs hold for all
    all_trained = sum(proof.trained for proof in proofs[:shards])
    still = all_trained - sum(proof.changed_trained for proof in proofs[:shards])
    alike = all(len({proof.checksum for proof in proofs[shard::shards]}) == 1 for shard in range(shards))
    # on GPUs, engines with equal weights may have other kernels, which choose other tokens from the start
    size = len(proofs) if len({proof.tokens for proof in loaded}) == 1 else shards
    groups = [proofs[first : first + size] for first in range(0, len(proofs), size)]
    if not alike or any(len({proof.tokens for proof in group}) > 1 for group in groups):
        what = "the engines have not the same weights, or their ranks generate other greedy tokens"
        flags.append(invalid("update_without_effect", f"{when}, {what}."))
    elif still and trained:
        what = f"{still} of {all_trained} weights that had to change were what they had been before"
        flags.append(invalid("update_without_effect", f"{when}, {what}."))
    worst = max(proofs, key=lambda proof: proof.lost or 0)
    if worst.lost:
        what = f"{worst.lost} of the trainer's tensors had not reached an engine as they are"
        flags.append(invalid("weights_differ", f"{when}, {what}; the first is {worst.first_lost}."))
    return flags
