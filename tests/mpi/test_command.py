"""The command under a real mpiexec, as the README has it: its output, its run's folder, Ctrl-C, wrong input."""

import re
import signal
import subprocess
import sys

from daskconv.dashboard.metrics import read_run
from daskconv.train.files import load_checkpoint

LINE = ["-m", "daskconv.cli", "train", "--data", "digits"]


def command(mpiexec, ranks, *words):
    return [mpiexec, "-n", str(ranks), sys.executable, *map(str, words)]


def test_a_job_ends_with_0_and_says_nothing_but_how_it_went(mpiexec, tmp_path):
    line = [*LINE, "--net", "mnist_cnn", "--lr", 0.03, "--epochs", 2, "--batch-size", 50]
    line += ["--patience", 2, "--save", "digits.safetensors", "--report"]
    out = subprocess.run(
        command(mpiexec, 4, *line),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert (out.returncode, out.stderr) == (0, ""), out.stdout + out.stderr
    patterns = [
        r"daskconv: mpi, 2 workers x \d+ threads?, .*page: http://127.0.0.1:\d+/daskconv.*",
        r"epoch 1/2  loss .* images/s",
        r"epoch 2/2  loss .* images/s",
        r"val_loss was best in epoch \d, \d\.\d{4}",
        r"test accuracy \d+\.\d\d% of 359 images",
        r"saved digits.safetensors",
        r"wrote digits-run/report.html",
    ]
    said = out.stdout.splitlines()
    assert len(said) == len(patterns), out.stdout
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(patterns, said, strict=True)), out.stdout
    run = read_run(tmp_path / "digits-run")
    assert run.record.began.transport == "mpi" and len(run.record.workers) == 2 and run.damage == []
    assert len(run.record.validation.points) == 2 and run.record.ended.how == "done"


def test_ctrl_c_saves_and_says_how_to_go_on(mpiexec, tmp_path):
    job = subprocess.Popen(
        command(mpiexec, 3, *LINE, "--epochs", 10_000, "--save", "m.safetensors"),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for line in job.stdout:
            if line.startswith("epoch"):
                break
        job.send_signal(signal.SIGINT)
        said, errors = job.communicate(timeout=60)
    finally:
        job.kill()
    assert job.returncode == 130 and "Traceback" not in errors
    assert re.search(r"^Training stopped on SIGINT after .* --resume m\.safetensors$", said, re.MULTILINE)
    assert load_checkpoint(tmp_path / "m.safetensors").state.position.epoch >= 1
    assert read_run(tmp_path / "m-run").record.ended.how == "stopped"


def test_what_does_not_fit_is_one_sentence(mpiexec, tmp_path):
    line = command(mpiexec, 3, *LINE, "--config", "none.yaml")
    out = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert out.returncode != 0 and "Traceback" not in out.stderr
    assert out.stderr.count("Error: none.yaml cannot be read as YAML") == 1 == out.stderr.count("Error: ")
    assert list(tmp_path.iterdir()) == []
