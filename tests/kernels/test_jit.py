"""Plain NumPy in place of compiled kernels: DASKCONV_JIT=0, and where Numba fails."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from daskconv import Conv2D, Sequential
from daskconv.geometry import Window
from daskconv.graph import choose
from daskconv.kernels import jit, plain, pool
from daskconv.launch.start import _check_kernels
from kernels.jit_check import CASES, NET, results
from reference import assert_close, refuse

TESTS = Path(__file__).parents[1]
CHECK = Path(__file__).parent / "jit_check.py"
SWITCHED_OFF = {"DASKCONV_JIT": "0"}


def python(*args, environ, first_on_path=()):
    path = os.pathsep.join(map(str, (*first_on_path, TESTS.parent, TESTS)))
    return subprocess.run(
        [sys.executable, *map(str, args)],
        env=os.environ | environ | {"PYTHONPATH": path},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=250,
    )


def checked(directory, environ, first_on_path=()):
    """The lines that the check printed in a process of its own, and its results."""
    said = python(CHECK, directory / "found.npz", environ=environ, first_on_path=first_on_path)
    assert said.returncode == 0, said.stderr
    with np.load(directory / "found.npz") as found:
        return said.stdout.splitlines(), dict(found)


@pytest.fixture(scope="module")
def plainly(tmp_path_factory):
    return checked(tmp_path_factory.mktemp("plain"), SWITCHED_OFF)


@pytest.fixture
def fresh(monkeypatch):
    """What this process knows of Numba is found out anew, before and after."""
    facts = (jit.enabled, jit._missing, jit._cannot_compile)
    for fact in facts:
        fact.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for fact in facts:
        fact.cache_clear()


@pytest.fixture
def switched_off(fresh):
    fresh.setenv("DASKCONV_JIT", "0")


def test_nothing_of_numba_is_imported_in_training(plainly):
    assert plainly[0] == ["0"]


def test_every_pass_is_the_definition(plainly):
    for name, case in CASES.items():
        arrays = case.arrays()
        bound = case.magnitudes(*arrays)
        for key, want in case.expected(*arrays).items():
            assert_close(plainly[1][f"{name} {key}"], want, bound[key], case.dtype)


def test_kernels_and_training_are_those_that_are_compiled(plainly):
    compiled, found = results(), plainly[1]
    assert compiled.keys() == found.keys() and len(NET.weight_shapes((12, 12, 2))) == 10
    for name, want in compiled.items():
        assert found[name].dtype == want.dtype
        np.testing.assert_allclose(found[name], want, rtol=1e-4, atol=2e-5, err_msg=name)
    for exact in ("maxima", "winner", "max grad"):
        np.testing.assert_array_equal(found[exact], compiled[exact])


def test_the_kernels_pass_their_own_tests():
    files = [TESTS / "kernels" / "test_pool.py", TESTS / "kernels" / "test_lowering.py"]
    said = python("-m", "pytest", "-q", "-p", "no:cacheprovider", *files, environ=SWITCHED_OFF)
    assert said.returncode == 0, said.stdout[-3000:]


def test_the_command_trains(tmp_path):
    line = "import sys; from daskconv.cli import commands as m; m(sys.argv[1:], standalone_mode=False); "
    line += "assert not {'numba', 'llvmlite'} & set(sys.modules)"
    options = ["--data", "digits", "--epochs", "1", "--save", tmp_path / "m.safetensors"]
    said = python("-c", line, "train", *options, environ=SWITCHED_OFF)
    assert said.returncode == 0 and said.stderr == "", said.stderr
    assert "test accuracy" in said.stdout
    assert "numba off" in python("-m", "daskconv.cli", "info", environ=SWITCHED_OFF).stdout


@pytest.mark.parametrize("package", ["numba", "llvmlite"])
def test_numba_that_cannot_be_imported_is_told_once(package, tmp_path, plainly):
    broken = tmp_path / "path" / package
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('It needs\\nanother NumPy.')")
    said, found = checked(tmp_path, {"DASKCONV_JIT": ""}, [broken.parent])
    count, warning = said[0], said[-1]
    assert count == "1" and "ImportError: It needs another NumPy), so" in warning
    assert all((array == plainly[1][name]).all() for name, array in found.items())


def test_numba_that_cannot_compile_is_told_once_and_replaced(fresh):
    def broken(**options):
        return lambda function: lambda *args: 1 / 0

    x, window = np.random.default_rng(0).standard_normal((2, 6, 6, 3)), Window.of(2, (6, 6))
    want = pool.max_pool(x, window)
    jit.enabled.cache_clear()
    jit._cannot_compile.cache_clear()
    fresh.setattr(numba, "njit", broken)
    with pytest.warns(RuntimeWarning, match=r"fails here \(ZeroDivisionError: .* NumPy, which is") as said:
        found = pool.max_pool(x, window)
        shape = choose.ConvShape(Window((3, 3)), (8, 8), 64, 64)
        assert choose.choose("auto", shape) == "lowering"
    assert len(said) == 1
    for got, expected in zip(found, want):
        np.testing.assert_array_equal(got, expected)
    refuse("and Numba fails here (ZeroDivisionError", choose.check_method, "implicit")


@pytest.mark.parametrize("method", choose.COMPILED)
def test_a_method_that_needs_compiled_kernels_is_refused_at_set_up(method, switched_off):
    net = Sequential([Conv2D(4, 3)])
    sentence = refuse("which DASKCONV_JIT=0 switches off", net.choose_methods, (8, 8, 2), method)
    assert repr(method) in sentence and "choose lowering or pipelined" in sentence
    refuse("switches off", net.choose_methods, (8, 8, 2), {"conv1": method})


@pytest.mark.parametrize(("taps", "groups", "c"), [(1, 1, 8), (3, 1, 64), (3, 8, 8)])
def test_auto_takes_lowering_and_others_stay_as_named(taps, groups, c, switched_off):
    shape = choose.ConvShape(Window((taps, taps), groups=groups), (8, 8), c, c)
    assert choose.choose("auto", shape) == "lowering"
    assert choose.choose("pipelined", shape) == "pipelined"


def test_other_values_are_refused(fresh):
    fresh.setenv("DASKCONV_JIT", "off")
    refuse("DASKCONV_JIT is 'off': give 0", choose.check_method, "auto")


def test_workers_without_compiled_kernels_are_refused_at_the_start():
    _check_kernels({"a": True, "b": True})
    refuse("1 worker of 2 (b ...)", _check_kernels, {"a": True, "b": False})


def test_workers_that_could_compile_do_without_it_too(switched_off):
    _check_kernels({"a": True, "b": False})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (1000, 1), (300, 33)])
def test_plain_sums_of_rows(shape, dtype):
    rows = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    out = np.full(shape[1], np.nan, dtype)
    plain.sum_rows(rows, out)
    np.testing.assert_allclose(out, rows.sum(0, dtype=float), rtol=1e-5, atol=1e-4)
