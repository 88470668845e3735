"""Model, hybrid and spatial parallelism under a real mpiexec."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from daskconv.train.checkpoints import folder
from daskconv.train.checkpoints.manifest import read_manifest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import fifty_steps  # noqa: E402
import recipes  # noqa: E402
import split_plans  # noqa: E402


def lines_of(mpiexec, script, timeout, *args, ranks=6):
    result = subprocess.run(
        [mpiexec, "-n", str(ranks), sys.executable, str(HERE / script), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=HERE,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where the job writes its checkpoints, a folder for each plan and number of workers."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def said(mpiexec, runs):
    return lines_of(mpiexec, "split_plans.py", 180, runs)


@pytest.fixture(scope="module")
def rows(said):
    return [row for row in said if "workers" in row]


def test_one_to_four_workers_end_in_the_bits_of_one_process(rows):
    assert len(rows) == 4 * len(split_plans.PLANS)
    _, _, xv, yv = recipes.digits()
    for plan in split_plans.PLANS:
        local = split_plans.fit(split_plans.made(plan, transport="local"))
        mine = [row for row in rows if row["plan"] == plan.name]
        assert {row["digest"] for row in mine} == {recipes.digest(local)}, plan.name
        assert {row["accuracy"] for row in mine} == {local.evaluate(xv[:99], yv[:99])["accuracy"]}


def test_each_worker_writes_its_pieces_and_one_process_goes_on_from_them(rows, runs):
    for plan in split_plans.PLANS:
        for workers in (1, 2, 3, 4):
            path = runs / f"{plan.name}-{workers}" / "step-000000002"
            contents = read_manifest(path)
            written = {
                name: {array for array, _ in entry["pieces"]} for name, entry in contents["files"].items()
            }
            own = written.pop("shard-00000.safetensors")
            assert own == {"preprocess/mean", "preprocess/scale"} and len(written) == workers
            held = [(name, str(box)) for e in contents["files"].values() for name, box in e["pieces"]]
            assert len(held) == len(set(held)), "a piece is written once"
            if plan.name == "hybrid" and workers == 4:
                assert all("params/dense1.weight" in arrays for arrays in written.values())
            resumed = split_plans.fit(split_plans.made(plan, transport="local").resume(folder.read(path)))
            (expected,) = {row["digest"] for row in rows if row["plan"] == plan.name}
            assert recipes.digest(resumed) == expected


def test_random_networks_under_random_plans_have_the_bits_of_one_process(said):
    (found,) = (row["drawn"] for row in said if "drawn" in row)
    assert len(found) >= 4 and set(found) == {""}


def test_ranks_send_what_the_plan_says(rows):
    assert all(row["sent"] == row["expected"] for row in rows)
    assert all((row["sent"] > 0) == (row["workers"] > 1) for row in rows)


def test_no_worker_holds_the_whole_of_what_is_split(rows):
    for row in rows:
        whole = 4 * 4 * 8 * 32
        if row["plan"] != "data":
            assert sum(row["held"]) == whole and max(row["held"]) == -(-4 // row["workers"]) * whole // 4
        else:
            assert row["held"] == [whole] * row["workers"]


def test_the_failure_of_one_worker_ends_all_with_its_sentence(said):
    assert "the layer gave up" in said[0]["failure"] and said[0]["failure"].startswith("Worker 3 of 4 failed")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_steps_end_in_the_same_bits_on_every_transport_and_number_of_workers(mpiexec):
    rows = lines_of(mpiexec, "fifty_steps.py", 1700)
    runs = [(case, plan) for case, (_, _, some) in fifty_steps.CASES.items() for plan in some]
    assert len(rows) == 8 * len(runs)
    for case, plan in runs:
        named = {"case": case, "plan": plan.name, "slices": plan.slices}
        named["synchronize"] = plan.synchronize
        mine = [row["digest"] for row in rows if row.items() >= named.items()]
        assert len(mine) == 8 and set(mine) == {fifty_steps.trained(case, plan, "local")}, named


@pytest.mark.slow
def test_a_quarter_of_the_rows_takes_a_third_of_the_memory(mpiexec, tmp_path):
    rng = np.random.default_rng(0)
    for size in (1080, 64):
        group = zarr.open_group(tmp_path / f"{size}.zarr", mode="w")
        shape = (4, size, size * 16 // 9, 3)
        images = group.create_array("x_train", shape=shape, chunks=(1, *shape[1:]), dtype="uint8")
        images[:] = rng.integers(0, 256, shape, dtype=np.uint8)
        group.create_array("y_train", data=np.arange(4))
    (whole,) = lines_of(mpiexec, "spatial_memory.py", 600, "whole", tmp_path, ranks=3)
    (parts,) = lines_of(mpiexec, "spatial_memory.py", 600, "spatial", tmp_path)
    print(f"memory of a worker: whole {whole['grown']}, 4 parts {parts['grown']}")
    assert len(parts["grown"]) == 4 and max(parts["grown"]) <= whole["grown"][0] / 3
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)
