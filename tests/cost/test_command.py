"""daskconv simulate and calibrate, as they are typed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click import ClickException

from daskconv.cli import commands
from daskconv.cost.machine import SHIPPED, load_machine, read_machine, write_machine

PLAN = ("plan", "alexnet", "--plan", "auto", "--input", "224", "224", "3", "--batch", "256")


def typed(*words: str, cache: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "daskconv.cli", *words],
        capture_output=True,
        text=True,
        env={
            "PATH": "/usr/bin:/bin",
            "DASKCONV_CACHE": str(cache),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        timeout=120,
    )


def test_simulate_prints_a_table_and_draws(tmp_path: Path) -> None:
    words = [
        "simulate",
        "alexnet",
        "--nodes",
        "64",
        "--batch",
        "256",
        "--machine",
        "environment_a",
        "--png",
        "out.png",
    ]
    words[-1] = str(tmp_path / "out.png")
    done = typed(*words, cache=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Simulated, not measured: alexnet on environment A, batch 256")
    assert [line.split()[0] for line in lines[2:23]] == ["data"] * 7 + ["hybrid"] * 7 + ["auto"] * 7
    assert "0 of 16 layers measured, the analytic guess for the others" in done.stdout
    assert (tmp_path / "out.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--nodes", "0", "--machine", "environment_a"], "nodes is 0: give an int of at least 1."),
        (["--batch", "0", "--machine", "environment_a"], "batch is 0: give an int of at least 1."),
        ([], "This machine was not calibrated: run daskconv calibrate"),
        (["--machine", "environment_a", "--plan", "best"], "plan is 'best': choose from auto, data"),
    ],
)
def test_what_cannot_be_simulated_is_one_sentence(tmp_path: Path, words: list[str], sentence: str) -> None:
    done = typed("simulate", "lenet", "--input", "28", "28", "1", *words, cache=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {sentence}") and len(done.stderr.splitlines()) == 1


def test_plan_says_what_is_chosen_and_why(tmp_path: Path) -> None:
    done = typed(*PLAN, "--nodes", "16", "--machine", "environment_a", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Simulated: alexnet on 16 workers of environment A, batch 256")
    assert "chosen: the shortest step" in done.stdout and "Layout of the chosen plan" in done.stdout


def test_a_plan_that_fits_nowhere_is_refused(tmp_path: Path) -> None:
    found = json.loads((SHIPPED / "environment_a.json").read_text())
    found["figures"]["memory"]["value"] = 1e8
    (path := tmp_path / "small.json").write_text(json.dumps(found))
    done = typed(*PLAN, "--nodes", "2", "--machine", str(path), cache=tmp_path)
    assert done.returncode == 2
    assert "and one of environment A has 0.1 GB: " in done.stderr and len(done.stderr.splitlines()) == 1


def test_simulate_on_a_dask_cluster_pays_for_its_scheduler(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "small.yaml").write_text("batch: 64\nnodes: 2\ninput: [28, 28, 1]\nmachine: environment_a")
    words = [
        "simulate",
        "lenet",
        "--config",
        str(tmp_path / "small.yaml"),
        "--classes",
        "10",
        "--plan",
        "data",
    ]
    found = {}
    for transport in ("mpi", "dask"):
        commands.main([*words, "--transport", transport], standalone_mode=False)
        found[transport] = float(re.findall(r"^ *data +2 +64 +([\d.]+)", capsys.readouterr().out, re.M)[0])
    assert found["dask"] > found["mpi"]


def test_calibrate_measures_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("daskconv.launch.calibrate._SECONDS", 0.1)
    path, options = tmp_path / "m.json", tmp_path / "options.yaml"
    options.write_text(f"out: {path}")
    commands.main(
        ["calibrate", "lenet=12x12x1", "--no-links", "--config", str(options)], standalone_mode=False
    )
    out, err = capsys.readouterr()
    assert f"saved {path}" in out and err.splitlines()[0] == "peak and memory"
    machine = read_machine(path)
    assert 1e9 < machine.peak / machine.cores < 1e12
    assert machine.jitter >= 0 and machine.crowding >= 1
    assert {kernel.pass_ for kernel in machine.kernels} == {"forward", "backward"}
    assert all(source.startswith("measured by daskconv calibrate") for source in machine.sources.values())
    assert json.loads(path.read_text())["format"] == 1
    line = ["calibrate", "lenet", "--out", str(path)]
    with pytest.raises(
        ClickException, match="NET is 'lenet': give a network of the zoo and its images' shape"
    ):
        commands.main(line, standalone_mode=False)


def test_a_network_is_named_with_its_images() -> None:
    from daskconv.cli.simulation import _net

    network, shape = _net("lenet=28x28x1")
    assert (network.name, shape) == ("lenet", (28, 28, 1))


def test_a_calibrated_machine_is_simulated_with_options_from_a_file(tmp_path: Path) -> None:
    (config := tmp_path / "options.yaml").write_text("batch: 32\n")
    write_machine(load_machine("environment_a"), machine := tmp_path / "m.json")
    done = typed(
        *("simulate", "lenet", "--input", "28", "28", "1", "--nodes", "2", "--machine", str(machine)),
        *("--transport", "dask", "--classes", "10", "--config", str(config)),
        cache=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "lenet on environment A, batch 32 of (28, 28, 1), dask" in done.stdout


@pytest.mark.slow
def test_calibrate_times_messages_too(tmp_path: Path) -> None:
    (config := tmp_path / "options.yaml").write_text("{}\n")
    out = str(tmp_path / "m.json")
    done = typed(
        "calibrate", "lenet=12x12x1", "--links", "--out", out, "--config", str(config), cache=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert f"saved {out}" in done.stdout
    assert 0 < read_machine(Path(out)).message < 0.1
