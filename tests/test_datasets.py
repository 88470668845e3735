"""Every reader on real files of its format, and on damaged and hostile ones."""

import functools
import gzip
import hashlib
import http.server
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
import zlib

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskconv.datasets import Dataset, cifar10, digits, download, from_npz, from_zarr, image_folder, load
from daskconv.datasets.cifar import BATCHES, CLASSES
from daskconv.errors import DataError, InputError

Image = pytest.importorskip("PIL.Image")
zarr = pytest.importorskip("zarr")

# Python 3.11 has it from 3.11.4 on.
CAREFULLY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def refuse(match, function, *args, error=DataError, **kwargs):
    """The call raises `error` with one line that matches."""
    with pytest.raises(error, match=match) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------- Dataset


def test_digits_are_the_uci_digits():
    data = digits()
    assert data.x_train.shape == (1797, 8, 8, 1) and data.x_train.dtype == np.uint8
    assert data.y_train.dtype == np.int64 and data.x_test is None and data.y_test is None
    assert data.x_train.min() == 0 and data.x_train.max() == 16
    assert np.bincount(data.y_train).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert data.y_train[:10].tolist() == list(range(10))
    assert data.x_train[0, 0, :, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert data.class_names == tuple("0123456789")


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(5, 30), min_size=1, max_size=5),
    test=st.floats(0.2, 0.8),
    seed=st.integers(0, 99),
    lazy=st.booleans(),
)
def test_split_is_stratified_seeded_and_complete(counts, test, seed, lazy):
    y = np.random.default_rng(7).permutation(np.repeat(np.arange(len(counts)), counts))
    x = np.broadcast_to(np.arange(len(y), dtype="float32")[:, None, None, None], (len(y), 2, 2, 1))
    names = tuple(str(i) for i in range(len(counts)))
    whole = Dataset(da.from_array(x, chunks=(4, 2, 2, 1)) if lazy else x, y, None, None, names)
    parts, again = whole.split(test, seed), whole.split(test, seed)
    assert isinstance(parts.x_train, da.Array if lazy else np.ndarray)
    train, held = (np.asarray(part)[:, 0, 0, 0].astype(int) for part in (parts.x_train, parts.x_test))
    assert sorted([*train, *held]) == list(range(len(y)))
    assert (y[train] == parts.y_train).all() and (y[held] == parts.y_test).all()
    assert (np.abs(np.bincount(parts.y_test) - test * np.array(counts)) <= 0.5 + 1e-9).all()
    assert (again.y_test == parts.y_test).all() and (
        np.asarray(again.x_test) == np.asarray(parts.x_test)
    ).all()


def test_split_depends_on_the_seed():
    x0, x1 = (digits().split(seed=seed).x_test for seed in (0, 1))
    assert x0.shape == x1.shape and (x0 != x1).any()


@pytest.mark.parametrize("test", [0, 1, -0.1, 1.5, float("nan")])
def test_split_refuses_fractions_outside_0_and_1(test):
    refuse("no fraction", digits().split, test, error=InputError)


def test_split_refuses_what_it_cannot_do():
    refuse("already", load("digits").split, error=InputError)
    refuse("negative", digits().split, seed=-1, error=InputError)
    few = Dataset(np.zeros((6, 2, 2, 1)), np.array([0, 0, 0, 0, 0, 1]), None, None, ("cat", "dog"))
    refuse("class 'dog' has 1 images", few.split, 0.2, error=InputError)


def test_importing_brings_in_no_reader_library():
    code = (
        "import sys, daskconv; before = set(sys.modules); import daskconv.datasets; "
        "heavy = {'zarr', 'PIL', 'urllib.request', 'http.client', 'dask.delayed'}; "
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# --------------------------------------------------------------------------------------- npz


def arrays(n=12, shape=(4, 5, 3), classes=3):
    random = np.random.default_rng(n)
    x = random.integers(1, 256, (n, *shape), dtype=np.uint8)
    return x, np.arange(n) % classes


def save_npz(path, **kept):
    np.savez(path, **kept)
    return path


def test_npz_round_trip(tmp_path):
    (x, y), (u, v) = arrays(12), arrays(6)
    names = ["a", "b", "ç"]
    path = save_npz(tmp_path / "d.npz", x_train=x, y_train=y, x_test=u, y_test=v, class_names=names)
    for data in (from_npz(path), load(path), load(str(path))):
        assert (data.x_train == x).all() and (data.x_test == u).all()
        assert (data.y_train == y).all() and (data.y_test == v).all() and data.y_test.dtype == np.int64
        assert data.class_names == ("a", "b", "ç")


def test_npz_takes_column_labels_grey_images_and_foreign_memory_orders(tmp_path):
    x, y = arrays(12, (4, 5))
    data = from_npz(save_npz(tmp_path / "d.npz", x_train=x, y_train=y[:, None].astype("u1")))
    assert data.x_train.shape == (12, 4, 5, 1) and data.y_train.tolist() == y.tolist()
    assert data.class_names == ("0", "1", "2") and data.x_test is None
    data = from_npz(save_npz(tmp_path / "f.npz", x=np.asfortranarray(x.astype(">f4")), y=y))
    assert (
        data.x_train.flags.c_contiguous and data.x_train.dtype.isnative and (data.x_train[..., 0] == x).all()
    )


def test_npz_images_may_stay_in_the_file(tmp_path):
    (x, y), (u, v) = arrays(12), arrays(6)
    for float_images in (False, True):
        x, u = (x / 255, u / 255) if float_images else (x, u)
        path = save_npz(tmp_path / "d.npz", y_train=y, x_test=u, x_train=x, y_test=v)
        for data in (from_npz(path, mapped=True), load(path, mapped=True)):
            assert isinstance(data.x_train, np.memmap) and isinstance(data.x_test, np.memmap)
            assert data.x_train.dtype == x.dtype and (data.x_train == x).all() and (data.x_test == u).all()
            assert not isinstance(data.y_train, np.memmap) and (data.y_train == y).all()


def test_npz_images_that_cannot_be_mapped_are_read(tmp_path):
    x, y = arrays(12)
    np.savez_compressed(tmp_path / "c.npz", x_train=x, y_train=y)
    save_npz(tmp_path / "f.npz", x=np.asfortranarray(x), y=y)
    save_npz(tmp_path / "b.npz", x=x.astype(">f4"), y=y)
    for name in "cfb":
        data = from_npz(tmp_path / f"{name}.npz", mapped=True)
        assert not isinstance(data.x_train, np.memmap) and (data.x_train == x).all()


X, Y = arrays()
BAD = {
    "holds no y_train": dict(x_train=X),
    "holds no x_train and no y_train": dict(images=X),
    "holds no y_test": dict(x_train=X, y_train=Y, x_test=X),
    "one label an image": dict(x_train=X, y_train=Y[:-1]),
    "integer class numbers": dict(x_train=X, y_train=Y.astype(float)),
    "integer class numbers, as": dict(x_train=X, y_train=Y.astype(str)),
    "one class number an image": dict(x_train=X, y_train=np.eye(3)[Y]),
    "label -1": dict(x_train=X, y_train=Y - 1),
    "label 4000000000": dict(x_train=X, y_train=np.where(Y, Y, 4_000_000_000)),
    "images as": dict(x_train=X[0, 0], y_train=Y),
    "images as .n, h, w, c.": dict(x_train=X[:0], y_train=Y[:0]),
    "uint8 or float": dict(x_train=X.astype("int16"), y_train=Y),
    "same size and dtype": dict(x_train=X, y_train=Y, x_test=X[:, :2], y_test=Y),
    "same size and dtype$": dict(x_train=X, y_train=Y, x_test=X / 255, y_test=Y),
    "list of 3 names": dict(x_train=X, y_train=Y, class_names=["a", "b"]),
    "allow_pickle": dict(x_train=X, y_train=np.array([{}] * 12, dtype=object)),
}


@pytest.mark.parametrize("match", BAD)
def test_npz_refuses_what_are_no_images_and_labels(tmp_path, match):
    refuse(match, from_npz, save_npz(tmp_path / "d.npz", **BAD[match]))
    refuse(match, from_npz, tmp_path / "d.npz", mapped=True)


def test_npz_refuses_damaged_files(tmp_path):
    path = save_npz(tmp_path / "d.npz", x_train=X, y_train=Y)
    whole = path.read_bytes()
    for damaged in (whole[:-50], whole[:100], b"", b"hello", whole[:300] + b"\0\1\2" + whole[303:]):
        path.write_bytes(damaged)
        refuse("cannot be read", from_npz, path)
        refuse("cannot be read", from_npz, path, mapped=True)
    np.save(tmp_path / "lone.npy", X)
    refuse("cannot be read", from_npz, tmp_path / "lone.npy")
    refuse("no file", from_npz, tmp_path / "none.npz")
    refuse("no file", from_npz, tmp_path)


# ---------------------------------------------------------------------------------- CIFAR-10


def batches():
    random = np.random.default_rng(0)
    return {
        name: (random.integers(0, 256, (20, 3072), dtype=np.uint8), np.arange(20) % 10) for name in BATCHES
    }


def python2(x, y):
    """A batch as Python 2 pickled it: 8-bit text for keys and arrays, and NumPy's old names."""

    def text(data):
        return b"T" + len(data).to_bytes(4, "little") + data

    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"I0\nI1\ntR(I3\n" + text(b"|") + b"NNNI-1\nI-1\nI0\ntb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nt" + text(b"b") + b"tR"
    array += b"(I1\n(I%d\nI%d\nt" % x.shape + dtype + b"I00\n" + text(x.tobytes()) + b"tb"
    labels = b"(l" + b"".join(b"I%d\na" % label for label in y)
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


def python3(protocol):
    def dump(x, y):
        return pickle.dumps({b"data": x, b"labels": y.tolist(), b"batch_label": b"1 of 5"}, protocol=protocol)

    return dump


def binary(x, y):
    return np.concatenate([y[:, None].astype("u1"), x], axis=1).tobytes()


def archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, blob in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))
    return path


WRITERS = {
    "python2": (python2, "cifar-10-batches-py/", ""),
    "protocol2": (python3(2), "cifar-10-batches-py/", ""),
    "protocol4": (python3(4), "cifar-10-batches-py/", ""),
    "binary": (binary, "cifar-10-batches-bin/", ".bin"),
}


def official(path, writer="python2", **replaced):
    dump, folder, end = WRITERS[writer]
    members = {folder + name + end: dump(x, y) for name, (x, y) in batches().items()}
    members |= {folder + "readme.html": b"<html>", folder + "batches.meta": b"not even a pickle"}
    members |= {folder + name: blob for name, blob in replaced.items()}
    return archive(path, {name: blob for name, blob in members.items() if blob is not None})


def check_cifar(data):
    expected = batches()
    x = np.concatenate([x for x, _ in list(expected.values())[:5]]).reshape(-1, 3, 32, 32)
    assert data.x_train.shape == (100, 32, 32, 3) and data.x_test.shape == (20, 32, 32, 3)
    assert data.x_train.flags.c_contiguous and (data.x_train.transpose(0, 3, 1, 2) == x).all()
    assert (data.x_test[3, 2, 1] == expected["test_batch"][0][3].reshape(3, 32, 32)[:, 2, 1]).all()
    assert data.y_train.tolist() == [i % 10 for i in range(20)] * 5 and data.class_names == CLASSES


@pytest.mark.parametrize("writer", WRITERS)
def test_cifar10_archives_and_folders(tmp_path, writer):
    path = official(tmp_path / "cifar.tar.gz", writer)
    check_cifar(cifar10(path))
    check_cifar(load(path))
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path, **CAREFULLY)
    folder = tmp_path / WRITERS[writer][1]
    check_cifar(cifar10(folder))
    check_cifar(load(folder))


def test_cifar10_npz_has_the_class_names(tmp_path):
    x, y = arrays(20, (32, 32, 3), classes=10)
    path = save_npz(tmp_path / "c.npz", x_train=x, y_train=y[:, None], x_test=x, y_test=y[:, None])
    assert cifar10(path).class_names == CLASSES


def attacks(canary):
    command = f"touch {canary}"

    class Call:
        def __init__(self, function, *args):
            self.call = function, args

        def __reduce__(self):
            return self.call

    yield from (pickle.dumps(Call(os.system, command), protocol) for protocol in range(5))
    yield pickle.dumps({b"data": Call(eval, f"open({str(canary)!r}, 'w')"), b"labels": [1]}, 2)
    yield pickle.dumps(Call(functools.partial(os.system, command)), 2)
    shell = command.encode()
    yield b"\x80\x04\x8c\x05numpy\x8c\x0ef2py.os.system\x93\x8c" + bytes([len(shell)]) + shell + b"\x85R."
    yield b"cnumpy.core.multiarray\nos.system\n(S'" + shell + b"'\ntR."
    yield b"(S'" + shell + b"'\nios\nsystem\n."
    yield b"cnumpy\nload\n(S'x.npy'\ntR."


def test_cifar10_runs_nothing_from_a_pickle(tmp_path):
    canary = tmp_path / "canary"
    for blob in attacks(canary):
        refuse("test_batch in .* asks for", cifar10, official(tmp_path / "c.tar.gz", test_batch=blob))
    assert not canary.exists()


def test_cifar10_stand_ins_cannot_be_bent(tmp_path):
    for blob in (
        b"c_codecs\nencode\n}S'__new__'\nI1\nsb.",  # write an attribute onto the stand-in itself
        b"c_codecs\nencode\n(N}S'__new__'\nI1\nstb.",
        b"cnumpy\nndarray\n(I100000000000\ntR.",  # an array of 100 GB
        pickle.dumps({b"data": np.array([os] * 2, dtype=object).astype(str), b"labels": [0, 1]}, 2),
        pickle.dumps({b"data": 10**11, b"labels": [0]}, 2),
        b"(S'data'\ncnumpy\nndarray\n(t\x81(I1\n(I1\ntcnumpy\ndtype\n(S'u1'\ntR(I3\nS'|'\ntbI00\nI100000000000\ntb"
        b"S'labels'\n(lI0\nad.",
        b"]q\x00h\x00a.",
        b"\x80\x02",
        b"",
    ):
        refuse("data_batch_1 in", cifar10, official(tmp_path / "c.tar.gz", data_batch_1=blob))
    check_cifar(cifar10(official(tmp_path / "c.tar.gz", "protocol2")))


def test_cifar10_refuses_batches_of_another_shape(tmp_path):
    x, y = batches()["test_batch"]
    for blob in (
        python2(x[:, :100], y),
        python3(2)(x.astype("int64"), y),
        python3(2)(x, y[:-1]),
        pickle.dumps({b"data": x, b"fine_labels": y.tolist()}, 2),
        pickle.dumps([x, y], 4),
        python2(x, y)[:-2000],
    ):
        refuse(
            "test_batch in .* no CIFAR-10 batch", cifar10, official(tmp_path / "c.tar.gz", test_batch=blob)
        )
    refuse("label 10|up to 10", cifar10, official(tmp_path / "c.tar.gz", test_batch=python2(x, y + 1)))
    short = {"test_batch.bin": binary(x, y)[:-1]}
    refuse("no multiple", cifar10, official(tmp_path / "c.tar.gz", "binary", **short))
    refuse("no data_batch_3:", cifar10, official(tmp_path / "c.tar.gz", data_batch_3=None))


def test_cifar10_refuses_damaged_archives(tmp_path):
    path = official(tmp_path / "c.tar.gz")
    whole = path.read_bytes()
    plain = gzip.decompress(whole)
    damaged = [whole[:-20000], whole[:10], whole[:1000] + b"x" * 50 + whole[1050:], b"hello", plain]
    damaged += [gzip.compress(plain[:100_000]), gzip.compress(b"hello" * 500)]
    for blob in damaged:
        path.write_bytes(blob)
        refuse("cannot be read as a CIFAR-10 archive", cifar10, path)
    refuse("does not exist", cifar10, tmp_path / "none.tar.gz")
    refuse("holds no data_batch_1, ", cifar10, tmp_path)
    refuse("holds no data_batch_1, ", cifar10, archive(path, {}))


def zeros(count):
    """Compressed zeros, block by block."""
    packer = zlib.compressobj(wbits=31)
    return b"".join([packer.compress(bytes(2**20)) for _ in range(count >> 20)] + [packer.flush()])


def test_cifar10_refuses_bombs(tmp_path):
    # A gzip file may be several joined together: headers small enough to write, contents that are all zeros.
    def bomb(name, size, kind=tarfile.REGTYPE):
        info = tarfile.TarInfo(name)
        info.size, info.type = size, kind
        path = tmp_path / "bomb.tar.gz"
        path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT)) + zeros(size))
        return path

    refuse("batch 31 million", cifar10, bomb("test_batch", 2**26 + 2**20))
    refuse("inflates to more", cifar10, bomb("readme.html", 2**28 + 2**20))
    refuse("inflates to more", cifar10, bomb("long", 2**28 + 2**20, tarfile.GNUTYPE_LONGNAME))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("DASKCONV_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "daskconv"


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder on a local web server, which stands for the official address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(download, "ADDRESS", f"http://127.0.0.1:{server.server_port}/cifar.tar.gz")
        yield folder / "cifar.tar.gz"
        server.shutdown()
        thread.join()


def test_cifar10_without_a_network_asks_for_the_path(cache, monkeypatch):
    monkeypatch.setattr(download, "ADDRESS", "http://127.0.0.1:9/cifar.tar.gz")
    refuse(r"cannot be downloaded .* give its path", cifar10)
    assert list(cache.iterdir()) == []


def test_cifar10_without_a_cache_folder_says_so(cache, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    refuse("cannot be downloaded .* into", cifar10)


def test_cifar10_refuses_a_download_with_another_hash(cache, served):
    refuse("cannot be downloaded .*404", cifar10)
    served.write_bytes(b"a login page")
    refuse("has SHA-256 .*, not 6d958be0", cifar10)
    assert list(cache.iterdir()) == []


def test_cifar10_is_downloaded_once(cache, served, monkeypatch):
    official(served)
    monkeypatch.setattr(download, "SHA256", hashlib.sha256(served.read_bytes()).hexdigest())
    check_cifar(load("cifar10"))
    served.unlink()
    check_cifar(cifar10())
    assert [file.name for file in cache.iterdir()] == ["cifar-10-python.tar.gz"]


def test_cifar10_finds_an_unpacked_archive_in_the_cache(cache, tmp_path):
    with tarfile.open(official(tmp_path / "c.tar.gz", "binary")) as tar:
        tar.extractall(cache, **CAREFULLY)
    check_cifar(cifar10())


# ------------------------------------------------------------------------------ image_folder


def paint(folder, counts, size=(6, 8), end="png", mode="RGB"):
    """Folders of plain images; returns the colour of each file in the order of the data set."""
    colours = []
    for label, (name, count) in enumerate(sorted(counts.items())):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            colours.append((10 + label, i, 30))
            image = Image.new("RGB", size[::-1], colours[-1]).convert(mode)
            image.save(folder / name / f"{i:03}.{end}")
    return np.array(colours, "uint8")


def test_image_folder_is_lazy_and_exact(tmp_path):
    colours = paint(tmp_path, {"dog": 70, "cat": 30})
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / "._000.png").write_text("a desktop's remains")
    (tmp_path / ".cache").mkdir()
    data = load(tmp_path)
    assert data.class_names == ("cat", "dog") and data.y_train.tolist() == [0] * 30 + [1] * 70
    assert data.x_train.chunks == ((64, 36), (6,), (8,), (3,)) and data.x_train.dtype == np.uint8
    assert (data.x_train.compute() == colours[:, None, None]).all()
    tasks = dict(dask.optimize(data.x_train)[0].__dask_graph__())
    assert len([key for key in tasks if "read_images" in str(key)]) == 2
    assert data.split(0.2).x_test[:, 0, 0].compute().shape == (20, 3)


def test_image_folder_with_train_and_test(tmp_path):
    paint(tmp_path / "train", {"a": 3, "b": 2, "c": 1})
    paint(tmp_path / "val", {"a": 1, "c": 2})
    data = image_folder(tmp_path)
    assert data.y_train.tolist() == [0, 0, 0, 1, 1, 2] and data.y_test.tolist() == [0, 2, 2]
    refuse("already", image_folder, tmp_path, test=0.5, error=InputError)
    paint(tmp_path / "test", {"d": 1})
    refuse("'d' .* not trained", image_folder, tmp_path)


def test_image_folder_holds_out_a_fraction(tmp_path):
    paint(tmp_path, {"a": 10, "b": 20})
    assert np.bincount(image_folder(tmp_path, test=0.3).y_test).tolist() == [3, 6]


@pytest.mark.parametrize("end", ["jpg", "jpeg", "bmp", "tif", "tiff", "webp", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_image_folder_reads_each_format(tmp_path, end, mode):
    paint(tmp_path, {"a": 2, "b": 2}, end=end, mode=mode)
    x = image_folder(tmp_path).x_train.compute()
    assert x.shape == (4, 6, 8, 3) and 0 < x.mean() < 40


def test_image_folder_makes_rgb_of_palettes_and_transparency(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGBA", (8, 6), (1, 2, 3, 4)).save(tmp_path / "a" / "0.png")
    Image.new("RGB", (8, 6), (1, 2, 3)).quantize().save(tmp_path / "a" / "1.png")
    assert (image_folder(tmp_path).x_train.compute() == [1, 2, 3]).all()


def test_image_folder_resizes_only_when_told(tmp_path):
    paint(tmp_path, {"a": 2}, size=(6, 8))
    paint(tmp_path, {"b": 2}, size=(5, 7))
    refuse(r"6 x 8 and .*000.png is 5 x 7 .*size=", image_folder, tmp_path)
    x = image_folder(tmp_path, size=(3, 4)).x_train.compute()
    assert x.shape == (4, 3, 4, 3) and x[2, 0, 0].tolist() == [10, 0, 30]
    refuse("no image size", image_folder, tmp_path, size=(0, 4), error=InputError)


def test_image_folder_names_a_broken_image(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    broken = tmp_path / "a" / "0.jpg"
    Image.fromarray(noise).save(broken)
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    refuse("0.jpg cannot be read", image_folder(tmp_path).x_train.compute)
    broken.write_bytes(b"no jpeg at all")
    refuse("0.jpg cannot be read", image_folder, tmp_path)
    refuse("0.jpg cannot be read", image_folder, tmp_path, size=(4, 4))


def test_image_folder_refuses_huge_and_deep_images(tmp_path):
    (tmp_path / "a").mkdir()
    for size in ((10_000, 9_000), (20_000, 20_000)):
        Image.new("1", size).save(tmp_path / "a" / "0.png")
        refuse("0.png has more than 89478485 pixels", image_folder, tmp_path, size=(8, 8))
    Image.fromarray(np.full((6, 8), 40_000, "uint16")).save(tmp_path / "a" / "0.png")
    refuse("more than 8 bits", image_folder, tmp_path)


def test_image_folder_refuses_folders_without_images(tmp_path):
    refuse("no folder", image_folder, tmp_path / "none")
    refuse("holds no images", image_folder, tmp_path)
    paint(tmp_path, {"a": 1, "b": 0})
    refuse("class 'b' .* has no images", image_folder, tmp_path)


@pytest.mark.parametrize(("module", "read"), [("PIL.Image", image_folder), ("zarr", from_zarr)])
def test_a_missing_library_is_named(tmp_path, monkeypatch, module, read):
    monkeypatch.setitem(sys.modules, module, None)
    refuse(r"pip install daskconv\[io\]", read, tmp_path, error=InputError)


# -------------------------------------------------------------------------------------- Zarr


def store(path, version=3, chunks=(5, 2, 5, 3), shards=None, **kept):
    group = zarr.open_group(path, mode="w", zarr_format=version)
    for name, values in kept.items():
        whole = name.startswith("x") and values.ndim == 4
        options = {"chunks": chunks, "shards": shards} if whole else {}
        group.create_array(name, data=np.asarray(values), **options)
    return group


def chunk_files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr")))


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_round_trip(tmp_path, version):
    (x, y), (u, v) = arrays(12), arrays(6)
    path = tmp_path / "d.zarr"
    group = store(path, version, x_train=x, y_train=y + 1, x_test=u, y_test=v)
    group.attrs["class_names"] = ["a", "b", "c", "d"]
    for data in (from_zarr(path), load(path)):
        assert isinstance(data.x_train, da.Array) and all(len(part) == 1 for part in data.x_train.chunks[1:])
        assert (data.x_train.compute() == x).all() and (data.x_test.compute() == u).all()
        assert data.y_train.tolist() == (y + 1).tolist() and data.y_test.tolist() == v.tolist()
        assert data.class_names == ("a", "b", "c", "d")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_zarr_takes_x_and_y_and_names_as_an_array(tmp_path):
    x, y = arrays(12)
    store(tmp_path / "group", chunks=(4, 4, 5, 3), x=x, y=y + 1, class_names=np.array(["a", "b", "c", "d"]))
    data = load(tmp_path / "group")
    assert data.x_train.chunks[0] == (4, 4, 4) and data.class_names == ("a", "b", "c", "d")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", ["x_train", "y_train"])
def test_zarr_refuses_missing_chunks(tmp_path, version, name):
    path = tmp_path / "d.zarr"
    store(path, version, x_train=X, y_train=Y + 1)
    files = chunk_files(path / name)
    files[-1].unlink()
    refuse(f"{name} of .* lacks 1 of its {len(files)} chunks", from_zarr, path)
    assert len(from_zarr(path, allow_missing=True).y_train) == 12


def test_zarr_counts_shards(tmp_path):
    path = tmp_path / "d.zarr"
    store(path, chunks=(1, 4, 5, 3), shards=(5, 4, 5, 3), x_train=X, y_train=Y + 1)
    assert (from_zarr(path).x_train.compute() == X).all()
    chunk_files(path / "x_train")[0].unlink()
    refuse("x_train of .* lacks 1 of its 3 chunks", from_zarr, path)


def test_zarr_refuses_other_things(tmp_path):
    path = tmp_path / "d.zarr"
    refuse("no Zarr group", from_zarr, path)
    store(path, x_train=X)
    refuse("holds no y_train", from_zarr, path)
    store(path, x_train=X, y_train=Y[:-1] + 1)
    refuse("one label an image", from_zarr, path)
    store(path, y_train=Y + 1).create_group("x_train")
    refuse("cannot be read", from_zarr, path)
    store(path, x_train=X, y_train=Y + 1)
    chunk_files(path / "y_train")[0].write_bytes(b"damaged")
    refuse("cannot be read", from_zarr, path)
    (path / "zarr.json").write_text("{")
    refuse("no Zarr group", from_zarr, path)
    shutil.rmtree(path)
    zarr.create_array(path, data=X)
    refuse("no Zarr group", load, path)


# -------------------------------------------------------------------------------------- load


def test_load_names_its_choices(tmp_path):
    (tmp_path / "table.csv").write_text("1,2")
    refuse("'mnist' does not exist: give digits, cifar10", load, "mnist")
    refuse("no known ending: give digits", load, tmp_path / "table.csv")
    assert repr(load("digits")) == "Dataset(train 1438 x 8 x 8 x 1 uint8, test 359, 10 classes)"
