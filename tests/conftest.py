"""What every test may use."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

# Doctests are looked for in every module, and scripts that tests launch under mpiexec must not be imported.
collect_ignore = [str(p) for p in Path(__file__).parent.rglob("*.py") if not p.name.startswith("test_")]

# What somebody has tuned on this machine must not change what is tested, nor a test what they have tuned.
_cache = tempfile.TemporaryDirectory(prefix="daskconv-tests-")
os.environ["DASKCONV_CACHE"] = _cache.name


def missing(what: str, remedy: str) -> None:
    """Skip loudly, or fail where CI=true: there everything has to be set up."""
    reason = f"NO {what.upper()}, SO NOTHING WITH IT WAS TESTED: {remedy}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def mpiexec() -> str:
    """The mpiexec beside this Python, or else the one on PATH."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("mpiexec", path=beside) or shutil.which("mpiexec")
    return found or missing("mpiexec", "pip install 'daskconv[mpich]'")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The system's Chromium or Chrome."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    return found or missing("browser", "install Chromium, on Debian and Ubuntu: apt-get install chromium")
