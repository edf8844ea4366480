"""The engine process: does the jobs of launches and sends events to its supervisor, which starts it.

Most engines do one job. Of launches that share a start, each has a job of its own on the same engine.
"""

import faulthandler
import os
import signal
import sys
import traceback
from typing import IO

from rollout_bench.contracts.modes import MODES
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.core.processes import die_with_parent
from rollout_bench.measure.launch.protocol import Done, Event, Failed, IterationBegins, Job, send


def work(job: Job, descriptor: int, orders: IO[bytes]) -> bytes:
    """Do `job` and write each event to the pipe `descriptor`; wait for a line of `orders` before each iteration.

    Returns:
        The next job; empty if this was the last.
    """

    def send_event(event: Event) -> None:
        send(descriptor, event)

    def await_turn() -> None:
        send_event(IterationBegins())
        orders.readline()

    MODES[job.spec.mode].worker.get()(job, send_event, await_turn)
    send_event(Done())
    return orders.readline()


def main() -> int:
    """Read the job from stdin and do it; return 0 if all iterations were delivered."""
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
        while text:
            text = work(Job.model_validate_json(text), descriptor, orders)
    except MeasuringFailed as error:
        print(error.cause, file=sys.stderr)
        failed = Failed(exception=error.cause, category=error.category, fix=error.fix)
    except Exception as error:
        traceback.print_exc()
        failed = Failed(exception=f"{type(error).__name__}: {error}")
    if failed is not None:
        send(descriptor, failed)
    sys.stdout.flush()
    sys.stderr.flush()
    # Interpreter shutdown could hang in the engine's threads; the guardian ends the engine's other processes.
    os._exit(failed is not None)


if __name__ == "__main__":
    main()
