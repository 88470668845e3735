"""The mpi transport and the launcher, under a real mpiexec."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from daskconv import events
from daskconv.train.files import load_checkpoint

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import jobs  # noqa: E402
import recipes  # noqa: E402


def run(mpiexec, ranks, *command, timeout=120):
    """Run a job to its end, and see that it leaves no process."""
    mark = f"DASKCONV_TEST_JOB={uuid4().hex}"
    result = subprocess.run(
        [mpiexec, "-n", str(ranks), sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=HERE,
        stdin=subprocess.DEVNULL,
        env=os.environ | dict([mark.split("=")]),
    )
    jobs.wait_until_gone(lambda: jobs.with_environment(mark))
    return result


@pytest.fixture(scope="module")
def local():
    trained = recipes.trainer(transport="local")
    x, y, xv, yv = recipes.digits()
    history = trained.fit(x, y, epochs=2, validation_data=(xv, yv), progress=False)
    return recipes.digest(trained), history["val_accuracy"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with a checkpoint from the middle of an epoch on this process's threads."""
    folder = tmp_path_factory.mktemp("begun")
    trained = recipes.trainer(transport="local")
    x, y, xv, yv = recipes.digits()

    def stop(event):
        if (event.epoch, event.step) == (1, 4):
            trained.stop()

    with events.listening(stop):
        trained.fit(x, y, epochs=2, validation_data=(xv, yv), progress=False, checkpoint=folder)
    return folder


@pytest.fixture(scope="module")
def job(mpiexec, begun):
    result = run(mpiexec, 6, HERE / "worker_counts.py", begun)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def said(job):
    return [json.loads(line) for line in job.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def rows(said):
    return said[:1] + [row for row in said if "workers" in row]


def test_hosts_that_add_up_first_end_in_the_same_bits(said, local):
    (row,) = (row for row in said if "hierarchical" in row)
    assert row["hierarchical"] == local[0]
    assert row["refused"] == (
        "daskconv.mpi.ranks-per-host is 3 but there are 4 workers: give a divisor of that."
    )


def test_no_scheduler_message_is_part_of_a_step_and_ranks_send_what_is_predicted(said):
    (found,) = (row["messages"] for row in said if "messages" in row)
    assert [run["steps"] for run in found] == [18, 180]
    assert [run["as predicted"] for run in found] == [True, True]
    few, many = (run["told"] for run in found)
    assert few["task-finished"] == many["task-finished"] < 30
    # Whatever 4 workers said besides, in 180 steps; twice a second each tells of its steps, and one how far they are.
    assert sum(count for name, count in many.items() if name != "log-event") < 90
    assert found[1]["told"]["log-event"] <= (4 + 1) * (2 * found[1]["seconds"] + 2)


def test_one_to_four_workers_end_in_the_bits_of_the_local_transport(rows, local):
    assert [row["workers"] for row in rows[1:]] == [4, 3, 2, 1]
    assert {row["digest"] for row in rows[1:]} == {local[0]}
    assert all(row["accuracy"] == local[1] for row in rows[1:])


def test_what_threads_began_goes_on_on_two_workers_to_the_same_bits(rows, local, begun):
    (found,) = (row["resumed"] for row in rows[1:] if "resumed" in row)
    assert found == local[0]
    assert load_checkpoint(begun).state.position.epoch == 2


def test_whatever_changes_a_step_does_so_to_the_same_bits_on_three_workers(rows):
    trained = recipes.trainer_with_all(transport="local")
    trained.fit(*recipes.digits()[:2], epochs=2, progress=False)
    (found,) = (row["with all"] for row in rows[1:] if "with all" in row)
    assert found == [recipes.digest(trained), recipes.digest(trained, averaged=True)]


def test_each_worker_computed_its_own_shards(rows):
    assert [row["owners"] for row in rows[1:]] == [
        [[0], [1], [2], [3]],
        [[0, 1], [2], [3]],
        [[0, 1], [2, 3]],
        [[0, 1, 2, 3]],
    ]


def test_an_exception_on_one_rank_ends_all_with_its_message(rows):
    failure = rows[0]["failure"]
    assert re.match(
        r"Worker 3 of 4 failed: RuntimeError: the layer gave up \((worker_counts.py|forward), line \d+\)",
        failure,
    )


def test_a_job_says_one_line_and_nothing_else(job):
    said = [line for line in job.stdout.splitlines() if not line.startswith("{")]
    assert len(said) == 1
    assert re.match(r"daskconv: mpi, 4 workers x 1 thread, .*, page: http://127.0.0.1:\d+/daskconv", said[0])
    assert job.stderr == ""


@pytest.mark.parametrize(
    ("how", "code", "sentence"),
    [
        ("labels", 2, "the network has 10 outputs"),
        ("own", 1, "the script's own mistake"),
        ("exit", 7, None),
        ("worker", 2, "of 2 failed: OSError: the layer's own mistake ("),
    ],
)
def test_a_failing_script_fails_the_job_and_says_why_once(mpiexec, how, code, sentence):
    result = run(mpiexec, 3 + (how == "worker"), HERE / "fails.py", how, timeout=60)
    assert result.returncode == code
    if sentence:
        assert result.stderr.count(sentence) + result.stdout.count(sentence) == 1 + (how == "own")
    assert "CommClosed" not in result.stderr


def test_fewer_than_three_ranks_are_refused_in_one_sentence(mpiexec):
    result = run(mpiexec, 2, "-m", "daskconv.cli", "train", "--data", "digits", timeout=60)
    assert result.returncode != 0
    assert result.stderr.count("at least 3 are needed") == 1
    assert "Traceback" not in result.stderr


def test_a_wrong_option_is_named_once_not_once_a_rank(mpiexec):
    result = run(mpiexec, 3, "-m", "daskconv.cli", "train", "--nope", timeout=60)
    assert result.returncode != 0
    assert result.stderr.count("No such option") == 1


@pytest.mark.parametrize("options", [["--transport", "foo"], ["--transport", "local"], ["--workers", "2"]])
def test_a_wrong_value_is_named_once_not_once_a_rank(mpiexec, options):
    result = run(mpiexec, 3, "-m", "daskconv.cli", "train", "--data", "digits", *options, timeout=60)
    assert result.returncode != 0
    assert result.stderr.count("Error: ") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [["evaluate"], ["predict", "--out", "p.csv"]])
def test_what_runs_in_one_process_refuses_a_launcher(mpiexec, command):
    result = run(mpiexec, 2, "-m", "daskconv.cli", *command, "model.safetensors", "digits", timeout=60)
    assert result.returncode != 0
    assert result.stderr.count("start it without mpiexec") == 1


@pytest.mark.slow
def test_the_demo_reaches_its_accuracy(mpiexec, tmp_path):
    """What `make demo` runs, word for word."""
    recipe = (HERE.parents[1] / "Makefile").read_text()
    words = re.search(r"mpiexec -n 4 daskconv (train .*?--save) digits", recipe.replace("\\\n", ""), re.S)
    options = words[1].replace("$(EPOCHS)", "150").split()
    result = run(
        mpiexec, 4, "-m", "daskconv.cli", *options, str(tmp_path / "digits.safetensors"), timeout=600
    )
    assert result.returncode == 0, result.stderr
    assert "page: http://127.0.0.1:" in result.stdout
    accuracy = re.search(r"test accuracy (\d+\.\d+)%", result.stdout)
    assert float(accuracy[1]) >= 97


@pytest.mark.slow
def test_a_peer_that_waits_in_mpi_neither_hangs_nor_crashes_the_job(mpiexec):
    started = time.monotonic()
    result = run(mpiexec, 3, HERE / "waits.py", timeout=60)
    assert result.returncode == 1
    assert "ValueError: the script failed while wait_for waits" in result.stderr
    assert "The other ranks did not end in time: the job is aborted." in result.stderr
    assert time.monotonic() - started < 40


@pytest.mark.slow
def test_a_worker_that_stops_answering_ends_the_job_at_its_deadline(mpiexec, monkeypatch):
    monkeypatch.setenv("DASK_DASKCONV__DEADLINE", "3")
    started = time.monotonic()
    result = run(mpiexec, 4, HERE / "stalls.py", timeout=60)
    assert result.returncode != 0
    assert "A worker sent nothing for 3 s (daskconv.deadline): the job is aborted." in result.stderr
    assert time.monotonic() - started < 30
