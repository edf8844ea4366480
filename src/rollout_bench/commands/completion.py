"""Print what makes a shell complete commands and options: append it to ~/.bashrc or ~/.zshrc, and open a new shell."""

import os
from collections.abc import Sequence
from pathlib import Path

from argcomplete.shell_integration import shellcode

from rollout_bench.commands.groups import NAME
from rollout_bench.core.options import Parser


def main(argv: Sequence[str]) -> int:
    """Print the code for the shell."""
    parser = Parser(
        prog="rollout-bench completion", description=__doc__, epilog="Exit status: 0, or 2 for another shell."
    )
    shells = ("bash", "zsh", "fish")
    mine = Path(os.environ.get("SHELL", "")).name
    parser.add_argument(
        "shell", nargs="?", choices=shells, default=mine if mine in shells else "bash", help="default: yours"
    )
    print(shellcode([NAME], shell=parser.parse_args(argv).shell))
    return 0
