"""Text that somebody else wrote can do nothing but be read, wherever it is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.core.errors import UserError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("engine died: 50 % \u2265 \u00e9\u4e2d\U0001f600", "engine died: 50 % \u2265 \u00e9\u4e2d\U0001f600"),
        ("two\n\tlines", "two\n\tlines"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("over\rwritten \x9b2J \x00 \x7f", "over\\rwritten \\x9b2J \\x00 \\x7f"),
        ("user\u202etxt.exe \u200b", "user\\u202etxt.exe \\u200b"),
        ("a\x85b\u2028c", "a\\x85b\\u2028c"),
        ("no character: \udc80", "no character: \\udc80"),
    ],
    ids=["letters", "lines", "escapes", "controls", "bidi", "separators", "surrogate"],
)
def test_what_a_terminal_obeys_is_shown_instead(text: str, shown: str):
    assert printable(text) == shown
    assert printable(shown) == shown


@given(st.text(st.characters(), max_size=50), st.integers(10, 40))
def test_anything_becomes_short_and_harmless(text: str, most: int):
    shown = printable(text, most)
    assert len(shown) <= most
    assert all(character.isprintable() or character in "\n\t" for character in shown)
    shown.encode()


def test_a_long_text_is_cut_without_being_read_whole():
    assert printable("a" * 300) == "a" * 300
    assert printable("a" * 301) == "a" * 297 + "..."
    assert len(printable("\x1b" * 50_000_000)) == 300  # in no time, though each becomes four


def test_an_error_of_a_user_holds_no_escape_sequence():
    error = UserError("lease of \x1b[2J\x07 is taken\nby it", "ask \u202eresu")
    assert str(error) == "lease of \\x1b[2J\\x07 is taken by it\n  -> ask \\u202eresu"
