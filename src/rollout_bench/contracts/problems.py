"""Kinds of problems of launches: flags of those that have a record, and failures of those that have none."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FlagKind:
    """A kind of flag, with what pages and summaries say of it.

    Args:
        code: its short name in records.
        severity: I for invalid, W for a warning; "W, I" if it has a limit for each.
        found: what was found.
        raised_if: what was found with its limits; empty if `found` says it.
        remedy: what to do, in Markdown; empty if there is nothing to do.
        disturbs: whether others disturbed the machine.
        mended_by: what to change first, because the same launch would be invalid again; empty if it need not.
        if_all: what follows if all launches have it; empty if nothing is known.
    """

    code: str
    severity: str
    found: str
    raised_if: str = ""
    remedy: str = ""
    disturbs: bool = False
    mended_by: str = ""
    if_all: str = ""


@dataclass(frozen=True)
class FailureKind:
    """A kind of failure.

    Args:
        category: its short name in failure files.
        remedy: what to do beyond the fix that a failure names, in Markdown; empty if that suffices.
        of_node: whether the experiment does not cause it: the same launch may succeed on another node.
    """

    category: str
    remedy: str = ""
    of_node: bool = False
