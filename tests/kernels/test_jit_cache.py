"""Numba's cache holds pickles: none is loaded from where others may have put it."""

import contextlib
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
from daskconv.kernels.jit import njit

@njit(cache=True)
def double(x):
    return 2 * x
"""


class Planted:
    """Leaves a canary wherever it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


@pytest.fixture
def kernel(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "kernel.py").write_text(MODULE)

    def run(**environ):
        home = {"XDG_CACHE_HOME": str(tmp_path / "home"), "NUMBA_CACHE_DIR": ""}
        path = os.pathsep.join([str(tmp_path / "src"), str(Path(__file__).parents[2])])
        out = subprocess.run(
            [sys.executable, "-c", "import kernel; print(kernel.double(21))"],
            env=os.environ | home | {"PYTHONPATH": path} | environ,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert out.stdout == "42\n", out.stderr

    return run


def compiled(folder):
    """The indices of what is compiled of the test's kernel below a folder."""
    return sorted(folder.rglob("kernel.double-*.nbi"))


@pytest.mark.parametrize("told", [False, True])
def test_a_cache_that_others_may_write_to_is_not_read(tmp_path, kernel, told):
    folder = tmp_path / "told" if told else tmp_path / "src" / "__pycache__"
    environ = {"NUMBA_CACHE_DIR": str(folder)} if told else {}
    kernel(**environ)
    (index,) = compiled(folder)
    canary = tmp_path / "canary"
    index.write_bytes(pickle.dumps(Planted(canary)))
    folder.chmod(0o777)
    kernel(**environ)
    assert not canary.exists()
    own = tmp_path / "home" / "daskconv" / "numba"
    assert compiled(own) and stat.S_IMODE(own.stat().st_mode) == 0o700
    # The same pickle in a folder that is this user's alone is what Numba trusts.
    folder.chmod(0o755)
    with contextlib.suppress(AssertionError):  # what is unpickled is no index
        kernel(**environ)
    assert canary.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_cache_of_another_user_is_not_used(tmp_path, kernel):
    folder = tmp_path / "src" / "__pycache__"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    kernel()
    assert not compiled(folder) and compiled(tmp_path / "home")
