"""A config file that can't be read, or would never be read to its end, is told in two lines at once."""

import time
from pathlib import Path

import pytest

from rollout_bench.core.errors import UserError
from rollout_bench.plan.config_file import check_config_file


def multiplied(first: str, line: str, levels: int = 9) -> str:
    """Return levels of aliases, each ten times the one before: `line` holds NAME, and ALIASES of the level below."""
    text = f"a: &a {first}\n"
    for level in range(1, levels):
        aliases = ", ".join([f"*{chr(96 + level)}"] * 10)
        text += line.replace("NAME", chr(97 + level)).replace("ALIASES", aliases)
    return text


UNREADABLE = {
    "aliases": (multiplied("[x, x]", "NAME: &NAME [ALIASES]\n"), "holds more than 100,000 values"),
    "merged_keys": (multiplied("{x: 1}", "NAME: &NAME {<<: [ALIASES]}\n"), "holds more than 100,000 values"),
    "itself": ("a: &a [*a]", "holds more than 100,000 values"),
    "deep": (f"a: {'[' * 100_000}{']' * 100_000}", "is nested too deeply for a config"),
    "ten_megabytes": (f"a: {'x' * 10_000_000}", "is larger than 1 MiB"),
    "ten_megabytes_of_two_bytes_each": (f"a: {'ä' * 5_000_000}", "is larger than 1 MiB"),
    "no_such_day": ("a: 2020-13-45", "contains a value that can't be read: month must be in 1..12"),
    "5000_digits": (f"a: {'1' * 5000}", "contains a value that can't be read: Exceeds the limit"),
    "not_a_time": ("a: !!timestamp x", "contains a value that can't be read"),
    "not_utf8": (b"\xff\xfea: 1", "is not UTF-8 text: byte 0 is 0xff"),
    "bracket_open": ("models: [a\nquants: b", "line 2, column 7: is not valid YAML"),
    "tab": ("models:\n\t- a", "line 2, column 1: is not valid YAML"),
    "a_list": ("- a\n- b", "must have keys at its top"),
    "empty": ("", "must have keys at its top"),
    "a_word": ("just words", "must have keys at its top"),
    "key_twice": ("a: 1\na: 2", "key 'a' stands twice"),
    "code": (
        "a: !!python/object/apply:os.system ['touch PWNED']",
        "line 1, column 4: is not valid YAML: could not determine",
    ),
    "template": ("__use_yte__: true\na: ?print('PWNED')", "__use_yte__: a config contains only values, no code"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_config_is_refused_in_two_lines_at_once(tmp_path: Path, name: str):
    text, problem = UNREADABLE[name]
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    began_s = time.process_time()
    with pytest.raises(UserError) as raised:
        check_config_file(path)
    assert time.process_time() - began_s < 10
    first, remedy = str(raised.value).split("\n")
    assert problem in first
    assert "config.yaml" in first
    assert remedy.startswith("  -> ")


def test_a_config_may_use_aliases_merged_keys_and_many_keys(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}\nc:\n" + "".join(f"  k{i}: {i}\n" for i in range(10_000)))
    check_config_file(path)


def test_a_missing_config_file_or_a_folder_is_named(tmp_path: Path):
    for path, problem in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=problem):
            check_config_file(path)
