"""The wheel, built and installed into a virtual environment of its own, works from any directory."""

import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Anything here could let the checkout stand in for the wheel.
ENV = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def call(*command: str | Path, cwd: Path) -> str:
    out = subprocess.run([str(part) for part in command], cwd=cwd, env=ENV, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr
    return out.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", out, cwd=ROOT)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it; only its dependencies come from the one that runs this."""
    home = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    install = ("install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", wheel)
    call(sys.executable, "-m", "pip", "--python", python, *install, cwd=home)
    (site,) = (home / "lib").glob("python3*/site-packages")
    # Written after the install, so that pip sees no other daskconv; it comes after `site` on sys.path.
    dependencies = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    return home


def test_the_wheel_holds_what_it_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"daskconv/py.typed", "daskconv/daskconv.yaml", "daskconv/datasets/digits.npz"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    strays = {name.split("/")[0] for name in names if not name.startswith("daskconv")}
    assert not strays, f"the wheel also holds {strays}"


def test_it_imports_from_the_wheel(home: Path, tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    probe = "import daskconv; print(daskconv.__file__); print(daskconv.__version__)"
    file, found = call(home / "bin" / "python", "-c", probe, cwd=tmp_path).split()
    assert Path(file).is_relative_to(home)
    assert found == version


def test_the_digits_come_with_it(home: Path, tmp_path: Path) -> None:
    call(
        home / "bin" / "python",
        "-c",
        "import daskconv; assert daskconv.datasets.digits() is not None",
        cwd=tmp_path,
    )


def test_the_command_runs_by_both_its_names(home: Path, tmp_path: Path) -> None:
    assert "train" in call(home / "bin" / "daskconv", "--help", cwd=tmp_path)
    assert "train" in call(home / "bin" / "python", "-m", "dask", "conv", "--help", cwd=tmp_path)
