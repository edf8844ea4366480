"""Draw docs/images, and the example of a summary, from the records in studies/results with the code of today.

`python studies/figures.py` writes them. The same records and code give the same bytes.
"""

import argparse
import functools
from pathlib import Path

from kept import REPOSITORY, RESULTS

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.core.files import write_whole
from rollout_bench.report.pack import opened
from rollout_bench.report.state import plan_of_summary
from rollout_bench.report.summary import Summary, summary_of

IMAGES = REPOSITORY / "docs" / "images"

FIGURES = {
    "drafts": ("h200-speculation", "drafts"),
    "h100-placement": ("h100-placement-8b", "placement"),
    "speedup": ("demo-avx512", "speedup"),
}
"""Image -> its archive in studies/results, and the figure of a summary that it is."""

EXAMPLE = REPOSITORY / "docs" / "examples" / "demo.html", "demo-avx512"
"""The example of a summary, and its archive."""


@functools.cache
def summary(archive: str) -> Summary:
    """Return the summary of an archive in studies/results, with figures."""
    folder = opened(RESULTS / f"{archive}.tar.xz")
    plan = plan_of_summary(folder)
    assert plan is not None
    # What a kit had no time for is missing for good: docs/results.md has the numbers of launches.
    measured = {one.key: len([*folder.glob(f"*/{one.experiment}/launch-*.json")]) for one in plan.experiments}
    kept = [one.model_copy(update={"launches": measured[one.key]}) for one in plan.experiments]
    return summary_of(folder, collect(folder, plan.model_copy(update={"experiments": kept})), drawn=True)


def drawn() -> dict[Path, bytes]:
    """Return the contents of the images and of the example."""
    images = {
        IMAGES / f"{image}.svg": next(
            picture.drawn.svg for picture in summary(archive).pictures if picture.name == figure
        )
        for image, (archive, figure) in FIGURES.items()
    }
    path, archive = EXAMPLE
    return {**images, path: summary(archive).placed(Path(), Path("figures")).html.encode()}


def main() -> None:
    """Write the images and the example."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for path, content in drawn().items():
        write_whole(path, content)
    for path in sorted(IMAGES.glob("*")):
        print(f"{path.relative_to(REPOSITORY)}{'' if path.stem in FIGURES else ': from no archive, remove it'}")


if __name__ == "__main__":
    main()
