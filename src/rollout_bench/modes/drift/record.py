"""The record of a drift launch: probabilities of the reference's tokens."""

from pathlib import Path

from pydantic import Field

from rollout_bench.contracts.fields import Strict, absent
from rollout_bench.contracts.record import Launched
from rollout_bench.contracts.side_files import ROWS_REMEDY, read_rows
from rollout_bench.contracts.store import read_as
from rollout_bench.modes.drift import SCORES


class ScoredRow(Strict):
    """One sequence with the probabilities of its tokens from an engine: a line of the side file."""

    batch: int | None = absent("Sequences that were scored at once. Null: probabilities from generation.", gt=0)
    sequence: int = Field(ge=0, description="Its number, from 0.")
    logprobs: list[float] = Field(
        min_length=1, description="Natural logarithm of each token's probability at temperature 1."
    )
    first: list[int] = Field(min_length=1, description="The most likely token at each position.")
    prompt_token_ids: list[int] | None = absent("Its prompt. Null if the reference has it.")
    token_ids: list[int] | None = absent("Its tokens after the prompt. Null if the reference has them.")


class Drift(Launched):
    """The record of one drift launch: probabilities of the reference's tokens."""

    tokens_sha256: str = Field(
        pattern="^[0-9a-f]{64}$",
        description=(
            "SHA-256 of the scored prompts and tokens, as JSON without spaces: only launches with the same "
            "tokens are compared."
        ),
    )
    scored_tokens: int = Field(gt=0, description="Tokens that were scored with each batch size, without prompts.")
    scores_file: str = Field(description="Name of the side file beside this one: a row for each sequence and batch.")
    scores: int = Field(gt=0, description="Rows in the side file.")


RECORD, ROWS = Drift, ScoredRow


def scores_path(record: Path) -> Path:
    """Return the side file of `record` with a row for each sequence that was scored."""
    return record.with_suffix(SCORES)


def read_scores(record: Path) -> tuple[Drift, list[ScoredRow]]:
    """Return the record of a drift launch at `record`, and the rows of its side file.

    Raises:
        UserError: as in `contracts.store.read_record` and `contracts.side_files.read_sequences`.
    """
    drift = read_as(record, Drift)
    return drift, read_rows(scores_path(record), drift, ScoredRow, ROWS_REMEDY)
