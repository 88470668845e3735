"""Files that mean harm: a named error, no code run, nothing written elsewhere, memory bounded, in a bounded process."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import daskconv
from daskconv import Conv2D, Dense, Flatten, Sequential
from daskconv.datasets import from_npz, from_zarr, image_folder
from daskconv.errors import DataError, InputError
from reference import refuse

zarr = pytest.importorskip("zarr", reason="zarr is not installed (extra: io)")
onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed (extra: io)")

X, Y = np.arange(128, dtype="uint8").reshape(8, 4, 4, 1), np.arange(8) % 2
MEMORY = 3 << 30  # bytes of address space that the child may use

CHILD = """
import resource, sys
from pathlib import Path
import numpy, zarr, onnx, onnx.reference, PIL.Image
import daskconv
from daskconv.cli.scene import open_scene
resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        if path.suffix == ".onnx":
            daskconv.load_onnx(path)
        elif path.suffix == ".safetensors":
            daskconv.load(path)
        else:
            data = daskconv.datasets.load(path)
            numpy.asarray(data.x_train[:1])
        print(path.name, "was read")
    except daskconv.errors.DaskconvError as error:
        print(path.name, "refused:", str(error).replace(chr(10), "|"))
    except BaseException as error:
        print(path.name, "ended in", type(error).__name__, error)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


class Touch:
    """Leaves a canary where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def npy(header, content=b""):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def saved(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def npz_files(folder, canary):
    objects = np.array([Touch(canary)] * 8, dtype=object)
    np.savez(folder / "objects.npz", x_train=objects, y_train=Y)
    (folder / "pickle.npz").write_bytes(pickle.dumps(Touch(canary)))
    zipped(folder / "pickled-member.npz", {"x.npy": pickle.dumps(Touch(canary)), "y.npy": saved(Y)})
    zipped(folder / "outside.npz", {"../x.npy": saved(X), "/tmp/y.npy": saved(Y)})
    lying = {"descr": "|u1", "fortran_order": False, "shape": (8, 10**5, 10**5, 3)}
    zipped(folder / "lying.npz", {"x.npy": npy(lying, b"123"), "y.npy": saved(Y)})
    header = npy({"descr": "|u1", "fortran_order": False, "shape": (2**32, 4, 4, 1)})
    zipped(folder / "bomb.npz", {"x.npy": header, "y.npy": saved(Y)})
    raw = bytearray((folder / "bomb.npz").read_bytes())
    struct.pack_into("<I", raw, raw.find(b"PK\1\2") + 24, 2**32 - 2)  # 4 GB, unpacked
    (folder / "bomb.npz").write_bytes(raw)


def archives(folder, canary):
    with tarfile.open(folder / "links.tar.gz", "w:gz") as archive:
        for name, target in (
            ("data_batch_1", "/etc/passwd"),
            ("../data_batch_2", "x"),
            ("test_batch", "/dev/zero"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    # A pickle of 12 bytes, of which the unpickler written in C makes 16 GB.
    for name, blob in {"memo": b"\x80\x02Nr\xff\xff\xff\x3f.", "run": pickle.dumps(Touch(canary))}.items():
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
            info = tarfile.TarInfo("data_batch_1")
            info.size = len(blob)
            archive.addfile(info, io.BytesIO(blob))


def images(folder, canary):
    where = folder / "images" / "a"
    where.mkdir(parents=True)
    Image.new("1", (30_000, 30_000)).save(where / "0.png")
    (folder / "text" / "a").mkdir(parents=True)
    (folder / "text" / "a" / "0.jpg").write_text("not an image")


def stores(folder, canary):
    group = zarr.open_group(str(folder / "wild.zarr"), mode="w")
    group.create_array("x_train", data=X, chunks=(1, 4, 4, 1))
    group.create_array("y_train", data=Y)
    path = folder / "wild.zarr" / "x_train" / "zarr.json"
    claims = json.loads(path.read_text()) | {"shape": [10**9, 10**9, 10**9, 1]}
    path.write_text(json.dumps(claims))


def graphs(folder, canary):
    def write(name, nodes, weights, inputs=("n", 3, 8, 8)):
        helper = onnx.helper
        graph = helper.make_graph(
            [helper.make_node(kind, read, out, **more) for kind, read, out, more in nodes],
            "wild",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, inputs)],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * 4)],
            [onnx.numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
        return model

    filled = ("ConstantOfShape", ["s"], ["c"], {})
    wild = np.array([1, 3, 10**5, 10**5], np.int64)
    write("filled", [filled, ("Add", ["x", "c"], ["y"], {})], {"s": wild})
    expand = ("Expand", ["one", "s"], ["c"], {})
    write("expanded", [expand, ("Add", ["x", "c"], ["y"], {})], {"s": wild, "one": np.float32(1)})
    outer = ("Mul", ["a", "b"], ["c"], {})
    sides = {"a": np.ones((60_000, 1), np.float32), "b": np.ones((1, 60_000), np.float32)}
    write("outer", [outer, ("Add", ["x", "c"], ["y"], {})], sides)
    model = write("lying", [("Conv", ["x", "w"], ["y"], {})], {"w": np.ones((2, 3, 3, 3), np.float32)})
    model.graph.initializer[0].dims[:] = [2**31, 3, 2**31, 3]
    (folder / "lying.onnx").write_bytes(model.SerializeToString())


def models(folder, canary):
    header = {"params/w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    for name, text in {"offsets": json.dumps(header).encode(), "long": b"{"}.items():
        size = 2**50 if name == "long" else len(text)
        (folder / f"{name}.safetensors").write_bytes(size.to_bytes(8, "little") + text)
    (folder / "pickle.safetensors").write_bytes(pickle.dumps(Touch(canary)))


def test_each_is_refused_in_a_bounded_process_and_nothing_runs_or_is_written(tmp_path):
    folder, run = tmp_path / "files", tmp_path / "run"
    canary = run / "canary"
    for place in (folder, run):
        place.mkdir()
    for make in (npz_files, archives, images, stores, graphs, models):
        make(folder, canary)
    count, before = len(list(folder.iterdir())), sorted(map(str, tmp_path.rglob("*")))
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD.replace("MEMORY", str(MEMORY)), str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=run,
        env=os.environ
        | {"TMPDIR": str(run), "PYTHONPATH": str(Path(__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"},
    )
    assert out.returncode == 0, out.stderr
    *said, peak = out.stdout.split("\n")[:-2]
    assert count == len(said) == 19
    assert [line for line in said if " refused: " not in line] == []
    assert int(peak.split()[1]) < 1_000_000, "kB of resident memory"
    wild = [line for line in said if line.startswith(("filled.onnx", "expanded.onnx", "outer.onnx"))]
    assert all("makes a constant of shape" in line for line in wild) and len(wild) == 3
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_a_mapped_array_that_claims_more_than_its_part_of_the_file_is_refused(tmp_path):
    header = npy({"descr": "|u1", "fortran_order": False, "shape": (8, 4, 4, 1)}, b"123")
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.writestr("x.npy", header)
        archive.writestr("y.npy", saved(Y))
    refuse_data("claims the shape (8, 4, 4, 1)", from_npz, tmp_path / "f.npz", mapped=True)


def refuse_data(match, function, *args, **kwargs):
    with pytest.raises(DataError) as caught:
        function(*args, **kwargs)
    assert match in str(caught.value) and "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------ Zarr


@pytest.fixture
def stored(tmp_path):
    group = zarr.open_group(str(tmp_path / "d.zarr"), mode="w")
    group.create_array("x_train", data=X + 1, chunks=(2, 4, 4, 1))
    group.create_array("y_train", data=Y)
    return tmp_path / "d.zarr"


def trained(data):
    net = Sequential([Conv2D(2, 3), Flatten(), Dense(2)])
    daskconv.Trainer(net, transport="local", preprocess="unit").fit(
        data.x_train, data.y_train, batch_size=4, progress=False
    )


def test_a_chunk_that_goes_or_breaks_after_loading_never_trains_as_zeros(stored):
    chunk = stored / "x_train" / "c" / "1" / "0" / "0" / "0"
    data = from_zarr(stored)
    whole = chunk.read_bytes()
    chunk.unlink()
    refuse_data("lacks its chunk c/1/0/0/0, which would read as zeros", trained, data)
    chunk.write_bytes(whole[: len(whole) // 2])
    refuse_data("x_train of", trained, data)
    chunk.write_bytes(whole)
    trained(data)


def test_a_scene_that_lacks_a_chunk_is_refused_now_and_while_it_is_read(tmp_path):
    net = Sequential([Conv2D(2, 3, padding="same")])
    model = daskconv.Model(net, net.init(0, (16, 16, 1)))
    scene = zarr.create_array(str(tmp_path / "s"), data=np.ones((32, 32, 1), "uint8"), chunks=(16, 16, 1))
    lazy = model.predict(scene, tile=16)
    (tmp_path / "s" / "c" / "1" / "1" / "0").unlink()
    refuse_data("the scene lacks its chunk c/1/1/0", lazy.compute)
    refuse_data("the scene lacks 1 of its 4 chunks, which would read as zeros", model.predict, scene, tile=16)


# ------------------------------------------------------------------------------------ folders of images


def test_images_that_cannot_be_read_are_left_out_only_when_asked_and_counted(tmp_path):
    (tmp_path / "a").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for number in range(4):
        Image.fromarray(noise).save(tmp_path / "a" / f"{number}.png")
    (tmp_path / "a" / "1.png").write_text("no image")
    whole = (tmp_path / "a" / "2.png").read_bytes()
    (tmp_path / "a" / "2.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(noise).save(tmp_path / "a" / "3.png", "JPEG")  # only its name is wrong
    refuse_data("1.png cannot be read", image_folder, tmp_path)
    with pytest.warns(
        RuntimeWarning, match=r"2 of 4 images cannot be read and are left out: .*1.png, .*2.png"
    ):
        data = daskconv.datasets.load(tmp_path, skip_damaged=True)
    assert data.x_train.compute().shape == (2, 32, 32, 3)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "0.png").write_text("no image")
    refuse_data("class 'b'", image_folder, tmp_path, skip_damaged=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_named(value):
    x = X.astype("float32")
    x[3, 0, 0, 0] = value
    data = daskconv.datasets.Dataset(x, Y, None, None, ("a", "b"))
    assert "x[3] has pixels that are not finite" in refuse("x[3]", trained, data, error=InputError)
