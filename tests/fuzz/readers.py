"""Coverage-guided fuzzing of whatever reads files that users give: every refusal is one of daskconv's own errors.

python tests/fuzz/readers.py                    # an hour, shared by all readers
python tests/fuzz/readers.py --seconds 60 npz   # a minute for one of them

Each reader runs in a process of its own, under libFuzzer (atheris): an error of another type, more than 2 GB of memory
or an input that takes 20 s end it, and the input is kept in the folder that is printed. What it found so far is kept
there, too, and is where the next run starts (--corpus FOLDER).
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEMORY_MB, SLOWEST = 2048, 20
INSTRUMENTED = ["daskconv", "numpy.lib", "zipfile", "yaml", "PIL", "zarr", "safetensors"]


@dataclass(frozen=True)
class Reader:
    """How bytes become a file that is read, and what to start from.

    Attributes
    ----------
    read : callable
        Takes the bytes and an empty folder.
    seeds : callable
        Good files' bytes.
    needs : str
        The module without which it does not run.
    """

    read: Callable[[bytes, Path], object]
    seeds: Callable[[], Iterator[bytes]]
    needs: str = "daskconv"


def npz(content: bytes, folder: Path) -> None:
    """A whole zip file, or where the first byte is odd an array's bytes in a good one: checksums stop blind changes."""
    from daskconv.datasets import from_npz

    path = folder / "x.npz"
    if content[:1] and content[0] % 2:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content[1:])
            archive.writestr("y.npy", npy([0, 1]))
    else:
        path.write_bytes(content[1:])
    from_npz(path, mapped=bool(content[:1] and content[0] & 2))


def npz_seeds() -> Iterator[bytes]:
    import numpy as np

    for data in (np.zeros((2, 3, 4, 1), "uint8"), np.zeros((2, 3, 4), "float32", order="F")):
        whole = io.BytesIO()
        np.savez(whole, x=data, y=[0, 1], class_names=["a", "b"])
        yield from (bytes([kind]) + whole.getvalue() for kind in (0, 2))
        yield from (bytes([kind]) + npy(data) for kind in (1, 3))


def npy(values: object) -> bytes:
    import numpy as np

    file = io.BytesIO()
    np.save(file, np.asarray(values))
    return file.getvalue()


def pack(content: bytes, folder: Path) -> None:
    """A batch of CIFAR-10: a pickle, or where the first byte is odd the binary layout."""
    from daskconv.datasets import cifar10
    from daskconv.datasets.cifar import BATCHES

    for name in BATCHES:
        (folder / (f"{name}.bin" if content[:1] and content[0] % 2 else name)).write_bytes(content[1:])
    cifar10(folder)


def pack_seeds() -> Iterator[bytes]:
    import pickle

    import numpy as np

    for protocol in (0, 2, 4):
        yield b"\0" + pickle.dumps({b"data": np.zeros((1, 3072), "uint8"), b"labels": [3]}, protocol)
    yield b"\1" + bytes(2 * 3073)


def folder_of_images(content: bytes, folder: Path) -> None:
    from daskconv.datasets import image_folder

    (folder / "a").mkdir()
    (folder / "a" / "0.png").write_bytes(content)
    if (images := image_folder(folder, size=(4, 4))) is not None:
        images.x_train.compute(scheduler="sync")


def folder_seeds() -> Iterator[bytes]:
    from PIL import Image

    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        file = io.BytesIO()
        Image.new("RGB", (5, 4), (1, 2, 3)).save(file, kind)
        yield file.getvalue()


def onnx(content: bytes, folder: Path) -> None:
    import daskconv

    daskconv.load_onnx(content)


def onnx_seeds() -> Iterator[bytes]:
    import daskconv
    from daskconv import Conv2D, Dense, Flatten, GlobalAvgPool2D, MaxPool2D, ReLU, Sequential

    for net in (
        Sequential([Conv2D(2, 3), ReLU(), MaxPool2D(2), Flatten(), Dense(2)]),
        Sequential([Conv2D(1, 1, groups=1), GlobalAvgPool2D(), Dense(2)]),
    ):
        model = daskconv.Model(net, net.init(0, (6, 6, 1)), input_shape=(6, 6, 1))
        yield daskconv.save_onnx(model)


def model(content: bytes, folder: Path) -> None:
    """A model's file; where the first byte is odd only what its header says of it, between good arrays."""
    from safetensors.numpy import save

    import daskconv
    from daskconv.train.files import load_checkpoint

    path = folder / "m.safetensors"
    if content[:1] and content[0] % 2:
        text = content[1:].decode("utf-8", "replace")
        content = b"\0" + save(_arrays(), {"daskconv": text})
    path.write_bytes(content[1:])
    daskconv.load(path)
    load_checkpoint(path)


def _arrays() -> dict:
    net, _ = _small()
    return {f"params/{name}": array for name, array in net.init(0, (4, 4, 1)).items()}


def _small() -> tuple:
    from daskconv import Conv2D, Dense, Flatten, Sequential

    return Sequential([Conv2D(1, 3), Flatten(), Dense(2)]), (4, 4, 1)


def model_seeds() -> Iterator[bytes]:
    import daskconv

    net, shape = _small()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        daskconv.Model(net, net.init(0, shape), input_shape=shape).save(path)
        whole = path.read_bytes()
    yield b"\0" + whole
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    yield b"\1" + header["__metadata__"]["daskconv"].encode()


def scene(content: bytes, folder: Path) -> None:
    """The metadata of a Zarr array with one good chunk."""
    from daskconv.cli.scene import open_scene

    store = folder / "s.zarr"
    (store / "c" / "0").mkdir(parents=True)
    (store / "zarr.json").write_bytes(content)
    (store / "c" / "0" / "0").write_bytes(bytes(16))
    open_scene(str(store))


def scene_seeds() -> Iterator[bytes]:
    import zarr

    with tempfile.TemporaryDirectory() as folder:
        zarr.create_array(folder, shape=(4, 4), chunks=(4, 4), dtype="uint8", compressors=None)
        yield (Path(folder) / "zarr.json").read_bytes()


def manifest(content: bytes, folder: Path) -> None:
    """A checkpoint's manifest that vouches for itself, whatever it says."""
    from daskconv.train.checkpoints import folder as folders
    from daskconv.train.checkpoints import manifest as manifests

    where = folder / "step-00000001"
    where.mkdir()
    try:
        text = manifests._text(json.loads(content)).encode()
    except (ValueError, RecursionError):
        text = content
    (where / manifests.MANIFEST).write_bytes(text)
    folders.read(where)


def manifest_seeds() -> Iterator[bytes]:
    import daskconv

    data = daskconv.datasets.digits()
    with tempfile.TemporaryDirectory() as folder:
        trainer = daskconv.Trainer("lenet", transport="local", preprocess="unit")
        trainer.fit(data.x_train[:64], data.y_train[:64], batch_size=32, progress=False, checkpoint=folder)
        for path in Path(folder).rglob("manifest.json"):
            yield json.dumps(json.loads(path.read_bytes())["contents"]).encode()


def options(content: bytes, folder: Path) -> None:
    """A file of options, in YAML."""
    from daskconv.cli.config import _read

    path = folder / "options.yaml"
    path.write_bytes(content)
    _read(str(path))


def options_seeds() -> Iterator[bytes]:
    yield b"batch-size: 50\nlr: 0.03\naugment: [crop, flip]\n"
    yield b"a: &x [1, 2]\nb: *x\nc: !!python/object/apply:os.system ['true']\n"


READERS = {
    "npz": Reader(npz, npz_seeds),
    "pack": Reader(pack, pack_seeds),
    "folder": Reader(folder_of_images, folder_seeds),
    "onnx": Reader(onnx, onnx_seeds, "onnx"),
    "model": Reader(model, model_seeds),
    "scene": Reader(scene, scene_seeds, "zarr"),
    "manifest": Reader(manifest, manifest_seeds, "daskconv.train.checkpoints"),
    "yaml": Reader(options, options_seeds, "daskconv.cli.config"),
}


def there(name: str) -> bool:
    try:
        return find_spec(READERS[name].needs) is not None
    except ModuleNotFoundError:
        return False


def fuzz(name: str, corpus: Path, seconds: int) -> None:
    """Run one reader until the time is over; never returns."""
    import warnings

    import atheris

    warnings.simplefilter("ignore")
    reader, scratch = READERS[name], Path(tempfile.mkdtemp(prefix="fuzz-"))
    with atheris.instrument_imports(include=INSTRUMENTED):
        from daskconv.errors import DaskconvError

        def once(content: bytes) -> None:
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                try:
                    reader.read(bytes(content), Path(folder))
                except DaskconvError as error:
                    assert "\n" not in str(error), f"more than one line: {error}"

        for number, seed in enumerate(reader.seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
            once(seed)  # imports, and so instruments, what it needs
    limits = [
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-timeout={SLOWEST}",
        "-max_len=20000",
    ]
    atheris.Setup([sys.argv[0], str(corpus), f"-artifact_prefix={corpus}/crash-", *limits], once)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the readers of files.")
    parser.add_argument("readers", nargs="*", choices=[[], *READERS], help="all that are installed")
    parser.add_argument("--seconds", type=int, default=3600, help="of all readers together")
    parser.add_argument("--corpus", type=Path, help="where inputs are kept; a new folder if not given")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    corpus = args.corpus or Path(tempfile.mkdtemp(prefix="daskconv-fuzz-"))
    names = args.readers or [name for name in READERS if there(name)]
    if args.one:
        fuzz(names[0], corpus, args.seconds)
    failed = []
    for name in names:
        (corpus / name).mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, "--one", name, "--corpus", str(corpus / name)]
        seconds = str(max(1, args.seconds // len(names)))
        path = [os.environ.get("PYTHONPATH", ""), str(ROOT)]
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path)), "DASKCONV_JIT": "0"}
        out = subprocess.run([*command, "--seconds", seconds], capture_output=True, text=True, env=environ)
        lines = [line for line in out.stderr.splitlines() if line.startswith("Done ")]
        print(f"{name:<9} {lines[-1] if lines else 'FAILED'}", flush=True)
        if out.returncode or not lines:
            failed.append(name)
            print("\n".join([*out.stderr.splitlines()[-40:], *out.stdout.splitlines()[-5:]]), flush=True)
    print(f"inputs are in {corpus}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
