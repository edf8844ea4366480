"""The parser of our commands, whose errors have two lines as all others."""

import argparse
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from rollout_bench.core.errors import UserError, near_miss

COMPLETING = "_ARGCOMPLETE"
"""Variable of argcomplete: the number of words of the shell's line that come before the arguments."""

PLATFORMS = {"gpu": "cuda", "nvidia": "cuda", "npu": "ascend", "x86": "cpu"}
"""Common names of platforms, whose nearest spelling misleads (gpu is nearer to cpu)."""


def completed_by(action: argparse.Action, words: Callable[[], Iterable[str]]) -> None:
    """Let a shell complete the value of an option or argument by `words`, which are made only then."""
    # argcomplete's name
    action.completer = lambda **_: [*words()]  # type: ignore[attr-defined]


class Parser(argparse.ArgumentParser):
    """A parser that raises `UserError` with exit status 2 in place of printing its usage."""

    _completes = False

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse arguments; for a shell that completes a line, print what may follow, and end."""
        if COMPLETING in os.environ and not self._completes:
            import argcomplete  # only here: few calls complete a line

            self._completes = True  # it parses by this method, too
            argcomplete.autocomplete(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise the error of wrong arguments, with the known option that is nearest to an unknown one."""
        first, _, after = message.partition("unrecognized arguments: ")[2].partition(" ")
        unknown, equals, value = first.partition("=")
        known = [option for option in self._option_string_actions if option.startswith("--")]
        if choice := re.fullmatch(r"(.*invalid choice: '(.*)') \(choose from (.*)\)", message):
            message, unknown, known = choice[1], choice[2], re.findall(r"[^', ]+", choice[3])
        places = {one.dest: one.metavar for one in self._actions if not one.option_strings}
        if (place := unknown.removeprefix("--")) in places:
            raise UserError(f"{self.prog}: {message}", f"leave {unknown} out: {places[place]} stands alone", status=2)
        other = PLATFORMS.get(unknown)
        close = other if other in known else near_miss(unknown, [one for one in known if one != "--help"])
        listed = f"known: {', '.join(known)}" if choice else f"`{self.prog} --help` lists the arguments"
        remedy = f"did you mean {close}?" if close else listed
        if lacking := re.fullmatch(r"the following arguments are required: (--\S+)", message):
            action = self._option_string_actions[lacking[1]]
            remedy = f"add {lacking[1]} {action.metavar or action.dest.upper()}; {listed}"
        elif message.startswith("the following arguments are required: "):
            names = {one: one.metavar or "|".join(one.choices or [one.dest]) for one in self._actions if one.required}
            words = [" ".join([*one.option_strings[:1], str(name)]) for one, name in names.items()]
            remedy = f"write {self.prog} {' '.join(words)}; {listed}"
        elif not close and unknown.startswith("--") and any(one.metavar == "KEY=VALUE" for one in self._actions):
            given = value if equals else after.partition(" ")[0]
            is_whole = "=" in given and not equals  # as --set KEY=VALUE
            word = given if is_whole else f"{unknown.strip('-').replace('-', '_')}={given or 'VALUE'}"
            remedy = f"write {word}: a trainer's keys have no dashes"
        raise UserError(f"{self.prog}: {message}", remedy, status=2)
