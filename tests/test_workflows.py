"""Every experiment runs in its quick mode and leaves no figure out."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WORKFLOWS = Path(__file__).parents[1] / "workflows"
OPTIONS = {
    "bench_arrays.py": ["--threads", "2", "--kernels", "3", "17"],
    "bench_inference.py": ["--threads", "2", "--batch", "1"],
    "bench_layers.py": ["--threads", "2", "--unfold"],
    "bench_parallel.py": ["--nets", "cifar10_quick", "--rounds", "1", "--steps", "2"],
    "bench_train.py": [
        "--threads",
        "1",
        "--rounds",
        "2",
        "--steps",
        "2",
        "--batch",
        "8",
        "--nets",
        "vgg11",
        "resnet20",
    ],
    "check_costs.py": ["--csv", "out.csv"],
    "cifar10_quick.py": ["--transport", "local", "--threads", "1", "--epochs", "1"],
    "control_plane.py": ["--csv", "out.csv"],
    "conv_methods.py": ["--threads", "2"],
    "googlenet_layers.py": ["--threads", "2", "--csv", "out.csv"],
    "image_nets.py": ["resnet20", "--transport", "local", "--threads", "1"],
    "large_cluster.py": ["--csv", "out.csv"],
    "layer_share.py": [],
    "learning_efficiency.py": ["--csv", "out.csv", "--threads", "2"],
    "networks.py": ["--csv", "out.csv"],
    "live_page.py": [],
    "predict_scene.py": ["--tile", "160"],
    "published.py": ["--csv", "out.csv"],
    "scaling.py": ["--plans", "hybrid", "spatial"],
    "small_batch.py": ["--csv", "out.csv"],
    "thousand_nodes.py": ["--csv", "out.csv"],
}
# Of the live page, the tests of the page take pictures.
PICTURES = set(OPTIONS) - {
    "bench_arrays.py",
    "bench_inference.py",
    "bench_parallel.py",
    "bench_train.py",
    "live_page.py",
}
NEED_DATA = ("cifar10_quick.py", "image_nets.py", "learning_efficiency.py")


def empty_cells(value: Any, where: str = "") -> Iterator[str]:
    """Where a JSON value holds nothing, or a number that is none."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from empty_cells(item, f"{where}.{name}")
    elif value in (None, "", {}, []) or (isinstance(value, float) and not math.isfinite(value)):
        yield where


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10's shape, a few images of it."""
    generator = np.random.default_rng(0)
    parts = {"train": 200, "test": 50}
    arrays = {f"x_{part}": generator.integers(0, 256, (n, 32, 32, 3), np.uint8) for part, n in parts.items()}
    arrays |= {f"y_{part}": np.arange(n) % 10 for part, n in parts.items()}
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(path, **arrays)
    return path


# Minutes, real workers, or what other tests see too.
SLOW = {
    "control_plane.py",
    "check_costs.py",
    "bench_parallel.py",
    "bench_arrays.py",
    "scaling.py",
    "live_page.py",
    "small_batch.py",
}


@pytest.mark.parametrize(
    "script", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in OPTIONS]
)
def test_quick_run(script: str, tiny: Path, tmp_path: Path) -> None:
    peers = ["dask_image"] if script == "bench_arrays.py" else ["torch", "onnxruntime"]
    if script.startswith("bench_") and not all(map(find_spec, peers)):
        pytest.skip(f"{script} compares with {' and '.join(peers)}: pip install 'daskconv[bench]'")
    command = [sys.executable, str(WORKFLOWS / script), "--quick", "--json", "out.json", *OPTIONS[script]]
    command += ["--png", "out.png"] if script in PICTURES else []
    command += ["--data", str(tiny)] if script in NEED_DATA else []
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["machine"]["cpu"] and figures["machine"]["threads"]
    assert list(empty_cells(figures)) == []
    assert script not in PICTURES or (tmp_path / "out.png").stat().st_size > 1000


def test_every_experiment_is_tried_and_listed() -> None:
    scripts = {path.name for path in WORKFLOWS.glob("[!_]*.py")}
    assert scripts == set(OPTIONS)
    text = (WORKFLOWS / "README.md").read_text()
    assert [script for script in sorted(scripts) if f"`{script}`" not in text] == []


def test_the_layers_of_googlenet_are_those_of_the_slides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(WORKFLOWS))
    from _layers import GOOGLENET
    from googlenet_layers import sizes

    rows = [sizes(layer) for layer in GOOGLENET]
    assert len(rows) == 20 and all(layer.batch == 32 and layer.kernel > 1 for layer in GOOGLENET)
    names = ("kernel", "input", "lowered", "weight", "output")
    assert [rows[0][name] for name in names] == [
        "7x7",
        "32x224x224x3",
        "401408x147",
        "147x64",
        "32x112x112x64",
    ]
    # Pooling by 2 that rounds up: 112, 56, 28, 14, 7.
    assert [int(row["output"].split("x")[1]) for row in rows] == [112, 56] + [28] * 4 + [14] * 10 + [7] * 4
    assert [rows[-2][name] for name in names] == ["3x3", "32x7x7x192", "1568x1728", "1728x384", "32x7x7x384"]


def test_empty_cells_are_seen() -> None:
    assert list(empty_cells({"a": [1.0, None], "b": {}, "c": math.nan, "d": 0})) == [".a.1", ".b", ".c"]


def test_a_stopwatch_counts_own_time_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(WORKFLOWS))
    import _training

    clock = iter([0.0, 1.0, 3.0, 7.0])
    monkeypatch.setattr(_training, "perf_counter", lambda: next(clock))
    watch = _training.Stopwatch()
    inner = watch.timed("inner", lambda: None)
    watch.timed("outer", inner)()
    assert watch.spent == {"inner": 2.0, "outer": 5.0}


def test_alternate_turns_every_other_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(WORKFLOWS))
    from _measure import alternate

    calls: list[str] = []
    times = alternate({name: lambda name=name: calls.append(name) for name in "ab"}, 2)
    warm_up, rounds = calls[:2], calls[2:]
    assert warm_up == ["a", "b"]
    assert rounds == [*"aabb", *"bbaa"], "a timed call follows one that is not timed"
    assert [len(seconds) for seconds in times.values()] == [2, 2]


def test_alternate_without_warm_up_calls_each_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(WORKFLOWS))
    from _measure import alternate

    calls: list[str] = []
    alternate({name: lambda name=name: calls.append(name) for name in "ab"}, 2, warm_up=False)
    assert calls == [*"ab", *"ba"]


@pytest.mark.parametrize(
    ("count", "want"), [(1, (0, 0)), (5, (0, 4)), (6, (0, 5)), (9, (1, 7)), (30, (9, 20))]
)
def test_the_interval_of_a_median_is_that_of_order_statistics(monkeypatch, count, want) -> None:
    """In tables of the sign test: of 9 values the second and the second last, of 30 the tenth and the tenth last."""
    monkeypatch.syspath_prepend(str(WORKFLOWS))
    from _measure import interval

    assert interval(range(count)[::-1]) == want
