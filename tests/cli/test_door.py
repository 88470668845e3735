"""Options of who gets in, and of files that are damaged."""

import subprocess
import sys

import numpy as np
import pytest

import daskconv
from daskconv import Conv2D, Sequential

OPEN = "NO TLS: whoever reaches its ports can run code as you"


def test_train_without_tls_says_so_and_with_it_does_not(run):
    line = ("train", "--data", "digits", "--epochs", 1, "--workers", 1)
    assert OPEN in run(*line, "--no-tls")[1]
    code, out, _ = run(*line, "--tls")
    assert code == 0 and "page: http" in out and "NO TLS" not in out


def test_predict_takes_it_too(run, tmp_path):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed (extra: io)")
    net = Sequential([Conv2D(2, 3, padding="same")])
    daskconv.Model(net, net.init(0, (16, 16, 1)), input_shape=(16, 16, 1)).save(tmp_path / "m.safetensors")
    zarr.create_array(str(tmp_path / "s.zarr"), data=np.ones((16, 16, 1), "uint8"), chunks=(16, 16, 1))
    code, out, err = run("predict", "m.safetensors", "s.zarr", "--out", "o.zarr", "--workers", 1, "--tls")
    assert code == 0 and "NO TLS" not in out, err


def test_info_under_a_launcher_lists_the_sockets_of_the_job(mpiexec, tmp_path):
    (tmp_path / "info.yaml").write_text("tls: true")
    options = ["--config", str(tmp_path / "info.yaml"), "--no-tls"]  # the command line goes before the file
    command = [sys.executable, "-m", "daskconv.cli", "info", *options]
    out = subprocess.run(
        [mpiexec, "-n", "3", *command], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    assert out.returncode == 0, out.stderr
    assert OPEN in out.stdout
    assert out.stdout.count("Dask scheduler, no TLS") == out.stdout.count("Dask worker, no TLS") == 1
    assert out.stdout.count("  page") == 1 and "MPI" in out.stdout


def test_damaged_images_are_left_out_when_asked(run, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed (extra: io)")
    for name in "ab":
        (tmp_path / "d" / name).mkdir(parents=True)
        for number in range(4):
            image.new("RGB", (12, 12), (number, 1, 2)).save(tmp_path / "d" / name / f"{number}.png")
    (tmp_path / "d" / "a" / "0.png").write_text("no image")
    line = ("train", "--data", "d", "--net", "lenet", "--epochs", 1, "--batch-size", 4)
    code, _, err = run(*line)
    assert code == 2 and "0.png cannot be read" in err
    with pytest.warns(RuntimeWarning, match="1 of 8 images cannot be read"):
        code, _, err = run(*line, "--skip-damaged", "--normalize", "unit")
    assert code == 0, err
