"""Checkpoints beside the training: complete or not there, verified or not read, and resumed to the same bits."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

import daskconv
from daskconv import SGD, Checkpoints, CosineRate, events
from daskconv.errors import DataError, InputError
from daskconv.train.checkpoints import folder, write
from daskconv.train.checkpoints import shard as shard_file
from daskconv.train.files import load_checkpoint
from train.small import STEPS, X, Y, bits, figures, fit, refuse, trainer

ENVIRON = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
EPOCHS = 3
VALIDATION = (X[:40], Y[:40])
OPTIMIZER = SGD(CosineRate(0.05, EPOCHS), momentum=0.9, weight_decay=1e-3)


def run(where=None, **options):
    new = trainer(optimizer=OPTIMIZER, average=0.9, **options)
    return new if where is None else new.resume(where)


def train(one, **options):
    return fit(one, **{"epochs": EPOCHS, "validation_data": VALIDATION, **options})


@pytest.fixture(scope="module")
def undisturbed():
    return train(run())


@pytest.fixture(scope="module")
def every_step(tmp_path_factory):
    """A folder with the checkpoints of all steps, and one step that is not there."""
    path = tmp_path_factory.mktemp("checkpoints")
    train(run(), checkpoint=Checkpoints(path, steps=1, keep=100))
    return path


@pytest.fixture
def few(every_step, tmp_path):
    """A folder with the checkpoints of steps 3, 4 and 6."""
    for name in ("step-000000003", "step-000000004", "step-000000006"):
        shutil.copytree(every_step / name, tmp_path / "few" / name)
    return tmp_path / "few"


def test_checkpoints_change_no_bit(undisturbed, tmp_path):
    one = train(run(), checkpoint=Checkpoints(tmp_path, steps=2))
    assert bits(one) == bits(undisturbed) and figures(one.history) == figures(undisturbed.history)


def test_every_step_has_one_and_each_goes_on_to_the_same_bits(every_step, undisturbed):
    names = folder.names(every_step)
    assert [folder.steps_of(name) for name in names] == list(range(EPOCHS * STEPS, 0, -1))
    assert sorted(os.listdir(every_step)) == sorted(names)
    for name in names[1:]:
        one = train(run(folder.read(every_step / name)))
        assert bits(one) == bits(undisturbed), name
        assert figures(one.history) == figures(undisturbed.history), name


def test_a_checkpoint_says_what_it_holds(few):
    contents = json.loads((few / "step-000000004" / "manifest.json").read_text())["contents"]
    assert contents["training"] | {"sums": 0, "history": 0, "options": 0} == {
        "steps": 4,
        "epoch": 0,
        "step": 4,
        "sums": 0,
        "history": 0,
        "options": 0,
    }
    options = contents["training"]["options"]
    assert options["seed"] == 0 and options["optimizer"]["learning_rate"]["kind"] == "CosineRate"
    assert {"plan", "methods", "tuning", "images", "batch_size"} < options.keys()
    assert contents["versions"].keys() > {"python", "numpy", "numba", "daskconv"}
    assert contents["model"]["network"]["kind"] == "Network"
    assert contents["arrays"]["params/conv1.weight"] == {"dtype": "float32", "shape": [3, 3, 1, 6]}
    assert {name.partition("/")[0] for name in contents["arrays"]} == {"params", "slots", "preprocess"}
    (entry,) = contents["files"].values()
    assert entry["bytes"] > 0 and len(entry["sha256"]) == 64


def test_the_newest_and_the_best_stay(tmp_path):
    scores = []

    def note(trainer, logs):
        scores.append(logs["val_accuracy"])

    spec = Checkpoints(tmp_path, steps=STEPS, keep=1, best="val_accuracy")
    train(run(), epochs=6, checkpoint=spec, callbacks=[note])
    best = (scores.index(max(scores)) + 1) * STEPS
    assert sorted(os.listdir(tmp_path)) == sorted({folder.name_of(best), folder.name_of(6 * STEPS)})
    assert Checkpoints("f").score({"loss": 2.0}) == -2.0
    assert Checkpoints("f").score({"loss": 2.0, "val_loss": 3.0}) == -3.0
    assert Checkpoints("f", best="top5").score({"loss": 2.0}) is None


def test_minutes_make_them_due(tmp_path):
    one = run()
    train(one, epochs=2, checkpoint=Checkpoints(tmp_path, minutes=1e-6, keep=100))
    assert len(folder.names(tmp_path)) > 2
    few = tmp_path / "few"
    train(run(), epochs=2, checkpoint=Checkpoints(few, minutes=60, best="nothing"))
    assert [folder.steps_of(name) for name in folder.names(few)] == [2 * STEPS]


def test_one_is_written_while_the_steps_go_on(tmp_path, monkeypatch):
    whole, busy, seen = write.write, threading.Event(), []

    def slowly(*args):
        busy.set()
        time.sleep(0.3)
        whole(*args)
        busy.clear()

    monkeypatch.setattr(write, "write", slowly)
    with events.listening(lambda event: seen.append(busy.is_set())):
        one = train(run(), checkpoint=Checkpoints(tmp_path, steps=STEPS))
    assert any(seen) and bits(one) == bits(train(run()))


def test_resuming_a_folder_goes_on_there(few, undisturbed):
    one = train(run(few), checkpoint=Checkpoints(few, steps=100))
    assert bits(one) == bits(undisturbed)
    assert folder.steps_of(folder.names(few)[0]) == EPOCHS * STEPS
    assert daskconv.load(few).params.keys() == one.model.params.keys() and bits(daskconv.load(few)) == bits(
        one
    )


def test_another_training_does_not_mix_with_the_checkpoints_of_a_folder(few):
    before = sorted(os.listdir(few))
    refuse("holds the checkpoint step-000000006 and this training has done 0", train, run(), checkpoint=few)
    old = run(folder.read(few / "step-000000003"))
    refuse("resume from it, or give another folder", train, old, checkpoint=few)
    assert sorted(os.listdir(few)) == before


def test_what_killed_processes_left_is_swept_away(few):
    for name in (".part-step-000000007-12345678", ".old-step-000000001-12345678"):
        shutil.copytree(few / "step-000000003", few / name)
    train(run(few), checkpoint=few)
    assert not [name for name in os.listdir(few) if name.startswith(".")]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"steps": 0}, "Checkpoints' steps is 0"),
        ({"minutes": 0}, "Checkpoints' minutes is 0"),
        ({"minutes": float("nan")}, "Checkpoints' minutes is nan"),
        ({"keep": 0}, "Checkpoints' keep is 0"),
    ],
)
def test_wrong_options_are_refused(options, match):
    refuse(match, Checkpoints, "f", **options)


def test_folders_that_cannot_be_are_refused_before_anything_is_trained(tmp_path):
    (tmp_path / "file").write_text("")
    for path, match in ((tmp_path / "file", "cannot be made"), ("/proc/none", "cannot be made")):
        refuse(match, train, run(), checkpoint=path, error=DataError)
    refuse("checkpoint is 3: give a folder", train, run(), checkpoint=3)
    refuse("holds no checkpoint", run, tmp_path, error=DataError)


# ------------------------------------------------------------------------------------ damage


def shard(path, name="step-000000006"):
    (found,) = (path / name).glob("shard-*")
    return found


def flip_shard(path):
    content = bytearray(shard(path).read_bytes())
    content[-100] ^= 1
    shard(path).write_bytes(content)
    return "step-000000006/shard-00000.safetensors has other contents than its manifest says"


def flip_manifest(path):
    text = (path / "step-000000006" / "manifest.json").read_text()
    assert '"step": 1,' in text
    (path / "step-000000006" / "manifest.json").write_text(text.replace('"step": 1,', '"step": 0,'))
    return "step-000000006/manifest.json has other contents than it says itself"


def truncate(path):
    os.truncate(shard(path), 1000)
    return "step-000000006/shard-00000.safetensors has 1,000 bytes instead of"


def delete_shard(path):
    shard(path).unlink()
    return r"step-000000006/shard-00000.safetensors cannot be read \(No such file"


def delete_manifest(path):
    (path / "step-000000006" / "manifest.json").unlink()
    return r"step-000000006/manifest.json cannot be read \(No such file"


def swap_manifests(path):
    one, other = (path / name / "manifest.json" for name in ("step-000000006", "step-000000004"))
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)
    return (
        "step-000000006/manifest.json belongs to step-000000004; .*4/manifest.json belongs to step-000000006"
    )


def swap_shards(path):
    a, b = shard(path).read_bytes(), shard(path, "step-000000004").read_bytes()
    shard(path).write_bytes(b)
    shard(path, "step-000000004").write_bytes(a)
    return "step-000000006/.* has other contents.*step-000000004/.* has other contents"


DAMAGE = [flip_shard, flip_manifest, truncate, delete_shard, delete_manifest, swap_manifests, swap_shards]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_training_falls_back_to_what_verifies(few, undisturbed, damage):
    match = damage(few)
    expected = 3 if "swap" in damage.__name__ else 4
    with pytest.warns(
        RuntimeWarning, match=f"{match}.*: this is not used, training falls back to .*{expected}"
    ):
        one = run(few)
    assert one.steps == expected
    assert bits(train(one, checkpoint=Checkpoints(few, steps=1))) == bits(undisturbed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_checkpoint(few).state.steps == EPOCHS * STEPS
    kept = {name.rpartition("-")[0] for name in os.listdir(few) if name.startswith("damaged-")}
    assert "damaged-step-000000006" in kept


def test_where_nothing_verifies_nothing_is_loaded(few):
    for name in folder.names(few):
        os.truncate(shard(few, name), 10)
    for read in (daskconv.load, load_checkpoint, run):
        refuse(
            "holds no checkpoint that verifies: .*6/shard.*; .*4/shard.*; .*3/shard",
            read,
            few,
            error=DataError,
        )


def test_any_flipped_byte_is_refused(few):
    for path in (few / "step-000000006").iterdir():
        whole = path.read_bytes()
        for at in range(0, len(whole), 97):
            damaged = bytearray(whole)
            damaged[at] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=path.name):
                folder.read(few / "step-000000006")
        path.write_bytes(whole)
    folder.read(few / "step-000000006")


def test_files_outside_of_the_folder_are_not_read(few):
    from daskconv.train.checkpoints.manifest import read_manifest, write_manifest

    contents = read_manifest(few / "step-000000006")
    (entry,) = contents["files"].values()
    for name in ("../step-000000004/shard-00000.safetensors", str(shard(few).absolute())):
        (few / "step-000000006" / "manifest.json").unlink()
        write_manifest(few / "step-000000006", contents | {"files": {name: entry}})
        with pytest.raises(DataError, match="names files outside of its folder"):
            folder.read(few / "step-000000006")


@pytest.mark.parametrize(
    ("boxes", "match"),
    [
        ([[[0, 4]], [[4, 9]]], "is not whole: the files hold 9"),
        ([[[0, 5]], [[4, 9]]], "is not whole: the files hold 10"),
        ([[[0, 4]], [[6, 12]]], "is not whole: the files hold 10"),
        ([[[0, 10]], [[0, 10]]], "is not whole: the files hold 20"),
    ],
)
def test_arrays_whose_pieces_do_not_make_a_whole_are_refused(boxes, match):
    import numpy as np

    from daskconv.train.checkpoints.shard import Piece, assembled

    pieces = [Piece("w", tuple(map(tuple, box)), np.ones(box[0][1] - box[0][0])) for box in boxes]
    with pytest.raises(DataError, match=match):
        assembled({"w": {"dtype": "float64", "shape": [10]}}, pieces)


# ------------------------------------------------------------------------------------ crashes


def test_a_crash_at_any_call_of_a_write_leaves_the_checkpoint_before_or_the_new_one(tmp_path):
    script = Path(__file__).with_name("crash_at_each_call.py")
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=240, env=ENVIRON
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    calls = found["calls"]
    assert calls.count("fsync") == 4 and calls.count("rename") == 1 and calls.count("write") == 2
    assert found["kills"] >= 2 * len(calls) and found["lost power"] >= len(calls)
    assert found["full disks"] == len(calls) and found["before"] > 0 and found["after"] > 0


def test_a_full_disk_is_a_warning_and_training_goes_on(tmp_path, undisturbed, monkeypatch):
    write_file, files = shard_file.write_file, []

    def write_second(path, content):
        files.append(path)
        if len(files) == 2:
            raise OSError(28, os.strerror(28))
        write_file(path, content)

    monkeypatch.setattr(shard_file, "write_file", write_second)
    with pytest.warns(RuntimeWarning, match="step-.* cannot be written: No space left on device; .*5 stays"):
        one = train(run(), checkpoint=Checkpoints(tmp_path, steps=STEPS))
    assert bits(one) == bits(undisturbed)
    assert load_checkpoint(tmp_path).state.steps == EPOCHS * STEPS


def wait_for_the_writer():
    for thread in threading.enumerate():
        if thread.name == "daskconv-checkpoint":
            thread.join()


def test_a_last_checkpoint_that_cannot_be_written_is_an_error(tmp_path, undisturbed, monkeypatch):
    one = run()

    def fail(*args):
        raise OSError(28, os.strerror(28))

    def break_down(trainer, logs):
        if logs["epoch"] == 2:
            wait_for_the_writer()
            monkeypatch.setattr(shard_file, "write_file", fail)

    with (
        pytest.warns(RuntimeWarning, match="000015 cannot be written: No space left"),
        pytest.raises(DataError, match="000015 cannot be written: No space left on device"),
    ):
        train(one, checkpoint=Checkpoints(tmp_path, steps=STEPS), callbacks=[break_down])
    monkeypatch.undo()
    assert load_checkpoint(tmp_path).state.steps == 2 * STEPS
    assert bits(one) == bits(undisturbed)


def test_a_failure_leaves_the_newest_good_state(tmp_path):
    def break_down(trainer, logs):
        if logs["epoch"] == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(run(), checkpoint=Checkpoints(tmp_path, steps=100), callbacks=[break_down])
    assert load_checkpoint(tmp_path).state.steps == 2 * STEPS


def test_a_step_that_is_not_finite_leaves_the_checkpoint_before_it(tmp_path):
    broken = X.astype("float32")
    hot = trainer(optimizer=SGD(CosineRate(1e20, 1), momentum=0.9))
    with pytest.raises(daskconv.errors.WorkerError, match="not finite in step"):
        fit(hot, broken, epochs=3, checkpoint=Checkpoints(tmp_path, steps=1))
    last = load_checkpoint(tmp_path)
    assert last.state.steps == hot.steps >= 1 and bits(last.model) == bits(hot)
    with pytest.raises(InputError, match="holds the checkpoint"):
        fit(trainer(), checkpoint=tmp_path)
