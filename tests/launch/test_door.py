"""Who can reach a job: a second user of the host, without its keys, tries every door of real jobs."""

import contextlib
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import dask
import psutil
import pytest

import daskconv
from daskconv.launch.scratch import scratch_folder
from daskconv.launch.sockets import LOOPBACK
from launch.attack import http, websocket
from reference import refuse

HERE = Path(__file__).parent
NOBODY = 65534


def attack(sockets, addresses):
    """What another user sees, where this one may become another; else this user without the job's keys."""
    uid = NOBODY if os.geteuid() == 0 else os.getuid()
    ports = [[e["address"], e["port"]] for e in sockets if not e["what"].startswith("MPI")]
    out = subprocess.run(
        [sys.executable, str(HERE / "attack.py"), str(uid), json.dumps([ports, addresses])],
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
    )
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)


class Job:
    """A job in processes of its own; `told` is what it says of itself, `line` its first line."""

    def __init__(self, folder, mpiexec, way, tls="tls", **environ):
        self.folder = folder
        for name in ("tmp", "run"):
            (folder / name).mkdir()
        command = [sys.executable, str(HERE / "job.py"), str(folder), tls]
        paths = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)])
        self.process = subprocess.Popen(
            [mpiexec, "-n", "4", *command] if way == "mpi" else command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=folder / "run",
            env=os.environ | {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": paths} | environ,
        )
        self.line = self.process.stdout.readline()
        while not (folder / "job.json").exists() and self.process.poll() is None:
            time.sleep(0.05)
        assert self.process.poll() is None, self.process.stderr.read()
        self.told = json.loads((folder / "job.json").read_text())
        top = psutil.Process(self.process.pid)
        self.processes = [top, *top.children(recursive=True)]
        self.listening = {
            (link.laddr.ip, link.laddr.port)
            for process in self.processes
            for link in getattr(process, "net_connections", process.connections)(kind="inet")
            if link.status == psutil.CONN_LISTEN
        }

    def kill(self):
        """End what is left of it, however its test ended."""
        for process in self.processes if self.process.poll() is None else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def close(self):
        (self.folder / "done").touch()
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors


@pytest.fixture(scope="module", params=["mpi", pytest.param("local", marks=pytest.mark.slow)])
def job(request, tmp_path_factory, mpiexec):
    """A job whose page has a token, and what a second user got out of it."""
    job = Job(
        tmp_path_factory.mktemp(request.param), mpiexec, request.param, DASK_DASKCONV__PAGE__TOKEN="true"
    )
    told = job.told
    try:
        yield SimpleNamespace(
            way=request.param, job=job, attacked=attack(told["sockets"], told["dask"]), **told
        )
        job.close()
    finally:
        job.kill()


def test_every_socket_of_the_job_is_listed_with_what_it_is(job):
    assert {(e["address"], e["port"]) for e in job.sockets} == job.job.listening
    whats = [entry["what"] for entry in job.sockets]
    assert whats.count("Dask scheduler, TLS") == whats.count("page") == 1
    assert whats.count("Dask worker, TLS") == whats.count("worker's health and metrics") == 2
    assert "other" not in whats and whats.count("Dask nanny, TLS") == (2 if job.way == "local" else 0)


def test_dask_does_not_sample_what_the_workers_do(job):
    assert job.sampled == [False, False]


def test_all_but_mpi_listens_on_the_loopback(job):
    open_ones = [e["what"] for e in job.sockets if not e["address"].startswith(LOOPBACK)]
    assert all(what.startswith("MPI") for what in open_ones)
    assert all((e["reach"] == "this host") == e["address"].startswith(LOOPBACK) for e in job.sockets)


def test_a_second_user_gets_nothing_from_any_port(job):
    assert job.attacked["uid"] == (NOBODY if os.geteuid() == 0 else os.getuid())
    mpi = {e["port"] for e in job.sockets if e["what"].startswith("MPI")}
    tried = {
        place: got for place, got in job.attacked["ports"].items() if int(place.split(":")[1]) not in mpi
    }
    assert len(tried) >= 6
    for got in tried.values():
        assert {got[how] for how in ("page", "health", "foreign name", "foreign origin")} <= {0, 403}
    dask = {address.rpartition("/")[2] for address in job.dask}
    assert dask <= tried.keys()
    for place in dask:
        # Seven bytes are TLS's own refusal.
        assert tried[place]["plain"] <= 7 and tried[place]["encrypted"] == 0


def test_a_client_without_the_certificate_or_with_one_of_its_own_is_refused(job):
    assert len(job.attacked["clients"]) == 2
    assert all(said.startswith("refused") for said in job.attacked["clients"].values())
    assert job.result == 6


def test_keys_are_in_no_file_command_line_or_environment(job):
    seen = [path for path in job.job.folder.rglob("*") if path.is_file()]
    assert any("daskconv-" in str(path) for path in seen), "the workers' scratch folders are here"
    seen += [Path(f"/proc/{p.pid}/{name}") for p in job.job.processes for name in ("cmdline", "environ")]
    assert not [path for path in seen if b"PRIVATE KEY" in path.read_bytes()]


def test_scratch_folders_are_this_users_alone(job):
    (scratch,) = (job.job.folder / "tmp").glob("daskconv-*")
    assert stat.S_IMODE(scratch.stat().st_mode) == 0o700 and scratch.stat().st_uid == os.geteuid()
    assert list(scratch.rglob("worker-*"))


def test_the_page_opens_with_the_printed_address_and_its_own_origin_alone(job):
    port, token = re.search(r"page: http://127.0.0.1:(\d+)/daskconv\?token=([^\s,]+)", job.job.line).groups()
    place, known = ("127.0.0.1", int(port)), f"Authorization: Bearer {token}"
    assert http(*place, f"/status?token={token}") == 302
    assert http(*place, "/status?token=wrong") == http(*place, "/daskconv") == 403
    assert http(*place, "/status", "Authorization: Bearer wrong") == 403
    assert http(*place, "/status", known) == 200
    assert http(*place, "/status", known, host="evil.example") == 403
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null"):
        for page in ("/daskconv", "/status"):
            assert websocket(*place, f"{page}/ws", origin, known) == 403
    # Bokeh answers what comes from the page itself: without a session's name that is its own complaint.
    assert websocket(*place, "/status/ws", f"http://127.0.0.1:{port}", known) in (101, 401)


def test_without_tls_the_same_client_gets_in_and_the_first_line_says_so(tmp_path, mpiexec):
    job = Job(tmp_path, mpiexec, "local", "open")
    assert job.line.rstrip().endswith("NO TLS: whoever reaches its ports can run code as you")
    assert "?token" not in job.line
    try:
        got = attack([], job.told["dask"])
        job.close()
    finally:
        job.kill()
    assert set(got["clients"].values()) == {f"in: {os.getuid()}"}


# ------------------------------------------------------------------------------------ scratch folders


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A folder for everybody's temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv("DASK_TEMPORARY_DIRECTORY", str(folder))
    with dask.config.set({"temporary-directory": str(folder)}):
        yield folder


def planted(shared):
    """Return what another user has put in the place of this one's scratch folder."""
    mine = shared / f"daskconv-{os.geteuid()}"
    mine.mkdir(0o777)
    if os.geteuid() == 0:
        os.chown(mine, NOBODY, NOBODY)
        return mine
    mine.rename(shared / "elsewhere")
    mine.symlink_to(shared / "elsewhere")
    return mine


def test_a_scratch_folder_that_somebody_else_made_is_refused(shared):
    folder = planted(shared)
    sentence = refuse("The scratch folder", scratch_folder)
    assert str(folder) in sentence and "temporary-directory" in sentence
    refuse("The scratch folder", daskconv.start(workers=1).__enter__)


def test_a_scratch_folder_that_others_could_replace_is_refused(shared):
    assert scratch_folder() == str(shared / f"daskconv-{os.geteuid()}")
    shared.chmod(0o777)
    refuse("lacks the sticky bit", scratch_folder)


def test_an_mpi_job_says_once_that_a_scratch_folder_is_somebody_elses(shared, mpiexec):
    planted(shared)
    out = subprocess.run(
        [mpiexec, "-n", "3", sys.executable, "-m", "daskconv.cli", "train", "--data", "digits"],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert out.returncode == 2
    assert out.stderr.count("The scratch folder") == 1 and "Traceback" not in out.stderr
