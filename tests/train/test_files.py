"""Files: what is written comes back to the bit, here and in a new process; damage is one sentence."""

import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import daskconv
from daskconv import SGD, AvgPool2D, Concat, Conv2D, Dense, Flatten, Layer, Model, Network, Node, Normal
from daskconv.errors import DaskconvError, DataError
from daskconv.train.files import _signed, check_writable, load_checkpoint
from train.small import TINY, X, Y, bits, digests, fit, refuse, trainer


@dataclass(frozen=True)
class TimesForTest(Layer):
    """A user's own layer."""

    factor: float = 2.0

    def forward(self, params, x, context):
        return x * self.factor, None

    def backward(self, params, saved, dy, context):
        return dy * self.factor, {}


BRANCHED = Network(
    (
        Node("left", Conv2D(3, (3, 1), padding=((1, 1), (0, 0)), weight_init=Normal(0.2))),
        Node("right", Conv2D(2, 1, bias=False)),
        Node("both", Concat(), ("left", "right")),
        Node("twice", TimesForTest(1.5), ("both",)),
        Node("mean", AvgPool2D(3, stride=2, ceil_mode=True, count_include_pad=False), ("twice",)),
        Node("flat", Flatten(), ("mean",)),
        Node("scores", Dense(10), ("flat",)),
    ),
    name="branched",
)


@pytest.fixture(scope="module")
def trained():
    return fit(trainer(class_names=["zero", "één", *"23456789"]))


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "model.safetensors"
    trained.save(path)
    return path


@pytest.fixture(scope="module")
def branched(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "branched.safetensors"
    fit(trainer(BRANCHED)).model.save(path)
    return path


def test_a_model_comes_back_to_the_bit(trained, saved, tmp_path):
    trained.model.save(tmp_path / "model")
    trained.model.save(str(tmp_path / "again"))
    assert (tmp_path / "model").read_bytes() == (tmp_path / "again").read_bytes()
    for loaded in (daskconv.load(tmp_path / "model"), daskconv.load(str(saved))):
        assert bits(loaded) == bits(trained)
        assert loaded.network == TINY and loaded.input_shape == (8, 8, 1) and loaded.state == {}
        assert loaded.class_names == ("zero", "één", *"23456789")
        assert loaded.predict(X).tobytes() == trained.predict(X).tobytes()


def test_a_branched_net_with_a_custom_layer_comes_back(branched):
    loaded = daskconv.load(branched)
    assert loaded.network == BRANCHED and loaded.network.nodes[3].layer == TimesForTest(1.5)
    fresh = Model(BRANCHED, loaded.params, preprocess=loaded.preprocess)
    assert (loaded.predict(X) == fresh.predict(X)).all()


def test_a_checkpoint_comes_back_to_the_bit(trained, saved):
    checkpoint = load_checkpoint(saved)
    assert digests(checkpoint.state.slots) == digests(trained._state.slots)
    assert checkpoint.state.steps == 5 and checkpoint.state.position.epoch == 1
    assert checkpoint.history == trained.history.epochs
    assert checkpoint.options["optimizer"] == SGD(0.05, momentum=0.9)
    assert checkpoint.options["methods"] == trained.program((8, 8, 1), 50).methods
    assert checkpoint.options["batch_size"] == 50


IN_A_NEW_PROCESS = """
import sys
import numpy as np
import daskconv
model, images, scores, other = sys.argv[1:]
np.save(scores, daskconv.load(model).predict(np.load(images)))
try:
    daskconv.load(other)
except daskconv.errors.DataError as error:
    print(error)
"""


def test_a_new_process_predicts_the_same_bits_and_misses_the_custom_layer(trained, saved, branched, tmp_path):
    np.save(tmp_path / "x.npy", X)
    files = [saved, tmp_path / "x.npy", tmp_path / "scores.npy", branched]
    out = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert out.returncode == 0, out.stderr
    assert np.load(tmp_path / "scores.npy").tobytes() == trained.predict(X).tobytes()
    assert (
        out.stdout.count("\n") == 1 and "holds a 'TimesForTest', which is unknown here: import" in out.stdout
    )


# ------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("left", [0, 4, 8, 100, -1000, -1], ids=str)
def test_a_truncated_file_is_refused(saved, tmp_path, left):
    (tmp_path / "f").write_bytes(saved.read_bytes()[:left])
    for read in (daskconv.load, load_checkpoint, trainer().resume):
        refuse("f is damaged or no daskconv model", read, tmp_path / "f", error=DataError)


def test_any_damaged_byte_of_the_header_is_one_sentence(saved, tmp_path):
    whole = saved.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for at in [*range(8), *range(8, header, 13)]:
        for flip in (1, 128):
            damaged = bytearray(whole)
            damaged[at] ^= flip
            (tmp_path / "f").write_bytes(damaged)
            with pytest.raises(DaskconvError) as caught:
                load_checkpoint(tmp_path / "f")
            assert "\n" not in str(caught.value), str(caught.value)


def test_any_damaged_byte_of_the_weights_is_refused(saved, tmp_path):
    whole = saved.read_bytes()
    for at in range(8 + int.from_bytes(whole[:8], "little"), len(whole), 401):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        (tmp_path / "f").write_bytes(damaged)
        refuse("f is damaged: it has other contents", daskconv.load, tmp_path / "f", error=DataError)


def test_weights_that_do_not_fit_the_network_are_refused(trained, tmp_path):
    model = trained.model
    broken = {name: array.copy() for name, array in model.params.items()}
    broken["dense1.bias"][3] = np.nan
    Model(TINY, broken, input_shape=(8, 8, 1)).save(tmp_path / "f")
    refuse("f: dense1.bias holds values that are not finite", daskconv.load, tmp_path / "f", error=DataError)
    broken["dense1.bias"] = np.zeros(9, np.float32)
    Model(TINY, broken, input_shape=(8, 8, 1)).save(tmp_path / "f")
    refuse(r"dense1.bias should have shape \(10,\) but the file holds \(9,\)", daskconv.load, tmp_path / "f")
    del broken["dense1.bias"]
    Model(TINY, broken, input_shape=(8, 8, 1)).save(tmp_path / "f")
    refuse(r"dense1.bias should have shape \(10,\) but the file holds nothing", daskconv.load, tmp_path / "f")


def signed(text, arrays):
    """The header with its checksum, where it is one that can have one."""
    try:
        return _signed(json.loads(text), arrays)
    except (ValueError, TypeError):
        return text


def test_other_files_are_refused(tmp_path):
    from safetensors.numpy import save_file

    refuse("none is no file: give a model", daskconv.load, tmp_path / "none", error=DataError)
    refuse("holds no checkpoint: give the folder", daskconv.load, tmp_path, error=DataError)
    np.savez(tmp_path / "f.npz", x=X)
    refuse("f.npz is damaged or no daskconv model", daskconv.load, tmp_path / "f.npz", error=DataError)
    save_file({"w": np.zeros(3)}, tmp_path / "f")
    refuse("f is damaged or no daskconv model", daskconv.load, tmp_path / "f", error=DataError)
    for text, sentence in [
        ("[]", "a format that this version does not read"),
        ('{"format": 99}', "a format that this version does not read"),
        ('{"format": 2}', "is no daskconv model"),
        (
            '{"format": 2, "model": {"network": {"kind": "os.system"}}}',
            "holds a 'os.system', which is unknown",
        ),
        (
            '{"format": 2, "model": {"network": {"kind": "Network", "a": 1}}}',
            r"Network has the options \['a'\]",
        ),
        ("{", "damaged"),
    ]:
        arrays = {"w": np.zeros(3)}
        save_file(arrays, tmp_path / "f", {"daskconv": signed(text, arrays)})
        refuse(sentence, daskconv.load, tmp_path / "f", error=DataError)


# ------------------------------------------------------------------------------------ writing


def failing(*args, **kwargs):
    raise OSError(28, os.strerror(28))


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failing_write_leaves_the_old_file_whole(trained, tmp_path, monkeypatch, call):
    target = tmp_path / "model"
    trained.model.save(target)
    before = target.read_bytes()
    other = fit(trainer(seed=1))
    monkeypatch.setattr(os, call, failing)
    for save in (other.save, other.model.save):
        refuse("model cannot be written: No space left on device", save, target, error=DataError)
    monkeypatch.undo()
    assert target.read_bytes() == before and os.listdir(tmp_path) == ["model"]
    assert bits(daskconv.load(target)) == bits(trained)


def test_writing_where_nothing_can_be_written_is_one_sentence(trained, tmp_path):
    for path in (tmp_path / "none" / "f", Path("/proc/none/f")):
        refuse("cannot be written: No such file", trained.save, path, error=DataError)
        refuse("is no folder that can be written to", check_writable, path, error=DataError)
    refuse("cannot be written: Is a directory", trained.save, tmp_path, error=DataError)
    refuse("is a folder: give a file's name", check_writable, tmp_path, error=DataError)
    assert os.listdir(tmp_path) == []
    check_writable(tmp_path / "f")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into any folder")
def test_a_read_only_folder_is_one_sentence(trained, tmp_path):
    tmp_path.chmod(0o500)
    refuse("cannot be written: Permission denied", trained.save, tmp_path / "f", error=DataError)
    refuse("is no folder that can be written to", check_writable, tmp_path / "f", error=DataError)


def test_others_may_read_what_the_umask_allows(trained, tmp_path):
    before = os.umask(0o022)
    try:
        trained.model.save(tmp_path / "model")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o644


def test_specs_that_cannot_be_saved_are_named(tmp_path):
    odd = Network((*TINY.nodes, Node("odd", TimesForTest(factor=object()), ("dense1",))))
    refuse(
        "<object object at .*> cannot be saved: specs hold numbers",
        Model(odd, {}).save,
        tmp_path / "f",
    )
    assert os.listdir(tmp_path) == []


def test_what_is_saved_trains_on(saved):
    before = bits(daskconv.load(saved))
    tuned = fit(trainer(daskconv.load(saved), preprocess=None), X, Y)
    assert bits(tuned).keys() == before.keys() and bits(tuned) != before
