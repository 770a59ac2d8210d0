"""A real Slurm of one node for tests: an instance with ports, keys and folders of its own, beside any other of the machine.

No accounting; jobs start at once; arrays of up to four tasks; memory that a job may not use kills it; a lower partition is
preempted by a higher one.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.alone import away
from support.ports import free_port

CONFIG = """
ClusterName=runproj
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
KillWait=30
MinJobAge=3600
MaxArraySize={tasks}
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
OverTimeLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=2000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol", "scancel")


class Slurm:
    """The instance.  `environ`: variables with which Slurm's commands reach it;  `tasks`: how many an array may have;
    hidden: what its node does not see.
    """

    def __init__(self, folder: Path, tasks: int = 4, hidden: Path | None = None) -> None:
        self.tasks = tasks
        missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
        if missing:
            raise RuntimeError(f"missing: {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)")
        self.folder = folder
        self._before = {"slurmd": away(folder, hidden)} if hidden else {}
        self.host = socket.gethostname().partition(".")[0]
        self.cpus = os.cpu_count() or 1
        self.environ = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir()
        for parent in (self.folder, *self.folder.parents):  # munged refuses folders that others may write, unless they are sticky
            mode = parent.stat().st_mode
            if parent.owner() == "root" and parent != parent.parent and not mode & stat.S_ISVTX:
                parent.chmod(mode & ~0o022 | 0o111)
        (self.folder / "munge" / "key").write_bytes(os.urandom(128))
        (self.folder / "munge" / "key").chmod(0o400)
        ports = [free_port(), free_port()]
        text = CONFIG.format(
            folder=self.folder, host=self.host, controller=ports[0], node=ports[1], cpus=self.cpus, tasks=self.tasks
        )
        (self.folder / "slurm.conf").write_text(text)
        munge = self.folder / "munge"
        options = [f"--{what}={munge}/{what.partition('-')[0]}" for what in ("socket", "pid-file", "log-file", "seed-file")]
        self._run("munged", "--foreground", "--force", f"--key-file={munge}/key", *options)
        _until((munge / "socket").exists, "munged")
        self.start_controller()
        self._run("slurmd", "-D", "-N", self.host)
        _until(self.idle, "a node that is idle")

    def idle(self) -> bool:
        """Whether the node is there, answers (`idle*` does not) and has nothing to do."""
        return self("sinfo", "-h", "-N", "-o", "%T").split()[:1] == ["idle"]

    def start_controller(self) -> None:
        self._run("slurmctld", "-D")
        _until(lambda: "is UP" in self("scontrol", "ping"), "controller that answers")

    def stop_controller(self, *, kill: bool = False) -> None:
        """End the controller; jobs that run go on."""
        process = self._processes.pop("slurmctld")
        process.kill() if kill else process.terminate()
        process.wait()

    def _run(self, program: str, *arguments: str) -> None:
        environ = {**os.environ, **self.environ, "PATH": _path()}
        with (self.folder / f"{program}.out").open("ab") as out:
            command = [*self._before.get(program, ()), program, *arguments]
            self._processes[program] = subprocess.Popen(command, env=environ, stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def _end(self, program: str) -> None:
        process = self._processes.pop(program)
        process.kill()
        process.wait()

    def __call__(self, *command: str) -> str:
        """What one of Slurm's commands prints."""
        environ = {**os.environ, **self.environ, "PATH": _path()}
        return subprocess.run(command, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout

    def stop(self) -> None:
        self("scancel", "--state=PENDING,RUNNING", "-u", "root", "--signal=KILL")
        for program in ("slurmd", "slurmctld", "munged"):
            if program in self._processes:
                self._end(program)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A Slurm that runs."""
    found = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        found.start()
        yield found
    finally:
        found.stop()


def _path() -> str:
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def _until(condition: object, what: str) -> None:
    deadline = time.monotonic() + 300
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise RuntimeError(f"no {what} after 300 s")
        time.sleep(0.1)
