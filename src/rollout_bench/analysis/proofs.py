"""Count launches whose updated weights were proven, and find those that failed the proof, as every repetition would."""

from collections.abc import Iterator
from dataclasses import dataclass

from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.failures import NOT_UPDATABLE, WRONG_WEIGHTS


@dataclass(frozen=True)
class FailedProof:
    """Launches of one experiment that failed a proof, or whose weights cannot be updated.

    Attributes:
        code: code of the flag, or category of the failure.
        launches: number of such launches.
        of: number of launches that were tried.
        seen: message of the first such launch.
    """

    code: str
    launches: int
    of: int
    seen: str


def failed_proofs(row: Row) -> Iterator[FailedProof]:
    """Yield each reason for which launches of `row` are unfit."""
    tried = len(row.launches) + len(row.experiment.failures)
    for code in WRONG_WEIGHTS:
        seen = [next((flag.sentence for flag in launch.flags if flag.code == code), "") for launch in row.launches]
        if any(seen):
            yield FailedProof(code, sum(map(bool, seen)), tried, next(filter(None, seen)))
    causes = [failure.cause for failure in row.experiment.failures if failure.category == NOT_UPDATABLE]
    if causes:
        yield FailedProof(NOT_UPDATABLE, len(causes), tried, causes[0])


def proven(row: Row) -> int:
    """Return the number of valid launches of `row` whose weights were proven."""
    return sum(bool(record.weight_proofs) for record in row.experiment.records if record.valid)


def tokens_came_back(row: Row) -> bool:
    """Return whether the last proof of each valid launch of `row` has the greedy tokens of its first."""
    proofs = (record.weight_proofs for record in row.experiment.records if record.valid)
    return all(one[0].tokens == one[-1].tokens for one in proofs if one)
