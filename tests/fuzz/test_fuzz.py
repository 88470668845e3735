"""A minute of fuzzing; an hour is `python tests/fuzz/readers.py`."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from conftest import missing


@pytest.mark.slow
def test_a_minute_of_fuzzing_finds_nothing_but_daskconvs_own_errors(tmp_path):
    if find_spec("atheris") is None:
        missing("atheris", "pip install atheris (Linux on x86-64, Python up to 3.14)")
    script = Path(__file__).parent / "readers.py"
    out = subprocess.run(
        [sys.executable, str(script), "--seconds", "60", "--corpus", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert out.returncode == 0, out.stdout[-5000:] + out.stderr[-2000:]
    assert out.stdout.count("Done ") >= 6
