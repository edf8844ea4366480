"""Refusals as rows of data: a condition, the problem with its place in the config, and the remedy."""

from rollout_bench.core.errors import UserError

Row = tuple[object, str, str]
"""A condition, the problem and the remedy, which count if the condition holds."""


def first_of(*rows: Row) -> tuple[str, str] | None:
    """Return problem and remedy of the first row whose condition holds; None if there is none."""
    return next(((problem, remedy) for holds, problem, remedy in rows if holds), None)


class UnmeasurableError(UserError):
    """A combination that cannot be measured: it is skipped, with the reason."""


def refuse(*rows: Row, error: type[UserError] = UserError) -> None:
    """Refuse the config, or with `UnmeasurableError` one combination, if the condition of a row holds.

    Raises:
        UserError: with the problem and the remedy of the first such row.
    """
    found = first_of(*rows)
    if found is not None:
        raise error(f"config: {found[0]}", found[1])
