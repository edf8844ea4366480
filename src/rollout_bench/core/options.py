"""The parser of our commands, whose errors have two lines as all others."""

import argparse
from typing import NoReturn

from rollout_bench.core.errors import UserError, near_miss


class Parser(argparse.ArgumentParser):
    """A parser that raises `UserError` with exit status 2 in place of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise the error of wrong arguments, with the known option that is nearest to an unknown one."""
        unknown = message.partition("unrecognized arguments: ")[2].partition(" ")[0].partition("=")[0]
        options = [option for option in self._option_string_actions if option.startswith("--")]
        close = near_miss(unknown, options)
        remedy = f"did you mean {close}?" if close else f"`{self.prog} --help` lists the arguments"
        raise UserError(f"{self.prog}: {message}", remedy, status=2)
