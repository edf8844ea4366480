"""The engine process: does the jobs of launches and sends events to its supervisor, which starts it.

Most engines do one job. Of launches that share a start, each has a job of its own on the same engine.
"""

import faulthandler
import os
import signal
import sys
import traceback
from functools import partial
from typing import IO

from rollout_bench.contracts.modes import MODES
from rollout_bench.core.errors import UserError
from rollout_bench.core.processes import die_with_parent
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.launch.failures import cause_of
from rollout_bench.measure.launch.protocol import Done, Failed, IterationBegins, Job, send


def context_of(descriptor: int, orders: IO[bytes], import_s: float | None) -> EngineContext:
    """Return what the jobs of this process get.

    Args:
        descriptor: the pipe for events.
        orders: has a line for the begin of each pass.
        import_s: time that the starter took to import the engine, in seconds; None without a starter.
    """
    send_event = partial(send, descriptor)

    def await_turn() -> None:
        send_event(IterationBegins())
        orders.readline()

    return EngineContext(send_event, await_turn, import_s)


def failure_event(error: Exception) -> Failed:
    """Return the event of a job that `error` ended; the supervisor finds the cause of an unknown error in the log."""
    if not isinstance(error, UserError):
        return Failed(exception=f"{type(error).__name__}: {error}")
    cause = cause_of(error)
    return Failed(exception=cause.cause, category=cause.category, fix=cause.fix)


def main() -> int:
    """Read jobs from stdin and do them; return 0 if all iterations were delivered.

    Arguments of the process are the descriptor of the pipe for events, and, if a starter forked it, the seconds of the
    starter's import.
    """
    die_with_parent(signal.SIGKILL)
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    orders = os.fdopen(os.dup(0), "rb", buffering=0)
    text = orders.readline()
    with open(os.devnull) as nothing:  # noqa: PTH123 (no other code may read stdin)
        os.dup2(nothing.fileno(), 0)
    if not text:  # the supervisor ended before it sent a job
        return 1
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    failed: Failed | None = None
    try:
        context = context_of(descriptor, orders, next(map(float, sys.argv[2:]), None))
        while text:
            job = Job.model_validate_json(text)
            MODES[job.spec.mode].worker.get()(job, context)
            context.send(Done())
            text = orders.readline()
    except Exception as error:
        if isinstance(error, UserError):
            print(error.problem, file=sys.stderr)
        else:
            traceback.print_exc()
        failed = failure_event(error)
    if failed is not None:
        send(descriptor, failed)
    sys.stdout.flush()
    sys.stderr.flush()
    # Interpreter shutdown could hang in the engine's threads; the guardian ends the engine's other processes.
    os._exit(failed is not None)


if __name__ == "__main__":
    main()
