"""What a launch script gives to its trainer: the words that bash itself gives to it, or words that are not known."""

import os
import subprocess
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rollout_bench.trainers.shell import commands, with_values

NAMES = ("A", "B", "N")
TEXTS = ("8", "x", "two words", "a.b=1", "")


def quoted(part: str) -> str:
    return f'"{part}"'


NAME, NUMBER = st.sampled_from(NAMES), st.integers(0, 9).map(str)
REFERENCE = st.one_of(
    NAME.map("${}".format),
    NAME.map("${{{}}}".format),
    st.builds("${{{}{}{}}}".format, NAME, st.sampled_from(("-", ":-")), NUMBER),
    st.builds("$(({} * {}))".format, st.one_of(NUMBER, st.just("N")), NUMBER),
    st.just("$(echo 7)"),  # what a command prints is not known
)
VALUE = st.one_of(
    st.sampled_from(TEXTS).map(quoted), NUMBER, REFERENCE.map(quoted), REFERENCE, st.just("'$A'"), st.just(r"x\ y")
)
ASSIGNMENT = st.one_of(
    st.builds("{}{}={}".format, st.sampled_from(("", "export ")), st.sampled_from(("A", "B")), VALUE),
    st.builds("N={}".format, NUMBER),
    st.builds("ARGS{}=({} {})".format, st.sampled_from(("", "+")), VALUE, VALUE),
    st.builds("A+={}".format, VALUE),
    st.just("unset B"),
    st.builds(': "${{{}{}{}}}"'.format, NAME, st.sampled_from(("=", ":=")), NUMBER),
)
WITHOUT_EFFECT = st.sampled_from(("# A=4", "cat > /dev/null <<END\nA=9\nEND"))
CONDITION = st.one_of(
    st.builds('[ "${}" = "{}" ]'.format, NAME, st.sampled_from(TEXTS)),
    st.builds('[[ -{} "${}" ]]'.format, st.sampled_from("nz"), NAME),
    st.builds("[ $N -{} {} ]".format, st.sampled_from(("gt", "le", "eq")), NUMBER),
    st.builds("! [ $N -eq {} ]".format, NUMBER),
    st.sampled_from(("true", "false", "grep -q x /dev/null")),
)


def branches(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("if {}; then\n{}\nelse\n{}\nfi".format, CONDITION, inner, inner),
        st.builds("if {}; then {}; elif {}; then {}; fi".format, CONDITION, ASSIGNMENT, CONDITION, ASSIGNMENT),
        st.builds('case "${}" in\n8|x) {} ;;\n*) {} ;;\nesac'.format, NAME, ASSIGNMENT, ASSIGNMENT),
        st.builds("for each in 1 2; do\n{}\ndone".format, inner),
        st.builds("change() {{\n{}\n}}\nchange".format, inner),
        st.builds("({})".format, ASSIGNMENT),
        st.builds("{} && {}".format, CONDITION, ASSIGNMENT),
        st.builds("{} || {}".format, CONDITION, ASSIGNMENT),
        st.builds("{}\n{}".format, inner, inner),
    )


STATEMENTS = st.recursive(ASSIGNMENT, branches, max_leaves=5)
WORDS = st.lists(
    st.one_of(
        REFERENCE.map(quoted), st.builds("key={}".format, VALUE), st.sampled_from(('"${ARGS[@]}"', "${ARGS[@]}"))
    ),
    min_size=1,
    max_size=4,
)
SCRIPT = st.lists(st.one_of(ASSIGNMENT, STATEMENTS, WITHOUT_EFFECT), max_size=6)


@settings(max_examples=400)
@given(before=SCRIPT, words=WORDS, wrapped=st.booleans())
@example(before=["A=8", "if [ $A = 8 ]; then B=1; fi"], words=['"$B"'], wrapped=False)
def test_words_are_those_of_bash_or_not_known(before: list[str], words: list[str], wrapped: bool) -> None:
    between = " \\\n  " if wrapped else " "
    script = "\n".join(["ARGS=()", *before, f"trainer begin {between.join(words)} end 2>&1", ""])
    theirs = told_by_bash(script)
    found = commands(script)
    last = max(place for place, command in enumerate(found) if command.words[0].text == "trainer")
    ours = with_values(found, last)[last][1:]
    known = [word.text for word in ours if not word.variable]
    if len(known) == len(ours):
        assert known == theirs, script
    else:
        rest = iter(theirs)
        assert all(word in rest for word in known), script


def told_by_bash(script: str) -> list[str]:
    """Return the words that bash gives to the command `trainer`."""
    define = "trainer() { printf '%s\\0' \"$@\"; }\n"
    done = subprocess.run(
        ["bash", "-c", f"{define}{script}"],
        capture_output=True, env={"PATH": os.environ["PATH"], "HOME": str(Path.home())}, check=True, text=True,
    )  # fmt: skip
    return done.stdout.split("\0")[:-1]
