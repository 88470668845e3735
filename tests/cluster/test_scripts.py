"""The job scripts: the local one as it stands, the others under stub batch systems that call mpiexec really."""

import getpass
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import daskconv

CLUSTER = Path(__file__).parents[2] / "cluster"
STUBS = Path(__file__).parent / "stubs"
TRAIN = "--data digits --net lenet --batch-size 60 --epochs 1 --save model.safetensors"
# What starts each script with one worker of this machine's cores, and the options of daskconv train.
JOBS = {
    "slurm.sh": [
        "sbatch",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--cpus-per-task=2",
        "slurm.sh",
        *TRAIN.split(),
    ],
    "pbs.sh": ["qsub", "-l", "select=1:ncpus=2:mpiprocs=1", "-v", f"OPTIONS={TRAIN}", "pbs.sh"],
    "pjm.sh": [
        "pjsub",
        "-L",
        "node=1",
        "-x",
        "WORKERS=1",
        "-x",
        "THREADS=2",
        "-x",
        f"OPTIONS={TRAIN}",
        "pjm.sh",
    ],
}


class Job:
    """A line that runs in a folder of its own, `daskconv` and mpiexec beside the stubs on its PATH."""

    def __init__(self, folder, mpiexec, words, stubs=(), **environ):
        self.folder, bin = folder / "work", folder / "bin"
        self.folder.mkdir()
        bin.mkdir()
        (bin / "daskconv").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m daskconv.cli "$@"\n')
        (bin / "daskconv").chmod(0o755)
        (bin / "python").symlink_to(sys.executable)
        for script in CLUSTER.glob("*.sh"):
            (self.folder / script.name).write_bytes(script.read_bytes())
        path = os.pathsep.join([*map(str, stubs), str(bin), str(Path(mpiexec).parent), os.environ["PATH"]])
        environ = (
            os.environ
            | {"PATH": path, "MPIEXEC": mpiexec, "HOME": str(folder), "TMPDIR": str(folder)}
            | environ
        )
        environ |= {"PYTHONPATH": str(CLUSTER.parent)}
        pipes = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
        }
        self.process = subprocess.Popen(words, cwd=self.folder, env=environ, start_new_session=True, **pipes)

    def ended(self):
        """Wait for the end: exit code, output, errors."""
        try:
            out, err = self.process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        return self.process.returncode, out, err


@pytest.fixture(scope="module")
def jobs(mpiexec, tmp_path_factory):
    """All jobs at once, so that their waits overlap."""
    new = tmp_path_factory.mktemp
    begun = {}
    for script, words in JOBS.items():
        stubs = [STUBS / "fujitsu", STUBS] if script == "pjm.sh" else [STUBS]
        begun[script] = Job(new("job"), mpiexec, words, stubs)
    return {script: (job.folder, *job.ended()) for script, job in begun.items()}


def check(folder, code, out, err, workers=1):
    """Check a job's end; return the page's port and the lines after the first."""
    assert code == 0 and err == "", out + err
    head, *rest = out.splitlines()
    page = r"page: http://127.0.0.1:(\d+)/\S*( \(port 8787 is in use\))?"
    port = re.fullmatch(rf"daskconv: mpi, {workers} workers? x \d+ threads?, .*{page}", head)[1]
    assert daskconv.load(folder / "model.safetensors").network.name == "lenet"
    return port, rest


def test_the_local_script_runs_as_it_stands(mpiexec, tmp_path):
    domains = len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1
    job = Job(tmp_path, mpiexec, ["bash", "local.sh", *TRAIN.split()])
    _, rest = check(job.folder, *job.ended(), workers=domains)
    assert rest[0].startswith("epoch 1/1")


def test_the_local_script_wants_a_worker(mpiexec, tmp_path):
    code, _, err = Job(tmp_path, mpiexec, ["bash", "local.sh"], RANKS="2").ended()
    assert code == 2 and err.startswith("RANKS=2 leaves no worker")


@pytest.mark.slow
@pytest.mark.parametrize("script", JOBS)
def test_a_job_runs_and_says_how_to_reach_its_page(jobs, script):
    folder, *ended = jobs[script]
    port, rest = check(folder, *ended)
    user, host = getpass.getuser(), socket.gethostname()
    tunnel = f"ssh -N -J {user}@login1 -L {port}:127.0.0.1:{port} {user}@{host}"
    assert rest[0] == f"the page from your machine: {tunnel}, then open the address above"
    assert f".../proxy/{port}/" in rest[1] and rest[2].startswith("epoch 1/1")
    assert not list(folder.parent.glob("daskconv-*.*")), "the list of hosts is still there"
