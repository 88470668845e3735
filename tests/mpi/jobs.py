"""Jobs under mpiexec that tests start, watch and disturb."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def start(mpiexec, ranks, *command):
    """Start a job; its output is read with `communicate`."""
    return subprocess.Popen(
        [mpiexec, "-n", str(ranks), sys.executable, *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def wait_for(true, job, seconds=60):
    """Wait until something is true of a job that runs."""
    end = time.monotonic() + seconds
    while not true():
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < end, "this does not come"
        time.sleep(0.02)


def rank_process(launcher, rank):
    """Return the process id of one rank below the launcher."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environ = (entry / "environ").read_bytes().split(b"\0")
            if f"PMI_RANK={rank}".encode() in environ and launcher in ancestors(int(entry.name)):
                return int(entry.name)
        except OSError:
            continue
    raise AssertionError(f"rank {rank} is not there")


def with_environment(word):
    """Return the processes that have a word in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def ancestors(pid):
    """The processes above one, the nearest first."""
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        yield pid


def running(pids):
    """Those of the processes that run."""
    return [pid for pid in pids if Path(f"/proc/{pid}/environ").exists()]


def wait_until_gone(processes, seconds=5):
    """Wait until none of the processes is left; the launcher ends a moment before its helpers."""
    end = time.monotonic() + seconds
    while found := processes():
        assert time.monotonic() < end, f"processes are left: {found}"
        time.sleep(0.05)


def end(job):
    """End a job that is still there, whatever it does."""
    if job.poll() is None:
        job.send_signal(signal.SIGKILL)
        job.communicate()
