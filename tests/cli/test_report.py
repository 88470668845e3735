"""The folder of a run, and daskconv report."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from daskconv.dashboard.metrics import read_run

LINE = ["train", "--data", "digits", "--threads", 1, "--epochs", 1]


def test_a_run_lies_beside_its_model_and_is_drawn(run):
    code, out, err = run(*LINE, "--save", "models.v2.safetensors")
    assert (code, err) == (0, "") and sorted(os.listdir()) == ["models.v2-run", "models.v2.safetensors"]
    assert os.listdir("models.v2-run") == ["metrics.jsonl"] and "wrote" not in out
    assert read_run("models.v2-run").about["command"].startswith("daskconv train --data digits")
    code, out, err = run("report", "models.v2-run")
    assert (code, out, err) == (0, "wrote models.v2-run/report.html\n", "")
    assert "models.v2" in Path("models.v2-run/report.html").read_text()


def test_a_run_that_saves_nothing_leaves_nothing(run):
    assert run(*LINE)[0] == 0 and os.listdir() == []
    code, _, err = run(*LINE, "--report")
    assert code == 2 and "give --save, or --run" in err and err.count("\n") == 1


def test_resuming_goes_on_in_the_folder(run):
    assert run(*LINE, "--save", "model", "--run", "a/run")[0] == 2  # the folder above has to be there
    assert run(*LINE, "--save", "model", "--run", "mine", "--report")[0] == 0
    assert sorted(os.listdir("mine")) == ["metrics.jsonl", "report.html"] and not Path("model-run").exists()
    line = ["train", "--data", "digits", "--resume", "model", "--epochs", 2, "--run", "mine"]
    assert run(*line)[0] == 0
    assert len(read_run("mine").record.validation.points) == 2
    assert run(*LINE, "--save", "other", "--run", "mine")[0] == 0
    assert sorted(os.listdir("mine")) == ["metrics-1.jsonl", "metrics.jsonl", "report.html"]


def test_runs_are_compared_and_what_is_damaged_is_named(run):
    for name in ("a", "b"):
        assert run(*LINE, "--run", name)[0] == 0
    with Path("b/metrics.jsonl").open("a") as file:
        file.write('{"event":"StepDone",')
    code, out, err = run("report", "a", "b")
    assert (code, out) == (0, "wrote comparison.html\n")
    assert err.startswith("b: Line ") and err.endswith(" is damaged and left out.\n")
    code, out, _ = run("report", "a", "b", "--out", "both.html")
    assert (code, out) == (0, "wrote both.html\n") and Path("both.html").stat().st_size > 500_000


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["report", "none"], "none does not exist: give the folder of a run"),
        (["report", "empty"], "empty is no run, for it has no metrics.jsonl"),
        (["report"], "Missing argument 'RUN [RUN ...]'"),
        ([*LINE, "--run", "file"], "file is a file: give a folder as --run"),
        ([*LINE, "--run", "none/run"], "none is no folder that can be written to"),
        ([*LINE, "--run", "x", "--performance-report"], "is of Dask's workers: give --workers"),
    ],
)
def test_what_does_not_fit_is_one_sentence(run, words, sentence):
    Path("empty").mkdir()
    Path("file").write_text("")
    code, _, err = run(*words)
    assert code == 2 and sentence in err.splitlines()[-1] and "Traceback" not in err
    assert sorted(os.listdir()) == ["empty", "file"]


def test_what_never_began_has_no_report(run):
    np.savez("nan.npz", x_train=np.full((4, 8, 8, 1), np.nan), y_train=np.arange(4))
    code, out, err = run("train", "--data", "nan.npz", "--batch-size", 4, "--save", "model", "--report")
    assert code == 2 and "not finite" in err and "wrote" not in out and os.listdir() == ["nan.npz"]


def test_a_report_that_cannot_be_written_is_one_sentence(run):
    assert run(*LINE, "--run", "a")[0] == 0
    code, _, err = run("report", "a", "--out", "none/report.html")
    assert (
        code == 2 and err.startswith("Error: none/report.html cannot be written (") and err.count("\n") == 1
    )


@pytest.mark.slow
def test_workers_have_dask_s_own_report_too(tmp_path):
    line = [sys.executable, "-m", "daskconv.cli", *LINE[:3], "--epochs", 1, "--workers", 2, "--threads", 1]
    line += ["--run", "r", "--report", "--performance-report", "--no-tls"]
    out = subprocess.run(
        [str(word) for word in line], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert out.returncode == 0 and out.stderr == "", out.stderr
    assert out.stdout.splitlines()[-2:] == ["wrote r/report.html", "wrote r/performance.html"]
    performance = (tmp_path / "r" / "performance.html").read_text()
    assert "Dask Performance Report" in performance and "block_sums" in performance, "workers were sampled"
    record = read_run(tmp_path / "r").record
    assert sorted(record.workers) == ["0", "1"] and record.began.transport == "dask"
