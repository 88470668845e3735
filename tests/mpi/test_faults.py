"""Faults of an MPI job: a rank is killed, a signal comes, a function raises. It ends in time, and training goes on."""

import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from daskconv.train.checkpoints import folder
from daskconv.train.checkpoints.manifest import read_manifest
from daskconv.train.files import load_checkpoint

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import jobs  # noqa: E402
import recipes  # noqa: E402

RANKS = 4
TRAIN = [
    "-m",
    "daskconv.cli",
    "train",
    "--data",
    "digits",
    "--net",
    "lenet",
    "--lr",
    "0.001",
    "--average",
    "0.9",
]


@pytest.fixture
def training(mpiexec, tmp_path):
    """A job that trains without end, has passed its first epoch, and writes a checkpoint every 5 steps."""
    runs = tmp_path / "runs"
    job = jobs.start(
        mpiexec, RANKS, *TRAIN, "--epochs", "100000", "--checkpoint", runs, "--checkpoint-steps", "5"
    )
    try:
        jobs.wait_for(lambda: folder.names(runs)[:1] > ["step-000000016"], job)
        job.runs, job.ranks = runs, [jobs.rank_process(job.pid, rank) for rank in range(RANKS)]
        yield job
    finally:
        jobs.end(job)


@pytest.fixture(scope="module")
def undisturbed():
    """What the same training comes to on this process's threads, by the epochs; none is computed twice."""
    states = {}

    def after(epochs):
        if epochs not in states:
            states[epochs] = recipes.digest(command([*TRAIN[2:], "--epochs", epochs, "--transport", "local"]))
        return states[epochs]

    return after


def command(words):
    """Run the command here; return its trainer."""
    from daskconv.cli import commands
    from daskconv.cli import training as cli

    found, fit = [], cli._fit

    def watched(trainer, *args):
        found.append(trainer)
        fit(trainer, *args)

    cli._fit = watched
    try:
        commands([str(word) for word in words], standalone_mode=False)
    finally:
        cli._fit = fit
    return found[0]


def went_on(runs, undisturbed):
    """Resume here, on threads, and compare the bits."""
    checkpoint = load_checkpoint(runs)
    epochs = checkpoint.state.position.epoch + 1
    resumed = command(
        ["train", "--data", "digits", "--resume", runs, "--epochs", epochs, "--transport", "local"]
    )
    files = read_manifest(runs / folder.names(runs)[-1])["files"]
    assert set(files) == {f"shard-0000{number}.safetensors" for number in (0, 1, 2)}, (
        "a worker writes its share"
    )
    assert resumed.steps > checkpoint.state.steps > 0
    return recipes.digest(resumed) == undisturbed(epochs)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=SLOW), pytest.param(3, marks=SLOW)])
def test_a_killed_rank_ends_the_job_and_training_goes_on_to_the_same_bits(training, undisturbed, rank):
    started = time.monotonic()
    os.kill(training.ranks[rank], signal.SIGKILL)
    training.communicate(timeout=60)
    assert training.returncode != 0 and time.monotonic() - started < 60
    jobs.wait_until_gone(lambda: jobs.running(training.ranks))
    assert went_on(training.runs, undisturbed)


SIGNALS = [
    pytest.param(signal.SIGTERM, "launcher", 143, id="SIGTERM to the launcher"),
    pytest.param(signal.SIGUSR1, "ranks", 138, id="SIGUSR1 to every rank", marks=SLOW),
    pytest.param(signal.SIGTERM, "ranks", 143, id="SIGTERM to every rank", marks=SLOW),
    pytest.param(signal.SIGTERM, "both", 143, id="SIGTERM to all", marks=SLOW),
    pytest.param(signal.SIGUSR1, "launcher", 138, id="SIGUSR1 to the launcher", marks=SLOW),
]


@pytest.mark.parametrize(("number", "to", "code"), SIGNALS)
def test_a_signal_ends_the_step_in_a_checkpoint_and_training_goes_on(training, undisturbed, number, to, code):
    if to != "launcher":
        for process in training.ranks:
            os.kill(process, number)
    if to != "ranks":
        training.send_signal(number)
    said, errors = training.communicate(timeout=60)
    assert training.returncode == code, errors
    assert "Traceback" not in errors
    found = re.search(
        rf"stopped on {number.name} after (\d+) epochs and (\d+) steps: the last full step is kept in "
        rf"(\S+)\. Go on with: (daskconv train --data digits --resume \S+)",
        said,
    )
    assert found, said
    position = load_checkpoint(training.runs).state.position
    assert (position.epoch, position.step) == (int(found[1]), int(found[2]))
    assert Path(found[3]) == training.runs / folder.names(training.runs)[0]
    assert shlex.split(found[4])[-1] == str(training.runs)
    jobs.wait_until_gone(lambda: jobs.running(training.ranks))
    assert went_on(training.runs, undisturbed)
