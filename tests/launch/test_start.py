"""start(): what a script sees on one machine."""

import re
import subprocess
import sys

import dask
import pytest

import daskconv
from daskconv.launch.affinity import cores_by_domain, plan_pinning
from daskconv.launch.quiet import seldom
from daskconv.launch.tunnel import login_host

SCRIPT = """
import urllib.request
import daskconv

def main():
    with daskconv.start(workers=2, threads=1) as client:
        page = "http://127.0.0.1:%d/status" % client.scheduler_info()["services"]["dashboard"]
        print(urllib.request.urlopen(page).status, flush=True)
        print(sorted(client.run(threads).values()), flush=True)
        data = daskconv.datasets.load("digits")
        trainer = daskconv.Trainer("lenet", optimizer=daskconv.SGD(0.02), preprocess="unit")
        trainer.fit(data.x_train, data.y_train, epochs=1)
        print(sorted(trainer.shard_owners.values()), flush=True)

def threads():
    import numba, numexpr, os
    from threadpoolctl import threadpool_info
    blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    return [max(blas), numexpr.nthreads, numba.get_num_threads(), len(os.sched_getaffinity(0)), clocks()]

def clocks():
    import dask
    return [dask.config.get("distributed." + name) for name in ("worker.profile.enabled", "admin.tick.interval")]
"""


def run(tmp_path, text):
    script = tmp_path / "script.py"
    script.write_text(text)
    return subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


def test_a_script_starts_capped_workers_shows_a_page_and_ends_quietly(tmp_path):
    result = run(tmp_path, SCRIPT + "if __name__ == '__main__':\n    main()\n")
    assert result.returncode == 0, result.stderr
    first, page, threads, epoch, owners = result.stdout.splitlines()
    page_line = r"page: http://127.0.0.1:\d+/daskconv( \(port 8787 is in use\))?$"
    assert re.match(rf"daskconv: dask, 2 workers x 1 thread, (not )?pinned.*, {page_line}", first)
    assert page == "200"
    assert all(row[:3] == [1, 1, 1] and row[4] == [False, "1s"] for row in eval(threads))
    assert epoch.startswith("epoch 1/1  loss")
    assert owners == "[[0, 1], [2, 3]]"
    assert result.stderr == ""


def test_dask_samples_the_workers_where_that_is_asked_for():
    assert not seldom()["distributed.worker.profile.enabled"]
    with dask.config.set({"daskconv.profile": True}):
        assert seldom()["distributed.worker.profile.enabled"]


def test_a_script_without_the_main_guard_is_told_so(tmp_path):
    result = run(tmp_path, SCRIPT + "main()\n")
    assert result.returncode != 0
    assert "outside of a main guard" in result.stderr
    assert result.stderr.count("errors.InputError:") == 1
    assert result.stdout == ""


def test_local_starts_nothing(capsys):
    with daskconv.start("local", threads=2) as client:
        assert client is None
    assert capsys.readouterr().out == "daskconv: local, 1 process x 2 threads, page: none\n"


def test_mpi_without_a_launcher_is_refused():
    with pytest.raises(daskconv.errors.InputError, match="needs an MPI launcher"), daskconv.start("mpi"):
        pass


def test_local_under_a_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "4")
    with pytest.raises(daskconv.errors.InputError, match="would run 4 times"), daskconv.start("local"):
        pass


@pytest.mark.parametrize("options", [{"workers": 0}, {"threads": -1}, {"transport": "smoke"}])
def test_options_out_of_range_are_refused(options):
    with (
        pytest.raises(daskconv.errors.InputError, match=str(next(iter(options.values())))),
        daskconv.start(**options),
    ):
        pass


def test_workers_are_pinned_only_where_every_host_has_the_cores():
    workers = {name: {"host": "a" if name < "c" else "b", "cores": [0, 1, 2, 3]} for name in "abc"}
    assert plan_pinning(workers, 2) == {"a": [0, 1], "b": [2, 3], "c": [0, 1]}
    assert plan_pinning(workers, 3) == {}
    interleaved = {name: {"host": "a", "cores": [0, 2, 1, 3]} for name in "ab"}
    assert plan_pinning(interleaved, 2) == {"a": [0, 2], "b": [1, 3]}, "each has a NUMA domain of its own"
    workers["b"]["cores"] = [2, 3]
    assert plan_pinning(workers, 1) == {}, "a launcher that bound its ranks is left alone"


def test_cores_of_a_domain_lie_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr("daskconv.launch.affinity.cores", lambda: [0, 1, 2, 3, 4, 9])
    for name, cores in {"node0": "0,2,4-6", "node1": "1,3,7-9", "node2": ""}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "cpulist").write_text(cores + "\n")
    assert cores_by_domain(str(tmp_path)) == [0, 2, 4, 1, 3, 9]
    assert cores_by_domain(str(tmp_path / "none")) == [0, 1, 2, 3, 4, 9]


def test_the_login_host_may_be_configured():
    assert login_host({}) is None
    with dask.config.set({"daskconv.login": "gate"}):
        assert login_host({}) == "gate"
