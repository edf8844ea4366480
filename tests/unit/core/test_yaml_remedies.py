"""A config that is no YAML is refused at the line of the mistake, and what the remedy says makes it one."""

from pathlib import Path

import pytest
import yaml
from refusals import refused

from rollout_bench.core.yaml_files import value_in
from rollout_bench.core.yaml_remedies import mistake_in
from rollout_bench.plan.config_file import check_config_file, read_config

MISTAKES = [
    # what is written, where the mistake is, the remedy, what is written then
    ("a: {b: 1\nc: [d]\n", "line 1, column 4", "write } where its values end", "a: {b: 1}\nc: [d]\n"),
    ("a: {b: {c: 1}\nd: 2\n", "line 1, column 4", "write } where", "a: {b: {c: 1}}\nd: 2\n"),
    ("a: 1\nb: [c, d\n", "line 2, column 4", "write ] where its values end", "a: 1\nb: [c, d]\n"),
    ("a: [b, c}\n", "line 1, column 9", "write ]", "a: [b, c]\n"),
    ("a: {b: {c:", "line 1, column 8", "write } where its values end", "a: {b: {c: }}"),
    ("a: {b: ]\n", "line 1, column 8", "write }", "a: {b: }\n"),
    ("a: [b, , c]\n", "line 1, column 8", "leave the comma out", "a: [b, c]\n"),
    ("a: {b: 1 c: 2}\n", "line 1, column 11", "separate values by commas", "a: {b: 1, c: 2}\n"),
    ("a: {bf16: hub: Q/w-3}\n", "line 1, column 11", "write hub:Q/w-3", "a: {bf16: hub:Q/w-3}\n"),
    ("a: hub: Q/w-3\n", "line 1, column 4", "write hub:Q/w-3", "a: hub:Q/w-3\n"),
    ("a: {b: 1}}\n", "line 1, column 10", "leave it out", "a: {b: 1}\n"),
    ('a: "b\nc: 1\n', "line 1, column 4", 'write " where the value ends', 'a: "b"\nc: 1\n'),
    ('a: "b\nc: 1\nd: "e"\n', "line 1, column 4", 'write " where the value ends', 'a: "b"\nc: 1\nd: "e"\n'),
    ("a: 'b\nc: 'd'\n", "line 1, column 4", "write ' where the value ends", "a: 'b'\nc: 'd'\n"),
    ("a:\n\tb: 1\n", "line 2, column 1", "write spaces instead of the tab", "a:\n  b: 1\n"),
    ("a:\t1\n", "line 1, column 3", "write spaces instead of the tab", "a: 1\n"),
    ("a: 1\nb [c]\nd: 2\n", "line 2, column 1", "write b: [c]", "a: 1\nb: [c]\nd: 2\n"),
    ("a 3\nb: [c]\n", "line 1, column 1", "write a: 3", "a: 3\nb: [c]\n"),
    ("b: [c]\n\n# d\na 3\n", "line 4, column 1", "write a: 3", "b: [c]\n\n# d\na: 3\n"),
    ("# d\na = 3  # e\nb = 4\n", "line 2, column 1", "write a: 3", "a: 3\nb: 4\n"),
    ("a=3\nb: [c]\n", "line 1, column 1", "write a: 3", "a: 3\nb: [c]\n"),
    ("b: [c]\na = 3\n", "line 2, column 1", "write a: 3", "b: [c]\na: 3\n"),
    ("a\n  b: 1\nc: 2\n", "line 1, column 1", "write a:", "a:\n  b: 1\nc: 2\n"),
    ("a:\n  - b\n  c\nd: 2\n", "line 3, column 3", "write - c", "a:\n  - b\n  - c\nd: 2\n"),
    ("a: 1\n b: 2\n", "line 2, column 2", "in the column of line 1", "a: 1\nb: 2\n"),
    ("a:\n  b: 1\n\n c: 2\n", "line 4, column 2", "in the column of line 2", "a:\n  b: 1\n\n  c: 2\n"),
    ("a:\n- b\n  c: [d]\n", "line 3, column 3", "in the column of line 1", "a:\n- b\nc: [d]\n"),
    ("a: b: c\n", "line 1, column 5", "quote it: 'b: c'", "a: 'b: c'\n"),
    ("a: %b # c\n", "line 1, column 4", "quote it: '%b'", "a: '%b' # c\n"),
    ("a: *b\n", "line 1, column 4", "quote the value", "a: '*b'\n"),
    ("a: - b\n", "line 1, column 4", "write a list in brackets", "a: [b]\n"),
    ('a: "\\d"\n', "line 1, column 6", "write single quotes", "a: '\\d'\n"),
    ("a: 1\n---\nb: 2\n", "line 2, column 1", "leave the line --- out", "a: 1\nb: 2\n"),
    ("a: [@b]\n", "line 1, column 5", "quote it: '@b'", "a: ['@b']\n"),
    ("a: [b, `c`, d]\n", "line 1, column 8", "quote it: '`c`'", "a: [b, '`c`', d]\n"),
    ("a: {@b: c}\n", "line 1, column 5", "quote it: '@b'", "a: {'@b': c}\n"),
    ("a: b: 1, c: 2}\nd: 3\n", "line 1, column 4", "write a: {b: 1, c: 2}", "a: {b: 1, c: 2}\nd: 3\n"),
    ("a: b: {c: 1}\n", "line 1, column 4", "write a: {b: {c: 1}}", "a: {b: {c: 1}}\n"),
    ("a: {b: 1}, c: 2}\n", "line 1, column 10", "write a: {b: 1, c: 2}", "a: {b: 1, c: 2}\n"),
    ("a: {b: 1} c: 2 # d\n", "line 1, column 11", "write a: {b: 1, c: 2}", "a: {b: 1, c: 2} # d\n"),
    ("a: sk-hushhushhushhush1: c\n", "line 1, column 24", "quote it: 'VALUE'", "a: 'b'\n"),
]


def assert_mended(folder: Path, text: str, problem: str, remedy: str, mended: str) -> None:
    """Assert that a config of `text` is refused in these words, and read once it is `mended`."""
    path = folder / "config.yaml"
    path.write_text(text)
    with refused(problem, remedy):
        check_config_file(path)
    path.write_text(mended)
    check_config_file(path)


@pytest.mark.parametrize(("text", "place", "remedy", "mended"), MISTAKES)
def test_what_is_no_yaml_is_refused_at_its_line_and_the_remedy_mends_it(
    tmp_path: Path, text: str, place: str, remedy: str, mended: str
):
    assert_mended(tmp_path, text, f"{place}: is not valid YAML: ", remedy, mended)
    assert value_in(mended)


SLIPS = [
    ("a:\n -b\n -c\nd: 1\n", "line 2, column 2", "a space after the dash: - b", "a:\n - b\n - c\nd: 1\n"),
    ("a:\n  -b # c\n", "line 2, column 3", "a space after the dash: - b", "a:\n  - b # c\n"),
    ("a: {b: 1,2,3, c: 4}\n", "line 1, column 5", "write b: [1, 2, 3]", "a: {b: [1, 2, 3], c: 4}\n"),
    ("a:\n- {b: c}\n- {d: 0.5, 1}\n", "line 3, column 4", "write d: [0.5, 1]", "a:\n- {b: c}\n- {d: [0.5, 1]}\n"),
    ("a: \N{LEFT DOUBLE QUOTATION MARK}b\N{RIGHT DOUBLE QUOTATION MARK}\n", "line 1, column 4", "straight quotes: 'b'",
     "a: 'b'\n"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "remedy", "mended"), SLIPS)
def test_what_is_yaml_of_another_value_than_it_looks_like_is_refused(
    tmp_path: Path, text: str, place: str, remedy: str, mended: str
):
    assert_mended(tmp_path, text, f"{place}: ", remedy, mended)
    assert value_in(mended) != value_in(text)


@pytest.mark.parametrize(
    "text", ["a: -b\n", "a: '-b'\n", "a: {b: 1, c: , 2: d}\n", "a:\n  '-b'\n", "a: &b [1]\nc: *b\n"]
)
def test_values_that_only_look_like_a_slip_are_read(tmp_path: Path, text: str):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    check_config_file(path)


def test_a_config_below_a_key_is_told_to_begin_at_the_top():
    with refused("mine: there is no such key", "put its keys at the top level: leave the line mine: out"):
        read_config({"mine": {"platform": "cpu", "models": ["a"], "quants": ["bf16"]}})


def test_an_item_beside_its_key_is_a_list_without_its_dash():
    with refused("quants: is the single value", "write quants: [bf16]"):
        read_config({"models": ["a"], "quants": "-bf16"})


def test_no_cut_and_no_wrong_sign_is_a_traceback() -> None:
    text = "a: {b: [1, 'c'], \"d\": {e: 2}}\nf:\n  - g: *h # i\n  - j\n"
    damaged = [text[:place] for place in range(len(text))]
    damaged += [text[:place] + sign + text[place + 1 :] for place in range(len(text)) for sign in "[]{},:'\"*-\t\n"]
    for each in damaged:
        try:
            value_in(each)
        except yaml.MarkedYAMLError as error:
            mistake_in(each, error)
