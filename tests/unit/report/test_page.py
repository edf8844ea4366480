"""summary.html: one file with all in it, that asks no network for anything."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_online import make_online, make_online_spec, save_online
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Flag
from rollout_bench.report.figures.save import save_figures
from rollout_bench.report.page import with_pictures
from rollout_bench.report.summary import summarise

BF16, W8A8 = make_spec(quant="bf16"), make_spec(quant="w8a8")
BUSY = Flag(code="cpu_shared", severity="invalid", sentence="Others used the cores.")
ODD = Flag(code="not_steady", severity="warning", sentence="Slower & <slower>.")


class Page(HTMLParser):
    """Headings, targets of the contents, sources of pictures, and what stands open or folded."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if tag == "a" else []
        self.sources += [found[name] or "" for name in ("src", "data") if name in found]
        if tag not in ("meta", "img", "br", "link", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def html_of(results: Path) -> str:
    records = [make_record(spec, launch, flags=[ODD] if launch else []) for spec in (BF16, W8A8) for launch in range(2)]
    save(results, *records)
    collection = collect(results, make_plan([BF16, W8A8], launches=2))
    (results / "summary.html").write_text(summarise(collection).html)
    save_figures(results, collection, results / "figures", page=results / "summary.html")
    return (results / "summary.html").read_text()


def test_the_page_is_whole_and_its_contents_lead_to_all_of_it(tmp_path: Path) -> None:
    page = Page(html_of(tmp_path))
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    inside = [link for link in page.links if link.startswith("#")]
    assert len(inside) > 3
    assert {link.removeprefix("#") for link in inside} <= set(page.ids)


def test_it_asks_nobody_for_anything(tmp_path: Path) -> None:
    html = html_of(tmp_path)
    page = Page(html)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert not re.search(r"https?:|url\(|@import|<link", html)


def test_pictures_are_inside_after_the_conclusion_and_once_however_often_they_are_drawn(tmp_path: Path) -> None:
    first, again = html_of(tmp_path), html_of(tmp_path)
    # the last digits in a picture hang on what the solver of its layout found
    assert len({re.sub(r'base64,[^"]*', "", html) for html in (first, again)}) == 1
    for name in ("throughput", "speedup", "iterations"):
        assert first.count(f'id="figure-{name}"') == 1
    assert first.index('<section id="throughput-offline') > first.index('id="figure-throughput"')


@pytest.mark.parametrize("valid", ["none", "baseline", "offline"])
def test_no_figure_of_which_no_launch_is_valid_is_shown_though_files_of_all_are_there(
    tmp_path: Path, valid: str
) -> None:
    offline = [make_spec(quant=quant) for quant in ("bf16", "w8a8", "fp8")]
    for spec in offline:
        sound = valid == "offline" or (valid == "baseline" and spec == BF16)
        save(tmp_path, make_record(spec, flags=[] if sound else [BUSY]))
    online = make_online_spec(points=[LoadPoint(concurrency=8)])
    save_online(tmp_path, make_online(online, flags=[BUSY]))
    shown = {
        "none": set(),
        "baseline": {"throughput", "iterations"},
        "offline": {"throughput", "iterations", "speedup"},
    }[valid]
    collection = replace(collect(tmp_path, None), baseline={"quant": "bf16"})
    summary = summarise(collection, figures=True)
    assert set(re.findall(r"figures/(\w+)\.svg", summary.markdown)) == shown - {"iterations"}
    before = {"speedup": b"<svg/>", "latency": b"<svg/>"}  # as an earlier state had them
    (tmp_path / "summary.html").write_text(with_pictures(summary.html, before))
    names = ["throughput", "speedup", "iterations", "latency"]
    save_figures(tmp_path, collection, tmp_path / "figures", names, tmp_path / "summary.html")
    assert set(re.findall(r'id="figure-(\w+)"', (tmp_path / "summary.html").read_text())) == shown
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == set(names)
    assert set(save_figures(tmp_path, collection, tmp_path / "by-hand")) == shown


def test_what_tables_rest_on_is_folded_and_what_is_wrong_is_not(tmp_path: Path) -> None:
    html = html_of(tmp_path)
    flags = html[html.index('<section id="flags">') :].partition("</section>")[0]
    assert "<details>" in flags
    assert "Slower &amp; &lt;slower&gt;." in flags
    incomplete = make_plan([BF16, W8A8], launches=3)
    missing = summarise(collect(tmp_path, incomplete)).html
    part = missing[missing.index('<section id="missing">') :].partition("</section>")[0]
    assert "<details>" not in part
    assert "<blockquote>" in missing


def test_a_page_that_is_not_ours_is_left_as_it_is(tmp_path: Path) -> None:
    save(tmp_path, make_record(BF16))
    (tmp_path / "summary.html").write_text("<p>mine</p>")
    collection = collect(tmp_path, make_plan([BF16], launches=1))
    save_figures(tmp_path, collection, tmp_path / "figures", page=tmp_path / "summary.html")
    assert (tmp_path / "summary.html").read_text() == "<p>mine</p>"
