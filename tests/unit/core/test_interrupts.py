"""Ctrl-C is heeded once: what a run cleans up afterwards is not interrupted again."""

import os
import signal
import subprocess
import sys
import time

from rollout_bench.core.interrupts import INTERRUPTED

PROGRAM = """
import time
from rollout_bench.core.interrupts import end_as_interrupted, heed_interrupts
heed_interrupts()
try:
    print("begun", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    print("cleaned up", flush=True)
end_as_interrupted()
"""


def test_a_second_ctrl_c_does_not_disturb_the_end() -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert process.communicate(timeout=60)[0] == "cleaned up\n"
    assert process.returncode == INTERRUPTED


CLEANS_UP = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (time.sleep(1.0), print("cleaned up"), sys.exit(7)))
print("ready", flush=True)
time.sleep(60)
"""


ABOVE = f"""
import sys
from rollout_bench.core.interrupts import status_of
sys.exit(status_of([sys.executable, "-c", {CLEANS_UP!r}]))
"""


def test_a_command_below_another_may_clean_up_after_ctrl_c() -> None:
    with subprocess.Popen([sys.executable, "-c", ABOVE], stdout=subprocess.PIPE, start_new_session=True) as above:
        assert above.stdout is not None
        assert above.stdout.readline() == b"ready\n"
        os.killpg(above.pid, signal.SIGINT)
        assert (above.stdout.read(), above.wait()) == (b"cleaned up\n", 7)
