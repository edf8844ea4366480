"""A private Slurm on this machine.

Real daemons of an installed Slurm (Debian's slurm-wlm) that need neither systemd, munge nor a database, on ports of
their own, with config, state, logs and device files in one folder. Nothing outside of it is read or changed, and only
processes that were started here are ended, by their pid. Needs root, as a node of Slurm does.
Each node has a slurmd of its own on this machine, which Slurm offers for testing (multiple-slurmd).
"""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rollout_bench.core.processes import die_with_parent

DAEMONS = ("slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "squeue", "sinfo", "scontrol", "scancel", "sacct")

LIMIT_S = 60.0
"""How long daemons may take to come up or to end."""

CONFIG = """\
ClusterName=private
SlurmctldHost={host}({address})
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool/%n
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/bin/task-prolog
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1000
# a node may have more cores and memory than this machine, and stays down until it is resumed
SlurmdParameters=config_overrides
ReturnToService=0
# patient with daemons on a machine that has much to do
SlurmdTimeout=120
SlurmctldTimeout=120
BatchStartTimeout=120
MessageTimeout=60
# short times: a test waits for them
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2,defer_batch=0
KillWait=3
InactiveLimit=0
MinJobAge=600
MaxJobCount=20000
OverTimeLimit=0
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
GresTypes=gpu,npu
{nodes}
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""


@dataclass
class Slurm:
    """A controller and its nodes, each with eight cores, two fake GPUs and eight fake NPUs.

    Args:
        folder: everything of it lies there.
        names: names of the nodes.
    """

    folder: Path
    names: Sequence[str]
    at_end: list[Callable[[], None]] = field(default_factory=list)
    """Called before it ends."""
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Of commands that are to talk to this Slurm and no other."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {**kept, "PATH": path, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Write the config and start all daemons; return once every node takes jobs."""
        self._write_config()
        self.start_controller()
        for name in self.names:
            (self.folder / "spool" / name).mkdir(parents=True, exist_ok=True)
            self._start("slurmd", "-D", "-N", name)
        columns = ["--Node", "--noheader", "--partition=batch", "--format=%T"]
        idle = "idle\n" * len(self.names)
        self._until("idle nodes", lambda: self.run("sinfo", *columns, check=False) == idle)

    def stop(self) -> None:
        """Cancel all jobs, wait for their end, then end the daemons."""
        for end in self.at_end:
            end()
        if "slurmctld" in self._daemons:
            self.run("scancel", "--state=PENDING", "--user=root", check=False)
            self.run("scancel", "--user=root", check=False)
            deadline = time.monotonic() + 60
            while self.run("squeue", "--noheader", check=False).strip() and time.monotonic() < deadline:
                time.sleep(0.1)
        for name in list(self._daemons):
            self._end(name)

    def start_controller(self) -> None:
        """Start the controller, which goes on with the state that it left; return once it answers."""
        self._start("slurmctld", "-D", "-i")
        self._until("controller", lambda: "UP" in self.run("scontrol", "ping", check=False))

    def stop_controller(self) -> None:
        """End the controller; jobs run on."""
        self._end("slurmctld")

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command of Slurm; what it prints."""
        done = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}")
        return done.stdout

    def _write_config(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for part in ("state", "spool", "devices", "bin"):
            (self.folder / part).mkdir(parents=True)
        # Inside of a job the executor plugin takes SLURM_CONF away; a cluster has its config where Slurm looks for it.
        for command in COMMANDS:
            wrapper = self.folder / "bin" / command
            wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {shutil.which(command)} "$@"\n')
            wrapper.chmod(0o755)
        # Nodes here share one machine and its cores, which each job of a real cluster has some of for itself; so what
        # launches lease of them is to be looked for in another place by each job.
        prolog = self.folder / "bin" / "task-prolog"
        prolog.write_text(f'#!/bin/sh\necho "export ROLLOUT_BENCH_LEASES={self.folder}/leases/$SLURM_JOB_ID"\n')
        prolog.chmod(0o755)
        for device in [f"gpu{i}" for i in range(2)] + [f"davinci{i}" for i in range(8)]:
            os.mknod(self.folder / "devices" / device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))  # as /dev/null
        ports = _free_ports(1 + len(self.names))
        host = socket.gethostname()
        lines = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=8000"
            " Gres=gpu:fake:2,npu:8 State=UNKNOWN"
            for name, port in zip(self.names, ports[1:], strict=True)
        ]
        config = CONFIG.format(folder=self.folder, host=host, address="127.0.0.1", ports=ports, nodes="\n".join(lines))
        (self.folder / "slurm.conf").write_text(config)
        gpus = f"Name=gpu Type=fake File={self.folder}/devices/gpu[0-1]"
        npus = f"Name=npu File={self.folder}/devices/davinci[0-7]"
        (self.folder / "gres.conf").write_text(f"AutoDetect=off\n{gpus}\n{npus}\n")

    def _start(self, *command: str) -> None:
        name = " ".join(word for word in command if not word.startswith("-"))
        with (self.folder / f"{name.replace(' ', '.')}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                command,
                env=self.environment,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(signal.SIGTERM),
            )

    def _end(self, name: str) -> None:
        daemon = self._daemons.pop(name)
        daemon.terminate()
        try:
            daemon.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _until(self, what: str, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not holds():
            for name, daemon in self._daemons.items():
                if daemon.poll() is not None:
                    log = self.folder / f"{name.replace(' ', '.')}.out"
                    raise RuntimeError(f"{name} ended: {log.read_text()[-2000:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what}: not within {LIMIT_S:g} s: {self.run('sinfo', check=False)}")
            time.sleep(0.05)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Slurm]:
    """Hold a Slurm of two nodes in `folder`, which is emptied first; ended in the end, whatever happens."""
    slurm = Slurm(folder, ("node00", "node01"))
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


def missing() -> list[str]:
    """Return commands of Slurm that this machine lacks."""
    return [command for command in (*DAEMONS, *COMMANDS) if shutil.which(command) is None]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
