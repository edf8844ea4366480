"""The images of the documentation are drawn from records that are kept."""

import re

from docs_pages import REPOSITORY, pages
from figures import EXAMPLE, FIGURES, IMAGES, summary
from kept import RESULTS


def test_each_image_of_a_page_is_drawn_from_records_that_are_kept():
    shown = {name for page in pages() for name in re.findall(r"images/([\w-]+)\.svg", page.read_text())}
    assert {path.stem for path in IMAGES.iterdir()} == shown == set(FIGURES)
    archives = {archive for archive, _ in FIGURES.values()} | {EXAMPLE[1]}
    assert [archive for archive in archives if not (RESULTS / f"{archive}.tar.xz").exists()] == []


def test_the_picture_of_the_readme_says_its_conclusion():
    (title,) = (one.title for one in summary("h100-placement-8b").pictures if one.name == "placement")
    assert title == "apart: a step is 0.668x as fast as colocated [0.637, 0.700]"
    assert "0.67x [0.64, 0.70]" in (REPOSITORY / "README.md").read_text()
