"""The command: real processes where signals and exit codes count, this process where sentences do."""

import csv
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import daskconv
from daskconv import LARS, SGD, Adam, AdamW
from daskconv.cli import commands, parts
from daskconv.datasets import load
from daskconv.nn import losses
from daskconv.train.files import load_checkpoint
from train.small import bits

DIGITS = load("digits")
SMALL = {"x_train": DIGITS.x_train[:120], "y_train": DIGITS.y_train[:120]}
HELD_OUT = {"x_test": DIGITS.x_test, "y_test": DIGITS.y_test}
QUICK = ["--batch-size", "60", "--threads", "1"]


def process(*args, cwd):
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "daskconv.cli", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data sets in files, good and bad."""
    folder = tmp_path_factory.mktemp("cli")
    np.savez(folder / "small.npz", **SMALL)
    np.savez(folder / "both.npz", **SMALL, **HELD_OUT)
    np.save(folder / "images.npy", DIGITS.x_test[:30])
    floats = SMALL["x_train"] / np.float32(16)
    floats[57, 0, 0, 0] = np.nan
    np.savez(folder / "nan.npz", x_train=floats, y_train=SMALL["y_train"])
    np.savez(folder / "negative.npz", x_train=SMALL["x_train"], y_train=SMALL["y_train"] - 1)
    np.savez(folder / "eleven.npz", x_train=SMALL["x_train"], y_train=SMALL["y_train"] + 2)
    np.savez(folder / "floats.npz", x_train=SMALL["x_train"], y_train=SMALL["y_train"] / 2)
    np.savez(folder / "counts.npz", x_train=SMALL["x_train"], y_train=SMALL["y_train"][:-1])
    np.savez(folder / "empty.npz", x_train=SMALL["x_train"][:0], y_train=SMALL["y_train"][:0])
    np.savez(folder / "large.npz", x_train=SMALL["x_train"].repeat(2, axis=1), y_train=SMALL["y_train"])
    np.savez(folder / "objects.npz", x_train=np.array([{}], object), y_train=np.array([0]))
    (folder / "truncated.npz").write_bytes((folder / "small.npz").read_bytes()[:-500])
    (folder / "text.npz").write_text("no zip")
    (folder / "text.npy").write_text("no array")
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """A model that a process of its own trained, and what it printed."""
    args = [
        "--data",
        "digits",
        "--epochs",
        2,
        "--batch-size",
        50,
        "--lr",
        0.02,
        "--save",
        "model.safetensors",
    ]
    out = process("train", *args, cwd=folder)
    assert out.returncode == 0, out.stderr
    return folder / "model.safetensors", out


def lines_of(result):
    code, out, err = result
    assert code == 0 and err == "", err
    return out.splitlines()


# ----------------------------------------------------------- train, evaluate, predict, resume


def test_train_reports_epochs_and_saves(trained):
    path, out = trained
    start, *epochs, test, saved = out.stdout.splitlines()
    assert start.startswith("daskconv: local, 1 process x ") and out.stderr == ""
    assert [line[:9] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    accuracy = float(re.fullmatch(r"test accuracy (\d+\.\d\d)% of 359 images", test)[1])
    assert accuracy > 90 and saved == "saved model.safetensors"
    scores = daskconv.load(path).predict(DIGITS.x_test)
    assert accuracy == round(100 * (scores.argmax(1) == DIGITS.y_test).mean(), 2)


def test_fine_tuning_a_saved_model(trained, run, folder):
    path, _ = trained
    line = ["train", "--data", folder / "small.npz", "--from", path, *QUICK, "--epochs", 1, "--save"]
    lines_of(run(*line, "frozen.safetensors", "--trainable", "dense2.*"))
    before, after = daskconv.load(path), daskconv.load("frozen.safetensors")
    moved = {name for name in before.params if (before.params[name] != after.params[name]).any()}
    assert moved == {"dense2.weight", "dense2.bias"} and after.class_names == before.class_names
    np.testing.assert_array_equal(before.preprocess.mean, after.preprocess.mean)
    np.savez("few.npz", x_train=DIGITS.x_train[:90], y_train=DIGITS.y_train[:90] % 3)
    line[2] = "few.npz"
    lines_of(run(*line, "few.safetensors", "--trainable", "dense2.*"))
    few = daskconv.load("few.safetensors")
    assert few.predict(DIGITS.x_test[:2]).shape == (2, 3)
    assert all(
        (few.params[name] == before.params[name]).all() for name in before.params if "dense2" not in name
    )
    lines_of(run("train", "--data", "few.npz", "--resume", "few.safetensors", "--epochs", 2))
    code, _, err = run(*line, "x.safetensors", "--net", "lenet")
    assert code == 2 and "--net and --from: give one of them" in err
    code, _, err = run(
        "train", "--data", "few.npz", "--resume", "few.safetensors", "--from", path, "--epochs", 3
    )
    assert code == 2 and "--from: the checkpoint fixes these" in err


def test_evaluate_agrees_with_predict(trained, run, folder):
    path, _ = trained
    out = process("evaluate", path, "digits", cwd=folder)
    assert out.returncode == 0 and out.stderr == ""
    model = daskconv.load(path)
    for text, x, y in [
        (out.stdout, DIGITS.x_test, DIGITS.y_test),
        (lines_of(run("evaluate", path, folder / "small.npz"))[0], *SMALL.values()),
        (lines_of(run("evaluate", path, folder / "both.npz", "--threads", 1))[0], *HELD_OUT.values()),
    ]:
        loss, accuracy, images = re.fullmatch(
            r"loss (\S+)  accuracy (\S+)% of (\d+) images\n?", text
        ).groups()
        scores = model.predict(x).astype(np.float64)
        assert int(images) == len(x)
        assert float(accuracy) == pytest.approx(100 * (scores.argmax(1) == y).mean(), abs=0.01)
        exps = np.exp(scores)
        expected = -np.log(exps[np.arange(len(y)), y] / exps.sum(1)).mean()
        assert float(loss) == pytest.approx(expected, abs=1e-4)


def test_predict_writes_a_line_an_image(trained, folder):
    path, _ = trained
    out = process("predict", path, "digits", "--out", "out.csv", cwd=folder)
    assert (out.returncode, out.stdout, out.stderr) == (0, "wrote 359 predictions to out.csv\n", "")
    rows = list(csv.DictReader(io.StringIO((folder / "out.csv").read_text())))
    scores = daskconv.load(path).predict(DIGITS.x_test).astype(np.float64)
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    assert [int(row["image"]) for row in rows] == list(range(359))
    assert [int(row["class"]) for row in rows] == scores.argmax(1).tolist()
    assert [row["name"] for row in rows] == [str(best) for best in scores.argmax(1)]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], shares.max(1), atol=2e-6)


@pytest.mark.parametrize(("data", "images"), [("images.npy", 30), ("both.npz", 359), ("small.npz", 120)])
def test_predict_writes_scores(trained, folder, run, tmp_path, data, images):
    path, _ = trained
    lines = lines_of(run("predict", path, folder / data, "--out", "out.npz", "--threads", 1))
    assert lines == [f"wrote {images} predictions to out.npz"]
    x = SMALL["x_train"] if images == 120 else DIGITS.x_test[:images]
    with np.load(tmp_path / "out.npz") as written:
        assert (written["scores"] == daskconv.load(path).predict(x)).all()
        assert (written["classes"] == written["scores"].argmax(1)).all()
        assert written["class_names"].tolist() == list(DIGITS.class_names)


def test_resume_reaches_the_bits_of_training_in_one_go(folder, run, tmp_path):
    base = ["train", "--data", folder / "both.npz", *QUICK]
    fixed = ["--lr", 0.02, "--momentum", 0.8, "--weight-decay", 0.001, "--bias-lr", 2, "--schedule", "step"]
    fixed += ["--warmup", 1, "--normalize", "unit", "--method", "pipelined", "--shards", 3, "--seed", 7]
    lines_of(run(*base, *fixed, "--epochs", 2, "--save", "once"))
    lines = lines_of(run(*base[:3], "--resume", "once", "--epochs", 3))
    assert lines[-1] == "saved once" and [line[:9] for line in lines if "epoch" in line] == ["epoch 3/3"]
    optimizer = load_checkpoint("once").options["optimizer"]
    assert optimizer.rate(0.5) == pytest.approx(0.01) and optimizer.rate(1.7) == pytest.approx(0.002)
    assert optimizer.multiplier("conv1.bias") == 2 and optimizer.momentum == 0.8
    again = load_checkpoint("once")
    assert again.state.position.epoch == 3 and again.options["seed"] == 7 and again.options["shards"] == 3

    trainer = daskconv.Trainer(
        daskconv.zoo.lenet(),
        optimizer=optimizer,
        method="pipelined",
        seed=7,
        shards=3,
        preprocess="unit",
        transport="local",
    )
    trainer.fit(*SMALL.values(), epochs=3, batch_size=60, progress=False)
    for name, array in trainer.model.params.items():
        assert again.model.params[name].tobytes() == array.tobytes()
    assert trainer.history["loss"] == [logs["loss"] for logs in again.history]


def test_resume_may_save_elsewhere(folder, run):
    data = ["train", "--data", folder / "small.npz"]
    lines_of(run(*data, *QUICK, "--epochs", 1, "--save", "first"))
    before = Path("first").read_bytes()
    assert lines_of(run(*data, "--resume", "first", "--epochs", 2, "--save", "second"))[-1] == "saved second"
    assert Path("first").read_bytes() == before and load_checkpoint("second").state.position.epoch == 2
    code, _, err = run(*data, "--resume", "second")
    assert code == 2 and err == "Error: epochs is 2 but 2 are done: give the total to reach.\n"


def test_losses_clipping_batches_and_means_are_the_trainers(folder, run):
    line = ["train", "--data", folder / "both.npz", *QUICK, "--batch-size", 30, "--epochs", 2, "--lr", 0.02]
    line += ["--label-smoothing", 0.1, "--clip-norm", 0.5, "--accumulate", 2, "--average", 0.9]
    lines = lines_of(run(*line, "--schedule", "linear", "--save", "model.safetensors"))
    assert lines[-2:] == ["saved model.safetensors", "saved model-average.safetensors, the running means"]
    trainer = daskconv.Trainer(
        daskconv.zoo.lenet(),
        loss=daskconv.SoftmaxCrossEntropy(label_smoothing=0.1),
        optimizer=SGD(daskconv.PolynomialRate(0.02, 2), momentum=0.9),
        preprocess=daskconv.zoo.PREPROCESS["lenet"],
        clip_norm=0.5,
        accumulate=2,
        average=0.9,
        transport="local",
    )
    trainer.fit(*SMALL.values(), epochs=2, batch_size=30, progress=False)
    for file, model in [("model", trainer.model), ("model-average", trainer.averaged_model)]:
        saved = daskconv.load(f"{file}.safetensors").params
        assert all(saved[name].tobytes() == array.tobytes() for name, array in model.params.items()), file
    lines = lines_of(run(*line[:3], "--resume", "model.safetensors", "--epochs", 3))
    assert lines[-1] == "saved model-average.safetensors, the running means"


def test_augmentation_precision_and_a_page(folder, run):
    line = ["train", "--data", folder / "small.npz", *QUICK, "--epochs", 1, "--save", "model"]
    out = lines_of(run(*line, "--augment", "flip, crop", "--precision", "exact", "--dashboard", 8790))
    assert re.fullmatch(
        r"daskconv: local, 1 process x \d threads?, page: http://127.0.0.1:\d+/daskconv\S*", out[0]
    )
    options = load_checkpoint("model").options
    assert [type(each).__name__ for each in options["augment"]] == ["RandomFlip", "RandomCrop"]
    assert options["precision"] == "exact"
    assert {method for row in options["methods"].values() for method in row.values()} == {"implicit"}
    code, _, err = run("predict", "model", folder / "small.npz", "--out", "out.csv", "--dashboard", 0)
    assert code == 0 or "--dashboard: these are for scenes" in err


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mean_squared_error"])
def test_labels_as_numbers(loss, run):
    np.savez("two.npz", x_train=SMALL["x_train"], y_train=SMALL["y_train"] % 2, x_test=SMALL["x_train"][:9],
             y_test=SMALL["y_train"][:9] % 2)  # fmt: skip
    line = ["train", "--data", "two.npz", *QUICK, "--loss", loss, "--lr", 0.0005, "--schedule", "one-cycle"]
    test = lines_of(run(*line, "--epochs", 4, "--save", "f"))[-2]
    history = load_checkpoint("f").history
    assert test == f"test loss {history[-1]['val_loss']:.4f} of 9 images"
    assert history[-1]["loss"] < history[0]["loss"]
    found = lines_of(run("evaluate", "f", "two.npz", "--loss", loss))
    assert found == [f"loss {history[-1]['val_loss']:.4f} of 9 images"]
    lines_of(run("predict", "f", "two.npz", "--out", "out.csv"))
    rows = list(csv.reader(Path("out.csv").read_text().splitlines()))
    assert rows[0] == ["image", "value"] and len(rows) == 10
    values = daskconv.load("f").predict(SMALL["x_train"][:9])[:, 0]
    np.testing.assert_allclose([float(value) for _, value in rows[1:]], values, atol=1e-6)
    assert daskconv.load("f").class_names == ()


def test_the_choices_of_losses_and_schedules_are_all_there_is():
    assert set(parts.LOSSES) == set(losses.LOSSES)
    options = {"lr": 0.5, "epochs": 8, "warmup": 0}
    kinds = {name: type(parts._schedule(options | {"schedule": name})) for name in parts.SCHEDULES}
    assert kinds["linear"] is daskconv.PolynomialRate and kinds["one-cycle"] is daskconv.OneCycle
    assert len(set(kinds.values())) == len(kinds)


# --------------------------------------------------------------------------------- tune


@pytest.fixture
def quick_to_tune(monkeypatch, tmp_path):
    """A cache of its own, and fewer runs than figures that mean something need."""
    monkeypatch.setenv("DASKCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("daskconv.plan.tune.ROUNDS", 2)
    monkeypatch.setattr("daskconv.plan.tune._MOST_RUNS", 1)


def test_tune_prints_its_table_and_keeps_it(quick_to_tune, run, tmp_path):
    code, out, err = run("tune", "lenet", "--input", 8, 8, 1, "--batch", 8)
    lines = out.splitlines()
    assert code == 0 and lines[0] == "lenet input (8, 8, 1), blocks of 2 images, threads 1"
    assert lines[1].split() == ["layer", "pass", "method", "exact", "rule", "gain", "milliseconds"]
    passes = ("forward", "input_grad", "weight_grad")
    assert [line.split()[:2] for line in lines[2:-1]] == [[f"conv{i}", p] for i in (1, 2) for p in passes]
    assert err.splitlines()[-1] == "6/6 conv2 weight_grad"
    _, path, _, digits = lines[-1].split()
    assert Path(path.rstrip(",")).parent == tmp_path / "cache" / "tuning" and Path(path.rstrip(",")).is_file()
    program = daskconv.Trainer("lenet").program((8, 8, 1), batch_size=8)
    assert program.tuning == digits and {line.split()[2] for line in lines[2:-1]} == {
        method for row in program.methods.values() for method in row.values()
    }


def test_tune_of_a_saved_model_knows_its_images(quick_to_tune, run, folder, trained, monkeypatch):
    monkeypatch.chdir(folder)
    code, out, _ = run("tune", "model.safetensors", "--threads", 2)
    assert code == 0 and out.splitlines()[0] == "lenet input (8, 8, 1), blocks of 25 images, threads 2"


def test_tune_prints_where_nothing_can_be_kept(quick_to_tune, run, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(RuntimeWarning, match="cannot be kept") as caught:
        code, out, _ = run("tune", "lenet", "--input", 8, 8, 1, "--batch", 8)
    assert len(caught) == 1 and code == 0 and "saved" not in out and len(out.splitlines()) == 8


# --------------------------------------------------------------------------------- help, info


@pytest.mark.parametrize("command", [[], *([name] for name in sorted(commands.commands))], ids=str)
def test_help(run, command):
    texts = [lines_of(run(*command, option)) for option in ("--help", "-h")]
    assert texts[0] == texts[1] and texts[0][0].startswith(" ".join(["Usage: daskconv", *command]))
    found = set(re.findall(r"--[a-z-]+", "\n".join(texts[0])))
    known = commands.commands[command[0]] if command else commands
    assert found >= {option for parameter in known.params for option in parameter.opts if option[:2] == "--"}


def test_version(run):
    assert lines_of(run("--version")) == [f"daskconv, version {daskconv.__version__}"]


def test_info_tells_processor_blas_and_mpi(folder):
    out = process("info", cwd=folder)
    assert out.returncode == 0, out.stderr
    facts = dict(line.split(maxsplit=1) for line in out.stdout.splitlines())
    assert re.search(r"\d+ cores for this process$", facts["cpu"])
    assert re.search(r"\d+ threads$", facts["blas"])
    assert facts["tuning"] == "none, the rule chooses methods"
    assert facts["mpi"].startswith("none (") or facts["mpi"].endswith("launched with no ranks")
    assert f"daskconv {daskconv.__version__}, dask 20" in facts["versions"]
    assert facts["executable"] == sys.executable


# --------------------------------------------------------------------------------- bad inputs

BAD = {
    "train --data small.npz --net nope": "net is 'nope': choose one of alexnet, cifar10_quick",
    "train --data small.npz --method nope": "method is 'nope': choose one of auto, direct",
    "train --data small.npz --plan nope": "plan is 'nope'",
    "train --data small.npz --transport nope": "transport is 'nope': choose one of auto, local, dask, mpi",
    "train --data small.npz --loss mean_squared_error --label-smoothing 0.1": "is for softmax_cross_entropy and",
    "train --data small.npz --loss binary_cross_entropy": r"y\[\d+\] is not between 0 and 1",
    "train --data small.npz --accumulate 2": "accumulate is 2 and batch_size 100 but there are 120 images",
    "train --data nope": "'nope' does not exist: give digits, cifar10",
    "train --data nope.npz": "'nope.npz' does not exist",
    "train --data text.npy": "'text.npy' has no known ending",
    "train --data truncated.npz": "truncated.npz cannot be read",
    "train --data text.npz": "text.npz cannot be read",
    "train --data objects.npz": "objects.npz cannot be read",
    "train --data nan.npz": r"x\[57\] has pixels that are not finite",
    "train --data negative.npz": "y_train of negative.npz holds the label -1",
    "train --data floats.npz": "y_train of floats.npz is float64",
    "train --data counts.npz": "120 images but 119 labels",
    "train --data empty.npz": r"x_train of empty.npz has shape \(0, 8, 8, 1\)",
    "train --data small.npz --batch-size 121": "batch_size is 121 but there are 120 images",
    "train --data small.npz --save none/model": "none is no folder that can be written to",
    "train --data small.npz --save .": r"\. is a folder: give a file's name",
    "train --data small.npz --resume none": "none is no file",
    "train --data small.npz --resume text.npz": "text.npz is damaged or no daskconv model",
    "train --data small.npz --resume plain": "plain holds a model but no training",
    "train --data small.npz --resume model.safetensors --epochs 3": "with images 1438 and would go on with 120",
    "train --data large.npz --resume model.safetensors --epochs 3": r"images are \(16, 8, 1\) but training",
    "train --data digits --resume model.safetensors --epochs 2": "epochs is 2 but 2 are done",
    "tune nope --input 8 8 1": "net is 'nope': choose one of alexnet, cifar10_quick",
    "tune lenet": "The shape of an image is not known of lenet: give it as --input H W C",
    "tune small.npz": "small.npz is damaged or no daskconv model",
    "evaluate none small.npz": "none is no file: give a model",
    "evaluate model.safetensors nope": "'nope' does not exist",
    "evaluate model.safetensors eleven.npz": r"y\[\d+\] is 1[01]: the network has 10 outputs",
    "evaluate model.safetensors large.npz": r"Images of \(16, 8, 1\) need dense1.weight of shape",
    "evaluate model.safetensors nan.npz": r"x\[57\] has pixels",
    "predict model.safetensors small.npz --out out.txt": "--out is out.txt: give a file that ends in .csv or .npz",
    "predict model.safetensors small.npz --out none/out.csv": "none is no folder that can be written to",
    "predict model.safetensors large.npz --out out.csv": r"Images of \(16, 8, 1\) need dense1.weight of shape",
    "predict model.safetensors nan.npz --out out.csv": r"images\[57\] has pixels",
    "predict model.safetensors text.npy --out out.csv": "text.npy cannot be read as an array",
    "predict model.safetensors none.npy --out out.csv": "none.npy cannot be read as an array",
    "predict none small.npz --out out.csv": "none is no file",
}


def one_sentence(code, err):
    assert code == 2 and err.startswith("Error: ") and err.count("\n") == 1, err
    return err


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(line, run, trained, folder, monkeypatch):
    monkeypatch.chdir(folder)
    daskconv.load("model.safetensors").save("plain")
    before = sorted(os.listdir())
    code, out, err = run(*line.split())
    assert re.search(BAD[line], one_sentence(code, err)) and "epoch " not in out
    assert sorted(os.listdir()) == before


def test_bad_input_is_one_sentence_of_a_process_too(folder, trained):
    out = process("train", "--data", "nan.npz", "--save", "model.safetensors", cwd=folder)
    one_sentence(out.returncode, out.stderr)
    assert load_checkpoint(trained[0]).state.position.epoch == 2  # the file there is left alone


FIXED = [
    "net lenet",
    "optimizer sgd",
    "lr 1",
    "momentum 0",
    "weight-decay 0",
    "bias-lr 1",
    "schedule step",
    "warmup 0",
]
FIXED += [
    "loss mean_squared_error",
    "label-smoothing 0.1",
    "clip-norm 1",
    "accumulate 1",
    "average 0.9",
    "from x",
]
FIXED += ["precision fast", "augment flip", "trainable *"]
FIXED += ["batch-size 50", "normalize unit", "method auto", "plan data", "shards 4", "seed 0"]


@pytest.mark.parametrize(
    ("options", "optimizer"),
    [
        (["sgd"], SGD(0.002, momentum=0.9)),
        (["adam", "--weight-decay", 0.1], Adam(0.002, weight_decay=0.1)),
        (["adamw", "--momentum", 0.5], AdamW(0.002)),
        (["lars", "--momentum", 0.5, "--weight-decay", 0], LARS(0.002, momentum=0.5, weight_decay=0)),
    ],
    ids=str,
)
def test_optimisers_go_by_name_and_keep_their_own_weight_decay(run, folder, options, optimizer):
    args = ["--optimizer", *options, "--lr", 0.002, "--epochs", 1, "--save", "f"]
    lines_of(run("train", "--data", folder / "both.npz", *args))
    found = load_checkpoint("f").options["optimizer"]
    assert found == replace(
        optimizer, learning_rate=daskconv.ConstantRate(0.002), multipliers={"*.bias": 1.0}
    )


def test_the_help_keeps_its_lines(run):
    lines = lines_of(run("train", "--help"))
    assert "  mpiexec -n 4 daskconv train --data cifar10 --net cifar10_quick --lr 0.001" in lines
    assert not any("\\b" in line or "\b" in line for line in lines)


def test_resume_refuses_options_that_the_file_fixes(run, trained):
    for option in FIXED:
        name, value = f"--{option}".split()
        code, _, err = run("train", "--data", "digits", "--resume", trained[0], name, value)
        assert (
            one_sentence(code, err)
            == f"Error: {name}: the checkpoint fixes these, so leave them out with --resume.\n"
        )
    code, _, err = run("train", "--data", "digits", "--resume", trained[0], "--seed", 1, "--lr", 2)
    assert one_sentence(code, err).startswith("Error: --lr, --seed: the checkpoint")


@pytest.mark.parametrize(
    "line",
    [
        "train",
        "train --data digits --epochs 0",
        "train --data digits --momentum 1",
        "train --data digits --average 1",
        "train --data digits --clip-norm 0",
        "train --data digits --loss hinge",
        "train --data digits --schedule nope",
        "train --data digits --normalize nope",
        "train --data digits --threads none",
        "train --data digits --nope",
        "predict model small.npz",
        "evaluate",
        "nope",
    ],
)
def test_bad_usage_says_so_last_and_exits_with_2(line, run):
    code, out, err = run(*line.split())
    assert code == 2 and out == "" and err.splitlines()[-1].startswith("Error: ") and "Traceback" not in err


# The first step has rate 0, the second makes weights that are large, the third fails.
EXPLODING = ["--batch-size", 120, "--threads", 1, "--lr", 1e9, "--warmup", 1]


def test_a_failing_step_keeps_the_weights_from_before(run, folder):
    data = ["train", "--data", folder / "small.npz"]
    code, out, err = run(*data, *EXPLODING, "--epochs", 4, "--save", "model")
    assert code == 2 and [line[:9] for line in out.splitlines()[1:]] == ["epoch 1/4", "epoch 2/4"]
    kept, error = err.splitlines()
    assert kept == "The weights from before the failure are in model."
    assert error.startswith("Error: The loss or a gradient is not finite in step 3 ")
    assert max(abs(array).max() for array in daskconv.load("model").params.values()) > 1e6


def test_a_failing_step_leaves_the_resumed_file_resumable(run, folder):
    data = ["train", "--data", folder / "small.npz"]
    lines_of(run(*data, *EXPLODING, "--epochs", 2, "--save", "model"))
    code, _, err = run(*data, "--resume", "model", "--epochs", 4)
    assert code == 2 and "not finite in step 3" in err
    assert load_checkpoint("model").state.position.epoch == 2


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_an_infinite_pixel_is_one_sentence_without_a_warning(run):
    images = SMALL["x_train"].astype(np.float32)
    images[57, 0, 0, 0] = np.inf
    np.savez("inf.npz", x_train=images, y_train=SMALL["y_train"])
    code, _, err = run("train", "--data", "inf.npz")
    assert "x[57] has pixels that are not finite" in one_sentence(code, err)


# ---------------------------------------------------------------------------------- signals


def interrupted(number, folder, data, *options):
    """Train without end in a process of its own, send a signal after two epochs: exit code and output."""
    command = [sys.executable, "-m", "daskconv.cli", "train", "--data", data, *QUICK]
    command += ["--epochs", "10000", *options]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            if line.startswith("epoch     2/10000"):
                process.send_signal(number)
                break
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_printed_command_goes_on(number, code, folder, tmp_path, run):
    data, save = tmp_path / "the data.npz", tmp_path / "the model"
    shutil.copy(folder / "small.npz", data)
    kept = ("--run", "a run", "--patience", "20000")
    ended, out, err = interrupted(number, tmp_path, str(data), "--save", str(save), *kept)
    assert (ended, err) == (code, "")
    said = re.search(
        rf"^Training stopped on {number.name} after (\d+) epochs and (\d+) steps: the last full step is kept. "
        r"Go on with: daskconv (train .*--resume .*)$",
        out,
        re.MULTILINE,
    )
    assert said, out
    position = load_checkpoint(save).state.position
    assert (position.epoch, position.step) == (int(said[1]), int(said[2])) and position.epoch >= 2
    assert daskconv.load(save).predict(SMALL["x_train"]).shape == (120, 10)
    assert sorted(os.listdir(tmp_path)) == ["a run", "the data.npz", "the model"]

    assert said[3].endswith(" --patience 20000 --run 'a run'")
    total = position.epoch + 1
    lines = lines_of(run(*shlex.split(said[3]), "--epochs", total))
    assert [line.split("  ")[0] for line in lines if line.startswith("epoch")] == [f"epoch {total}/{total}"]
    assert load_checkpoint(save).state.position.epoch == total and len(load_checkpoint(save).history) == total


def test_the_warning_of_a_batch_system_ends_in_a_checkpoint_that_goes_on(folder, tmp_path):
    data, runs = str(folder / "small.npz"), tmp_path / "runs"
    options = ["--checkpoint", str(runs), "--checkpoint-steps", "1"]
    ended, out, err = interrupted(signal.SIGUSR1, tmp_path, data, *options)
    assert (ended, err) == (138, "")
    said = re.search(
        r"on SIGUSR1 .* kept in (\S+step-\d+)\. Go on with: daskconv (train .*--resume .*)$", out, re.M
    )
    assert said and Path(said[1]).is_dir() and sorted(os.listdir(tmp_path)) == ["runs", "runs-run"], out
    position, names = load_checkpoint(runs).state.position, sorted(os.listdir(runs))
    assert names[-1] == Path(said[1]).name and len(names) in (3, 4)

    shutil.rmtree(said[1])
    os.truncate(runs / names[-2] / "manifest.json", 100)
    total = position.epoch + 1
    command = [*shlex.split(said[2]), "--epochs", total, "--checkpoint-keep", 1, "--save", "model"]
    result = process(*command, cwd=tmp_path)
    assert result.returncode == 0 and result.stderr.startswith("Warning: ")
    assert result.stderr.count("\n") == 1 and f"{names[-2]}/manifest.json is damaged" in result.stderr
    assert f"falls back to {runs / names[-3]}" in result.stderr
    assert load_checkpoint(runs).state.position.epoch == total
    assert bits(daskconv.load(tmp_path / "model")) == bits(daskconv.load(runs))


def test_as_many_checkpoints_stay_as_were_asked_for(run, folder, tmp_path):
    def train(*options):
        command = (
            "train",
            "--data",
            folder / "small.npz",
            "--net",
            "lenet",
            "--epochs",
            3,
            "--batch-size",
            40,
        )
        lines_of(run(*command, "--transport", "local", "--checkpoint", tmp_path / "runs", *options))
        return sorted(os.listdir(tmp_path / "runs"))

    assert len(train("--checkpoint-steps", 1, "--checkpoint-keep", 2, "--wait-workers", 5)) in (2, 3)
    shutil.rmtree(tmp_path / "runs")
    assert len(train("--checkpoint-minutes", 0.0001)) == 3


def test_options_of_checkpoints_need_a_folder(run, folder):
    code, _, err = run("train", "--data", folder / "small.npz", "--checkpoint-steps", 5)
    assert "need --checkpoint FOLDER" in one_sentence(code, err)


def test_the_installed_command_is_the_module(tmp_path):
    script = shutil.which("daskconv", path=str(Path(sys.executable).parent))
    assert script, "no daskconv beside this Python: pip install -e ."
    out = subprocess.run([script, "train"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert out.returncode == 2 and "Missing option '--data'" in out.stderr
