"""Pages as a reader has them, opened in a real Chromium without a network: summary.html, and the documentation."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stand_in
from playwright.sync_api import Browser, Page, sync_playwright
from workspace import with_stand_in

REQUIRED = "ROLLOUT_BENCH_TESTS_NEED_CHROMIUM"
"""Set where tests must fail, not be skipped, if there is no Chromium: .ci/run sets it."""

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

PATIENCE_MS = 60_000
"""How long a busy machine may take until something is rendered."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium as it is installed, without a window."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        end = pytest.fail if REQUIRED in os.environ else pytest.skip
        end("no Chromium here; to run them: apt-get install chromium, then make test")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def sent(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the page of three launches of two quants to a folder of its own, as somebody has it to whom it was sent."""
    space = with_stand_in(tmp_path_factory.mktemp("page"), **{**stand_in.IN_BLOCKS, "launches": 3})
    space.ran()
    return Path(shutil.copy(space.path / "results" / "summary.html", tmp_path_factory.mktemp("sent")))


@contextlib.contextmanager
def opened(browser: Browser, path: Path, **more: Any) -> Iterator[tuple[Page, list[str], list[str]]]:
    """Open a file on a screen of 1280 x 900, or as `more` says; yield the page, its errors, and requests beyond it."""
    errors, requests = list[str](), list[str]()
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | more)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(("data:", "blob:")) else requests.append(asked.url))
    try:
        page.goto(path.as_uri(), wait_until="load", timeout=PATIENCE_MS)
        yield page, errors, requests
    finally:
        context.close()


def brightness(page: Page, property_: str) -> float:
    """Return how bright a colour of the page's body is, from 0 to 255."""
    colour = page.evaluate(f"getComputedStyle(document.body).{property_}")
    channels = [float(number) for number in re.findall(r"[\d.]+", colour)]
    assert len(channels) == 3, f"{colour} lets something through"
    return sum(channels) / 3


def test_the_conclusion_is_the_first_thing_that_is_read(browser: Browser, sent: Path):
    with opened(browser, sent) as (page, *_):
        assert (page.locator("h2").all_inner_texts()[0], page.locator("figure").count()) == ("Conclusion", 3)
        for image in page.locator("figure img").all():
            assert image.evaluate("image => image.complete && image.naturalWidth > 300")
        conclusion = page.locator("section#conclusion")
        page.set_viewport_size({"width": 400, "height": 900})
        headline = conclusion.locator("strong").bounding_box()
        assert headline["y"] + headline["height"] < 900, "on a telephone one has to scroll to read it"
        page.set_viewport_size({"width": 1280, "height": 900})
        box = conclusion.bounding_box()
        assert box["y"] + box["height"] < 900, "one has to scroll to read it"
        assert len(conclusion.locator("li").all_inner_texts()) in range(6)
        assert "w8a8" in conclusion.inner_text()
        for below in (page.locator("figure").first, page.locator("table").first):
            assert box["y"] + box["height"] <= below.bounding_box()["y"]


def test_the_explorer_chooses_sorts_hides_and_links(browser: Browser, sent: Path):
    with opened(browser, sent) as (page, errors, _):
        page.locator("#explorer summary").click()
        rows, ratios = page.locator("#explorer tbody tr"), page.locator("#explorer tbody td:nth-child(3)")
        assert rows.count() == 2
        assert "x" in " ".join(ratios.all_inner_texts())
        assert page.locator("#explorer circle").count() == 6
        for number in page.locator("#explorer select[name=number] option").evaluate_all("all => all.map(o => o.value)"):
            page.locator("#explorer select[name=number]").select_option(number)
            assert rows.count() == 2
        page.locator("#explorer select[name=number]").select_option("startup_s")
        page.locator("#explorer th button").first.press("Enter")
        names = page.locator("#explorer tbody td:first-child").all_inner_texts()
        assert names == sorted(names)
        rows.first.locator("button").click()
        assert page.locator("#explorer tbody td:first-child").all_inner_texts() == names[1:]
        link = page.url
        with page.expect_download() as saved:
            page.locator("#explorer button[name=save]").click()
        assert "<svg" in saved.value.path().read_text()
        assert errors == []
        page.goto("about:blank")
        page.goto(link)
        assert page.locator("#explorer tbody td:first-child").all_inner_texts() == names[1:]
        assert page.locator("#explorer select[name=number]").input_value() == "startup_s"


def test_on_a_telephone_all_columns_are_in_sight(browser: Browser, sent: Path):
    with opened(browser, sent) as (page, *_):
        page.set_viewport_size({"width": 400, "height": 900})
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
        # a path that a flag names may be longer than the page is wide
        page.evaluate("document.querySelector('section li').append('qwen3_bf16_demo'.repeat(19))")
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        assert page.locator("table").count() == page.locator(".wide > table").count() > 0
        inside = "boxes => boxes.every(box => box.scrollWidth <= box.clientWidth)"
        assert page.locator("#tables .wide").evaluate_all(inside)
        assert page.locator("#tables td >> visible=true").count() == page.locator("#tables td").count() > 0


def test_a_finger_opens_what_columns_and_flags_mean(browser: Browser, sent: Path):
    telephone = {"viewport": {"width": 400, "height": 900}, "has_touch": True, "is_mobile": True}
    with opened(browser, sent, **telephone) as (page, *_):
        page.locator("nav a", has_text="Notes").tap()
        assert page.url.endswith("#notes")
        heads = page.locator("#tables th").evaluate_all("heads => heads.map((head) => head.title)")
        defined = next(place for place, title in enumerate(heads) if title)
        page.locator("#tables tbody tr").first.locator("td").nth(defined).tap()
        assert page.locator(".note").inner_text() == heads[defined]
        page.locator("h1").tap()
        assert page.locator(".note").is_hidden()


def test_nothing_fails_and_no_network_is_asked(browser: Browser, sent: Path):
    with opened(browser, sent) as (page, errors, requests):
        page.mouse.wheel(0, 100_000)
        page.emulate_media(color_scheme="dark")
        page.wait_for_load_state("networkidle")
        assert (errors, requests) == ([], [sent.as_uri()])


def test_dark_and_light_are_different_and_both_can_be_read(browser: Browser, sent: Path):
    with opened(browser, sent) as (page, *_):
        pages = {}
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            pages[scheme] = brightness(page, "backgroundColor")
            assert abs(pages[scheme] - brightness(page, "color")) > 100
        assert pages["dark"] < 64 < 192 < pages["light"]
