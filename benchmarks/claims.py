"""What the project promises of its own overhead, each promise with the times that were taken for it."""

from __future__ import annotations

from dataclasses import dataclass

from timing import Times


@dataclass(frozen=True)
class Claim:
    """One thing that is timed, against a bare workflow or by itself.

    Attributes:
        what: what is timed.
        limit: how many times as long as the bare workflow, or how many seconds where there is none;
            None where nothing is promised.
        times: of this project.
        bare: of the bare workflow that took turns with it.
    """

    what: str
    limit: float | None
    times: Times
    bare: Times | None = None

    @property
    def value(self) -> float:
        """What the limit is set for: the ratio of the medians on the wall clock, or their seconds."""
        return self.times.median_s / self.bare.median_s if self.bare else self.times.median_s

    @property
    def ratio(self) -> str:
        """`1.60 times (1.70 in processor time)`, or nothing where there is no bare workflow."""
        if not self.bare:
            return ""
        processor = self.times.median_processor_s / self.bare.median_processor_s
        return f"{self.value:.2f} times ({processor:.2f} in processor time)"

    @property
    def promise(self) -> str:
        """The limit in words."""
        if self.limit is None:
            return "none"
        return f"at most {self.limit:g} times" if self.bare else f"under {self.limit:g} s"

    @property
    def verdict(self) -> str:
        """The promise and whether it is kept."""
        if self.limit is None:
            return "nothing promised"
        return f"{self.promise}: {'kept' if self.value <= self.limit else 'NOT KEPT'}"

    def line(self) -> str:
        """Return the claim in a line for a terminal."""
        parts = [f"{self.what}: {self.times.spread}"]
        if self.bare:
            parts += [f"bare Snakemake {self.bare.spread}", self.ratio]
        return ", ".join([*parts, self.verdict])
