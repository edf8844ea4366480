"""Runs of snakemake as forks of a process that has imported it: alone, two thirds of a dry run's time are imports.

That process is a Python of its own, which knows no test. It has imported the libraries that the workflow needs, too; of
the project every fork imports its own workspace's.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

_ONE_AT_A_TIME = threading.Lock()


def run(
    arguments: list[str], folder: Path, environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run `snakemake` with these arguments in a fork; stdout holds both streams in order, as from a process of its own.

    Of `environment`, a PYTHONPATH other than the tests' own has no effect on the fork, only on what it starts.
    """
    with tempfile.NamedTemporaryFile("r", errors="replace") as output, _ONE_AT_A_TIME:
        imported = _imported()
        assert imported.stdin is not None
        assert imported.stdout is not None
        request = [arguments, str(folder), dict(environment), output.name, round(timeout_s)]
        imported.stdin.write(f"{json.dumps(request)}\n")
        imported.stdin.flush()
        status = int(imported.stdout.readline())
        return subprocess.CompletedProcess(arguments, status, output.read())


@functools.cache
def _imported() -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.communicate)  # closes its input, at whose end it ends
    return process


def main() -> None:
    """Fork for each request on stdin, and print the exit status of the fork."""
    import scipy.optimize
    import scipy.special  # noqa: F401
    from snakemake import cli

    cli.get_argument_parser()  # imports all plugins
    gc.freeze()
    for line in sys.stdin:
        fork = os.fork()
        if fork == 0:
            _become(*json.loads(line))
            cli.main()  # ends the process
        print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]), flush=True)


def _become(arguments: list[str], folder: str, environment: dict[str, str], output: str, timeout_s: int) -> None:
    """Turn this process into what `python -m snakemake` with these arguments would be."""
    signal.alarm(timeout_s)
    streams = (os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY))
    for stream, place in zip((streams[0], streams[1], streams[1]), range(3), strict=True):
        os.dup2(stream, place)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    sys.argv[1:] = arguments


if __name__ == "__main__":
    main()
