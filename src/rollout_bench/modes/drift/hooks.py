"""The tokens that a drift launch scores."""

from pathlib import Path

from rollout_bench.contracts.failures import Cause
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import reference_path
from rollout_bench.core.errors import UserError
from rollout_bench.measure.launch.hooks import Hooks
from rollout_bench.modes.drift.record import read_scores, scores_path


def obstacle(spec: Spec, record: Path) -> Cause | None:
    """Return the reason why a launch of `spec` has no tokens to score; None if it has tokens or needs none.

    `record` is the path of the launch's record.
    """
    reference = reference_path(record, spec)
    if reference is None:
        return None
    if not reference.exists():
        cause = f"{reference}: is not there, and has the tokens that this launch scores"
        return Cause("no_reference", cause, "measure it first: `snakemake` does, a Kubernetes Job has to come after it")
    try:
        _, rows = read_scores(reference)
    except UserError as error:
        return Cause("no_reference", error.problem, error.remedy)
    if any(row.token_ids is not None for row in rows):
        return None
    return Cause(
        "no_reference", f"{scores_path(reference)}: has no tokens", "move it away with its record, and run again"
    )


HOOKS = Hooks(obstacle=obstacle)
