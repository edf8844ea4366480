"""What a launch script gives to its trainer: the words that bash itself gives to it, or words that are not known."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rollout_bench.trainers.shell import with_values
from rollout_bench.trainers.shell_functions import inlined
from rollout_bench.trainers.shell_words import Word, commands

pytestmark = pytest.mark.slow

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
    st.sampled_from(
        ("unset B", "eval A=5", 'eval "N=$N"', "read B <<< 6", "let N=3", "((N = 2))", "A=~/x", "set -- 5")
    ),
    st.builds(': "${{{}{}{}}}"'.format, NAME, st.sampled_from(("=", ":=")), NUMBER),
)
WITHOUT_EFFECT = st.sampled_from(("# A=4", "cat > /dev/null <<END\nA=9\nEND"))
CONDITION = st.one_of(
    st.builds('[ "${}" = "{}" ]'.format, NAME, st.sampled_from(TEXTS)),
    st.builds('[[ -{} "${}" ]]'.format, st.sampled_from("nz"), NAME),
    st.builds("[ $N -{} {} ]".format, st.sampled_from(("gt", "le", "eq")), NUMBER),
    st.builds("! [ $N -eq {} ]".format, NUMBER),
    st.builds('[[ $N == {} || -z "${}" && ! $N -gt 5 ]]'.format, NUMBER, NAME),
    st.builds("((N > {}))".format, NUMBER),
    st.builds('[ $N = {} ] && [ -n "${}" ]'.format, NUMBER, NAME),
    st.sampled_from(("true", "false", "grep -q x /dev/null")),
)


def branches(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("if {}; then\n{}\nelse\n{}\nfi".format, CONDITION, inner, inner),
        st.builds("if {}; then {}; elif {}; then {}; fi".format, CONDITION, ASSIGNMENT, CONDITION, ASSIGNMENT),
        st.builds('case "${}" in\n8|x) {} ;;\n*) {} ;;\nesac'.format, NAME, ASSIGNMENT, ASSIGNMENT),
        st.builds('case "${}" in [0-4]) {};; *) {};& 7) :;; esac'.format, NAME, ASSIGNMENT, ASSIGNMENT),
        st.builds("{} && {{ {}; {}; }}".format, CONDITION, ASSIGNMENT, ASSIGNMENT),
        st.builds("{} && {} || {}".format, CONDITION, ASSIGNMENT, ASSIGNMENT),
        st.builds("{} || if {}; then {}; fi".format, CONDITION, CONDITION, ASSIGNMENT),
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
FUNCTION = st.one_of(
    st.just(""),
    st.sampled_from(
        (
            'run() { trainer begin "$@"; }',
            'function run {\n  shift\n  trainer begin "$@"\n}',
            'run() { echo $A >/dev/null; trainer "begin" "$@" last=$1; }',
            'run() { A=7; N=$1; trainer begin x=$A n="$N" "$@"; }',
            "run() { trainer begin $@; }",
            'run() { trainer begin "$2" ${1} "$#"; }',
            'run() { ARGS+=("$1"); trainer begin "${ARGS[@]}" "$@"; }',
            'run() { if true; then trainer begin "$@"; fi; }',
            'inner() { trainer begin i=$1 "$@"; }\nrun() { inner 9 "$@"; }',
            'run() { local A=3; trainer begin "$A" "$@"; }',
            'run() { local Q=$1; shift; trainer begin "q=$Q" "$@"; }',
        )
    ),
)
SCRIPT = st.lists(st.one_of(ASSIGNMENT, STATEMENTS, WITHOUT_EFFECT), max_size=6)


@settings(max_examples=400)
@given(before=SCRIPT, words=WORDS, wrapped=st.booleans(), function=FUNCTION)
@example(before=["A=8", "if [ $A = 8 ]; then B=1; fi"], words=['"$B"'], wrapped=False, function="")
@example(before=['eval "N=$N"', "ARGS+=(8)"], words=['"${ARGS[@]}"'], wrapped=False, function="")
def test_words_are_those_of_bash_or_not_known(
    before: list[str], words: list[str], wrapped: bool, function: str
) -> None:
    between = " \\\n  " if wrapped else " "
    program = "trainer begin"
    if function:
        before, program = [*before, function], "run 4"
    script = "\n".join(["ARGS=()", *before, f"{program} {between.join(words)} end 2>&1", ""])
    theirs, ours = told_by_bash(script), read_here(script)
    known = [word.text for word in ours if not word.variable]
    if len(known) == len(ours):
        assert known == theirs, script
    else:
        rest = iter(theirs)
        assert all(word in rest for word in known), script


def read_here(script: str) -> list[Word]:
    """Return the words that are read for the command `trainer`."""
    found = inlined(commands(script))
    last = max((place for place, command in enumerate(found) if command.words[0].text == "trainer"), default=-1)
    return next(words for words in reversed(with_values(found, last)) if words and words[0].text == "trainer")[1:]


FOLLOWED = [
    "eval N=10",
    'eval "N=10"',
    'x=N; eval "$x=10"',
    "declare N=10",
    "typeset -x N=10",
    'export "N=10"',
    'x="N=10"; export $x',
    "command export N=10",
    "true && N=10",
    "[ 1 = 2 ] || N=10",
    "[[ $N == 4 ]] && N=10",
    "[[ $N == 4* && -n $N ]] && N=10",
    "[[ ! $N == 5 ]] && N=10",
    "[[ $N == 5 || $N -gt 3 ]] && N=10",
    "test $N = 4 && N=10",
    "((N > 3)) && N=10",
    "if ((N > 3)); then N=10; else N=5; fi",
    "if ! test 1 = 2; then N=10; fi",
    '[ "$N" = 5 ] && N=10 || N=11',
    "false && N=5; N=10",
    "[ 1 = 1 ] && { N=10; M=3; }",
    "{ N=10; }",
    "[ $N = 4 ] && N=10 || N=11",
    "false && true || N=10",
    "case $N in 4) N=10;; esac",
    'case "$N" in [0-9]) N=10;; *) N=2;; esac',
    "case ab in a?) N=10;; esac",
    "case x in x) if true; then N=10; fi;; esac",
    "case x in (x) N=10 ;; esac",
    "N=$'10'",
    'N=$"10"',
    "N=~",
    "N=~/x",
    "N=a:~/x:~/y",
    "M=~/x; N=$M/y",
    "N=${M:-~/x}",
    "export N=~/x",
    "N='~/x'",
    'N="~/x"',
    "N=x~/y",
    "N=\\~/x",
    'N=~"/x"',
    "M=${N:+10}; N=$M",
    "N=$((N > 3))",
    ': "${N:=5}" "${M:=10}"; N=$M',
    "read M <<< 'N=5'",
    "N=10; : <<E\nN=5\nE\n",
    "f() { M=1; }; f; N=10",
    "function f { N=10; }; f",
    "f() { eval N=10; }; f",
    "f() { N=$1; }; f 10",
]
"""Changes of N, which is 4 before, that are followed."""

REFUSED = [
    "f() { N=10; }; f | cat; f() { :; }",
    "f() { N=10; }; g() { f; }; trap g EXIT",
    'x=$(echo N=10); eval "$x"',
    "e=eval; $e N=$(echo 10)",
    "command eval N=$(echo 10)",
    "read N <<< 10",
    "read -r M N <<< '1 10'",
    "x=N; read $x <<< 10",
    "mapfile -t N <<< 10",
    "printf -v N 10",
    "printf -vN 10",
    "x=N; printf -v $x 10",
    "x=$(echo N); declare $x=10",
    "let N=10",
    'let "N += 6"',
    "((N=10))",
    "((++N))",
    ": $((N++))",
    "M=$((N=10))",
    "readonly N; N=10 2>/dev/null || true",
    "for N in 10; do :; done",
    "for ((N=0; N < 9; N++)); do :; done",
    "while read -r x; do N=$x; done <<< 10",
    "x=N; unset $x",
    "set -- 10; N=${1:-4}",
    "set -- 3 10; shift; N=${1:-4}",
    "trap 'N=10' DEBUG; :",
    "declare -n R=N; R=10",
    "declare -i N; N+=1",
    "declare -u N; N=abc",
    "shopt -s expand_aliases; alias n='N=10'\nn",
    "N=$(echo 10)",
    "case x in x) M=1;;& *) N=10;; esac",
    "case $(echo x) in x) N=10;; esac",
    "N=$$",
    "N=${PWD:-4}",
    "N=${UID:-4}",
    "REPLY=4; read <<< 10; N=$REPLY",
    "OPTARG=4; getopts n: o -n 10; N=$OPTARG",
    'export "$(echo N=10)"',
    "(N=10)",
    "source <(echo N=10)",
    ". /dev/stdin <<< N=10",
    "[ -f /dev/null ] && N=10",
    "[ -d / ] && . /dev/stdin <<< N=10",
    "N=5 eval 'M=$N'; N=$M",
    "A=(1); unset A; N=${A[0]}",
    "N=$'a\\tb'",
    "N=~root/x",
    "N=$[N+6]",
    "N=$((16#ff))",
    "N=$((9223372036854775807 + 1))",
    "coproc N { :; }; wait",
    "{ N=10; } & wait",
    "{ M=1; N=10; } | cat",
    "if true; then N=10; fi | cat",
    "case x in x) N=10;; esac | cat",
    "true && N=10 & wait",
    "N=10 && true & wait",
    "echo 1 | { read M; N=10; }",
    "echo 1 | if read M; then N=10; fi",
    "for x in 1; do N=10; done | cat",
    "{ { N=10; }; } | cat",
    "shopt -s nocasematch; [[ X == x ]] && N=10",
    "shopt -s nocasematch; case X in x) N=10;; *) N=4;; esac",
]
"""Changes of N that are not."""


@pytest.mark.parametrize("change", FOLLOWED)
def test_what_is_followed_is_as_in_bash(change: str) -> None:
    script = f'N=4\n{change}\ntrainer "$N"\n'
    assert [word.text for word in read_here(script)] == told_by_bash(script)


@pytest.mark.parametrize("change", REFUSED)
def test_what_is_not_followed_leaves_the_value_unknown(change: str) -> None:
    (word,) = read_here(f'N=4\n{change}\ntrainer "$N"\n')
    assert word.variable == "$N"
    assert change.startswith(("(", "N=")) or word.cause.startswith("line ")


@pytest.mark.parametrize(
    "change",
    ["unset A", "A=x", "A[0]=x", "unset 'A[0]'", "read -a A <<< x", "mapfile -t A <<< x", "declare -a A=(x)",
     'eval "A=(x)"', 'x=$(echo "A=(x)"); eval "$x"', "f() { A=(x); }; f", "for i in 1; do A=(x); done", "true && A=(x)",
     "IFS=,; A=(x y)"],
)  # fmt: skip
def test_a_changed_array_is_as_in_bash_or_unknown(change: str) -> None:
    for reference in ('"${A[@]}"', '"${A[*]}"', '"$A"'):
        script = f"A=(4 5)\n{change}\ntrainer {reference}\n"
        ours = read_here(script)
        assert any(word.variable for word in ours) or [word.text for word in ours] == told_by_bash(script), reference


@pytest.mark.parametrize(
    ("start", "is_known"),
    [
        ("bash -c 'trainer $N'", False),
        ("bash -c 'trainer ${N:-3}'", False),
        ("bash -c 'trainer $1' x y", False),
        ("bash -c 'N=$(echo 5); trainer $N'", False),
        ('bash -c "trainer $N"', True),
        ("export N; bash -c 'trainer $N'", True),
        ("N=5 bash -c 'trainer $N'", True),
        ("env N=5 bash -c 'trainer $N'", True),
        ('bash -lc "M=3; trainer $N \\$M"', True),
        ("nohup bash -euxo pipefail -c 'trainer 1' &\nwait", True),
        ('eval "trainer $N"', True),
        ("export N; bash -c 'bash -c \"trainer $N\"'", True),
        ("set -a; N=6; bash -c 'trainer $N'", True),
    ],
)
def test_a_text_for_another_shell_is_read_as_bash_reads_it(start: str, is_known: bool) -> None:
    script = f"N=4\n{start}\n"
    ours = read_here(script)
    assert is_known == (not any(word.variable for word in ours))
    assert not is_known or [word.text for word in ours] == told_by_bash(script)


def told_by_bash(script: str) -> list[str]:
    """Return the words that bash gives to the command `trainer`."""
    define = "trainer() { printf '%s\\0' \"$@\"; }; export -f trainer\n"
    done = subprocess.run(
        ["bash", "-c", f"{define}{script}"],
        capture_output=True, env={"PATH": os.environ["PATH"], "HOME": str(Path.home())}, check=True, text=True,
    )  # fmt: skip
    return done.stdout.split("\0")[:-1]
