"""Options from a file, and daskconv's keys in Dask's configuration."""

import os
import re
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import yaml

from daskconv import cli, config
from daskconv.train.files import load_checkpoint

ROOT = Path(__file__).parents[2]


def write(text):
    Path("run.yaml").write_text(text)
    return "--config", "run.yaml"


TRAINING = """
data: digits
net: lenet
batch-size: 60
lr: 2e-2        # a text for YAML
label_smoothing: 0.1
augment: [flip]
trainable: ["dense*"]
epochs: 2
threads: 1
save: model.safetensors
warmup:         # nothing: the default
"""


def test_a_file_gives_options_and_the_line_goes_before_it(run):
    code, out, err = run("train", *write(TRAINING), "--epochs", 1)
    assert (code, err) == (0, "") and "epoch 1/1 " in out
    options = load_checkpoint("model.safetensors").options
    assert options["batch_size"] == 60 and options["optimizer"].rate(0.0) == 0.02
    assert options["loss"].label_smoothing == 0.1 and len(options["augment"]) == 1
    assert options["trainable"] == ("dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias")


def test_what_a_file_says_counts_as_given(run):
    code, _, err = run("train", *write("data: digits\nlr: 1\n"), "--resume", "model")
    assert code == 2 and err.startswith("Error: model is no file")
    assert run("train", *write(TRAINING), "--epochs", 1)[0] == 0
    code, _, err = run("train", *write("data: digits\nlr: 1\n"), "--resume", "model.safetensors")
    assert code == 2 and "--lr: the checkpoint fixes these" in err


def test_several_values_and_flags_of_a_file(run):
    code, out, _ = run("plan", "lenet", *write("input: [8, 8, 1]\nbatch: 8\nplan: n=2,h=2"))
    assert code == 0 and "4 shards, batch 8 of (8, 8, 1)" in out
    code, _, err = run("predict", "m", "x", *write("out: a.csv\noverwrite: true"))
    assert code == 2 and "--overwrite: these are for scenes" in err


def test_every_command_with_options_takes_a_file(run, monkeypatch, tmp_path):
    monkeypatch.setenv("DASKCONV_CACHE", str(tmp_path / "cache"))
    assert run("train", *write(TRAINING), "--epochs", 1)[0] == 0
    np.save("images.npy", np.zeros((2, 8, 8, 1), np.uint8))
    for words, text, said in [
        (
            ["bench", "lenet", "--config", "run.yaml"],
            "input: [8, 8, 1]\nbatch: 4\nrounds: 1\nthreads: 1",
            "4 images",
        ),
        (
            ["tune", "lenet", "--config", "run.yaml"],
            "input: [8, 8, 1]\nbatch: 8\nshards: 4",
            "blocks of 2 images",
        ),
        (["plan", "lenet", "--config", "run.yaml"], "input: [8, 8, 1]\nshards: 2", "2 shards"),
        (["info", "--config", "run.yaml"], "tls: false", "python"),
        (["evaluate", "model.safetensors", "digits", "--config", "run.yaml"], "threads: 1", "accuracy"),
        (
            ["predict", "model.safetensors", "images.npy", "--config", "run.yaml"],
            "out: p.csv",
            "wrote 2 predictions",
        ),
        (["report", "model-run", "--config", "run.yaml"], "out: r.html", "wrote r.html"),
    ]:
        write(text)
        code, out, err = run(*words)
        assert code == 0 and said in out, (words, err)


WRONG = {
    "learning-rate: 1": r"has the key 'learning-rate', which daskconv train .*: the nearest one is '[a-z-]+'",
    "batch_sise: 10": "the key 'batch_sise', which daskconv train does not know: the nearest one is 'batch-size'",
    "config: other.yaml": "the key 'config', which daskconv train does not know",
    "1: 2": "the key '1', which daskconv train does not know",
    "- data": "run.yaml holds no options: give lines such as",
    "": "run.yaml holds no options",
    "data: {a: 1}": "data of run.yaml is {'a': 1}: give one value",
    "lr: true": "lr of run.yaml is True: give one value",
    "trainable: {a: 1}": "trainable of run.yaml is {'a': 1}: give a list",
    "data: [": r"run.yaml cannot be read as YAML \(while parsing",
    "data: !!python/object/apply:os.system ['touch canary']": "could not determine a constructor for the tag",
    "data: &a [*a]": "data of run.yaml is",
    "data: \x00": "run.yaml cannot be read as YAML",
    "[" * 5000: "run.yaml cannot be read as YAML",
    "#" * (1 << 20) + "\n": "run.yaml is larger than 1 MiB",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:20])
def test_a_file_that_does_not_fit_is_one_sentence(run, text):
    code, out, err = run("train", *write(text))
    assert code == 2 and out == "" and err.startswith("Error: ") and err.count("\n") == 1
    assert re.search(WRONG[text], err), err
    assert os.listdir() == ["run.yaml"]  # no code ran


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("batch-size: 2.5", "'2.5' is not a valid integer"), ("momentum: 1", "'--momentum': 1.0 is not in")],
)
def test_values_of_a_file_are_checked_as_those_of_the_line(run, text, sentence):
    code, _, err = run("train", *write(f"data: digits\n{text}"))
    assert code == 2 and sentence in err


def test_a_file_that_is_none_is_one_sentence(run):
    code, _, err = run("train", "--config", "none.yaml")
    assert code == 2 and err.startswith("Error: none.yaml cannot be read as YAML (") and err.count("\n") == 1


# ------------------------------------------------------------------------ Dask's configuration


def keys_in_code():
    pattern = re.compile(r'config\.get\(\s*"(daskconv\.[a-z.-]+)"')
    return {key for path in (ROOT / "daskconv").rglob("*.py") for key in pattern.findall(path.read_text())}


def test_the_defaults_are_all_the_keys_and_the_readme_has_them():
    assert config.known() == keys_in_code()
    rows = re.findall(r"^\| `(daskconv\.[a-z.-]+)`", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(config.known())


def test_dask_knows_the_defaults_and_what_is_set_goes_before_them(tmp_path):
    assert dask.config.get("daskconv.input.ahead") == 1
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"daskconv": {"input": {"cache": "1 MB"}}}))
    probe = "import daskconv, dask; print(dask.config.get('daskconv'))"
    environ = os.environ | {"DASK_DASKCONV__THREADS": "3", "DASK_CONFIG": str(tmp_path)}
    out = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, env=environ, capture_output=True, text=True)
    found = yaml.safe_load(
        out.stdout.replace("None", "null").replace("True", "true").replace("False", "false")
    )
    assert found["threads"] == 3 and found["input"] == {"cache": "1 MB", "ahead": 1}
    assert found["precision"] == "fast"


def test_info_names_what_is_not_at_its_default(run):
    with dask.config.set({"daskconv.thrads": 3, "daskconv.precision": "exact"}):
        out = run("info")[1]
    (line,) = (line for line in out.splitlines() if line.startswith("configuration"))
    assert "daskconv.precision 'exact'" in line
    assert "daskconv.thrads (unknown; the nearest one is daskconv.threads)" in line
    assert "all at its defaults" in run("info")[1]


# ---------------------------------------------------------------------------------- dask conv


@pytest.fixture
def dask_conv(tmp_path):
    """Run `dask conv` with the entry point that pyproject.toml declares, installed or not."""
    import tomllib

    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["dask_cli"]
    folder = tmp_path / "site" / "daskconv-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: daskconv\nVersion: 0.1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (folder / "entry_points.txt").write_text("\n".join(["[dask_cli]", *lines, ""]))
    environ = os.environ | {"PYTHONPATH": f"{folder.parent}:{ROOT}"}

    def call(*words):
        line = [sys.executable, "-m", "dask", *words]
        return subprocess.run(line, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)

    return call


def test_dask_conv_is_the_command(dask_conv):
    out = dask_conv("conv", "--help")
    assert out.returncode == 0 and out.stderr == ""
    assert all(re.search(rf"^  {name} ", out.stdout, re.MULTILINE) for name in cli.commands.commands)
    out = dask_conv("conv", "evaluate", "none", "digits")
    assert (out.returncode, out.stderr) == (2, "Error: none is no file: give a model that daskconv saved.\n")


def test_the_shell_completes_commands_and_options():
    for words, found in [("daskconv tr", "train"), ("daskconv train --batch", "--batch-size")]:
        environ = {
            "_DASKCONV_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        script = "from daskconv.cli import main; main()"
        out = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=os.environ | environ, capture_output=True, text=True
        )
        assert out.stdout.splitlines() == [f"plain,{found}"]
