"""``daskconv predict MODEL scene.zarr --out out.zarr`` in processes of its own."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray
import zarr

import daskconv
from daskconv import Conv2D
from scene.scenes import difference, model_of, mosaic, trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    model_of(Conv2D(4, 3, padding=1), Conv2D(2, 1)).save(folder / "map.safetensors")
    trained(daskconv.zoo.lenet(), (8, 8, 1), input_shape=(8, 8, 1)).save(folder / "digits.safetensors")
    scene = mosaic(300, 400)
    zarr.create_array(folder / "scene.zarr", data=scene, chunks=(100, 100, 1))
    zarr.create_array(folder / "bands.zarr", data=np.concatenate([scene] * 3, 2), chunks=(100, 100, 1))
    labels = xarray.DataArray(scene[..., 0], dims=("y", "x"), coords={"x": np.arange(400.0)}, name="red")
    labels.to_dataset().to_zarr(folder / "labels.zarr", zarr_format=2)
    xarray.Dataset({"red": labels, "nir": labels}).to_zarr(folder / "two.zarr", zarr_format=2)
    (folder / "note.txt").write_text("no scene")
    return folder


def command(*args):
    return [sys.executable, "-m", "daskconv.cli", "predict", *map(str, args)]


def predict(folder, *args, prefix=()):
    ended = subprocess.run(
        [*prefix, *command(*args)], cwd=folder, capture_output=True, text=True, timeout=180
    )
    return ended.returncode, ended.stdout, ended.stderr


def whole(folder, name="map.safetensors"):
    return daskconv.load(folder / name).predict(mosaic(300, 400)[None], precision="exact")[0]


def test_a_map(folder):
    code, out, err = predict(
        folder, "map.safetensors", "scene.zarr", "--out", "map.zarr", "--tile", 64, "--precision", "exact"
    )
    assert (code, err) == (0, "")
    assert "chunks 4/4" in out and out.endswith("wrote 300 x 400 x 2 scores to map.zarr\n")
    assert difference(zarr.open_array(folder / "map.zarr", mode="r")[...], whole(folder)) < 1e-6
    again = ("map.safetensors", "scene.zarr", "--out", "map.zarr", "--tile", 64, "--precision", "exact")
    assert predict(folder, *again) == (2, predict(folder, *again)[1], f"Error: {folder}/map.zarr exists: set overwrite "
                                       "to replace it, or resume to finish what was begun.\n")  # fmt: skip
    assert predict(folder, *again, "--resume")[0] == 0
    assert predict(folder, *again, "--overwrite", "--batch", 2, "--threads", 1)[0] == 0


def test_a_sliding_map_on_workers(folder):
    code, out, err = predict(
        *(folder, "digits.safetensors", "scene.zarr", "--out", "digits.zarr"),
        *("--stride", 8, "--workers", 2, "--no-tls"),
    )
    assert (code, err) == (0, "")
    assert "wrote 37 x 50 x 10 scores to digits.zarr" in out


def test_the_variable_of_a_group(folder):
    code, _, err = predict(folder, "map.safetensors", "labels.zarr", "--out", "labelled.zarr")
    assert (code, err) == (0, "")
    stored = xarray.open_dataarray(folder / "labelled.zarr", engine="zarr")
    assert (stored.dims, stored.name, stored.x.values[-1]) == (("y", "x", "c"), "red", 399)


def test_chunks_that_are_not_there_are_zeros_only_where_they_may_be(folder):
    empty = zarr.create_array(folder / "holes.zarr", shape=(60, 60, 1), chunks=(30, 30, 1), dtype="float32")
    empty[:30, :30] = mosaic(30, 30)
    told = ("map.safetensors", "holes.zarr", "--out", "holes-map.zarr")
    code, _, err = predict(folder, *told)
    assert code == 2 and "the scene lacks 3 of its 4 chunks" in err and "--fill-missing" in err
    assert not (folder / "holes-map.zarr").exists()
    assert predict(folder, *told, "--fill-missing")[0] == 0
    seen = zarr.open_array(folder / "holes-map.zarr", mode="r")[...]
    expected = daskconv.load(folder / "map.safetensors").predict(empty[...][None])[0]
    assert difference(seen, expected) < 1e-4


@pytest.mark.slow
def test_on_ranks(folder, mpiexec):
    code, out, err = predict(
        *(folder, "map.safetensors", "scene.zarr", "--out", "ranks.zarr", "--precision", "exact"),
        prefix=(mpiexec, "-n", "4"),
    )
    assert code == 0, err
    assert out.count("wrote 300 x 400 x 2") == 1
    assert difference(zarr.open_array(folder / "ranks.zarr", mode="r")[...], whole(folder)) < 1e-6


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("map.safetensors none.zarr --out a.zarr", "none.zarr does not exist: give a scene's Zarr store."),
        ("map.safetensors note.txt --out a.zarr", "note.txt is no Zarr store"),
        (
            "map.safetensors two.zarr --out a.zarr",
            "two.zarr holds 2 arrays ['nir', 'red']: give the path of one",
        ),
        ("map.safetensors bands.zarr --out a.zarr", "has 3 channels on its axis 2 but the network reads 1"),
        ("map.safetensors scene.zarr --out no/a.zarr", "no is no folder that can be written to"),
        (
            "map.safetensors scene.zarr --out a.csv --tile 8",
            "--tile: these are for scenes, whose --out is a FILE.zarr.",
        ),
        ("digits.safetensors scene.zarr --out a.zarr", "slide its window over the scene with stride="),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(folder, line, sentence):
    code, _, err = predict(folder, *line.split())
    assert code == 2
    assert sentence in err and err.startswith("Error: ") and err.count("\n") == 1, err
    assert not (folder / "a.zarr").exists() and not (folder / "a.zarr.partial").exists()


def test_an_interrupt_says_how_to_go_on(folder):
    pixels = np.ones((16_000, 16_000, 1), np.uint8)
    zarr.create_array(folder / "large.zarr", data=pixels, chunks=(1000, 1000, 1))
    line = ("map.safetensors", "large.zarr", "--out", "large map.zarr")
    process = subprocess.Popen(
        command(*line),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores Ctrl-C, and so would what the tests start then.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list(folder.glob("large map.zarr.partial/c/*/*/*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    expected = "Go on with: daskconv predict map.safetensors large.zarr --out 'large map.zarr' --resume"
    assert expected in out
    assert "Traceback" not in err
