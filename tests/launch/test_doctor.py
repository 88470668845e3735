"""daskconv doctor: what is well, and what to fix where it is not."""

import os
import subprocess
import sys
import time

import pytest

from daskconv.launch import doctor, handover
from reference import refuse


def run(*before, **environ):
    return subprocess.run(
        [*before, sys.executable, "-m", "daskconv.cli", "doctor"],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env=os.environ | environ,
    )


def test_a_host_with_a_faulty_scratch_folder_and_no_kernels_is_told_what_to_fix(mpiexec, tmp_path):
    (tmp_path / f"daskconv-{os.geteuid()}").write_text("a file in its place")
    out = run(DASK_TEMPORARY_DIRECTORY=str(tmp_path), DASKCONV_JIT="0")
    assert out.returncode == 1 and out.stderr == ""
    lines = {
        line.removeprefix("NOT OK").split()[0]: line for line in out.stdout.splitlines() if "fix:" not in line
    }
    assert lines["disk"].startswith("NOT OK") and "The scratch folder" in lines["disk"]
    assert lines["kernels"].startswith("NOT OK") and "fix: unset DASKCONV_JIT" in out.stdout
    well = [line.split()[1] for line in out.stdout.splitlines() if line.startswith("ok")]
    assert {"tls", "clock", "mpi", "memory"} <= set(well)


def test_the_ranks_of_a_job_are_compared_and_one_of_them_speaks(mpiexec):
    out = run(mpiexec, "-n", "2")
    assert out.stdout.count(" clocks ") == out.stdout.count(" disk ") == 1
    assert "s apart" in out.stdout


def test_a_check_that_breaks_is_a_finding(monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", {"disk": lambda: 1 / 0})
    (found,) = doctor.examine()
    assert not found.well and "ZeroDivisionError" in found.said and "fix: report this" in str(found)


@pytest.mark.parametrize("quota", ["max 100000", "50000 100000"])
def test_cores_that_a_cgroup_takes_away_are_told(monkeypatch, quota):
    monkeypatch.setattr(doctor.Path, "read_text", lambda self: quota)
    found = doctor._threads()
    assert ("only 0.5 of them are granted" in found.said) == quota.startswith("5")


def test_a_clock_that_is_behind_is_waited_for_and_refused_where_that_takes_long():
    started = time.monotonic()
    handover._await_clock(2, 0.2)
    assert time.monotonic() - started >= 0.2
    refuse("The clock of rank 2's host is 60 s behind", handover._await_clock, 2, 60.0)
