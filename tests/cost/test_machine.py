"""Machines: files, their figures' sources, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daskconv.cost.here import this_machine
from daskconv.cost.machine import (
    SHIPPED,
    Kernel,
    calibrated_path,
    figure_names,
    known_machines,
    load_machine,
    read_machine,
    write_machine,
)
from daskconv.cost.price import price
from daskconv.cost.trace import Case
from daskconv.errors import DataError, InputError
from daskconv.launch.kernels import measure_kernels, with_crowding
from daskconv.launch.parts import segment_seconds, with_serial
from daskconv.nn import zoo
from daskconv.plan import plans
from daskconv.train.trainer import Trainer


@pytest.mark.parametrize("name", known_machines())
def test_every_figure_of_a_known_machine_has_its_source(name: str) -> None:
    machine = load_machine(name)
    assert all(machine.sources[figure] for figure in (*figure_names(), *machine.shares))


def test_the_environments_are_the_slides() -> None:
    a, b = load_machine("environment_a"), load_machine("environment_b")
    assert (a.hosts, a.cores, a.peak) == (64, 28, 28 * 2.6e9 * 32)
    assert (b.hosts, b.cores, b.peak) == (864, 32, 32 * 2.2e9 * 32)


def test_a_machine_is_read_as_it_was_written(tmp_path: Path) -> None:
    machine = replace(load_machine("environment_a"), kernels=(Kernel("Dense", "forward", 1e-3, 1e-5),))
    write_machine(machine, tmp_path / "m.json")
    assert read_machine(tmp_path / "m.json") == machine
    assert load_machine(tmp_path / "m.json").kernel("Dense", "forward") == machine.kernels[0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda found: found["figures"].pop("peak"), "it lacks peak"),
        (
            lambda found: found["figures"]["peak"].update(value=-1),
            "peak of the machine environment A is -1: give a number, more than 0",
        ),
        (
            lambda found: found["figures"]["cores"].update(value=1.5),
            "cores of the machine environment A is 1.5: give a whole number",
        ),
        (
            lambda found: found["figures"]["jitter"].update(value="much"),
            "jitter of the machine environment A is 'much'",
        ),
        (lambda found: found["figures"]["memory"].pop("source"), "it lacks 'source'"),
        (lambda found: found.update(format=7), "its format is 7 and not 1"),
    ],
)
def test_what_is_no_machine_is_refused(tmp_path: Path, change, sentence: str) -> None:
    found = json.loads((SHIPPED / "environment_a.json").read_text())
    change(found)
    (path := tmp_path / "m.json").write_text(json.dumps(found))
    with pytest.raises(DataError) as error:
        load_machine(path)
    assert sentence in str(error.value) and "Traceback" not in str(error.value)


def test_unknown_machines_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASKCONV_CACHE", str(tmp_path))
    with pytest.raises(
        InputError, match=r"was not calibrated: run daskconv calibrate, or name one of .*environment_a"
    ):
        load_machine("here")
    with pytest.raises(InputError, match="machine is 'nowhere'"):
        load_machine("nowhere")
    assert "not calibrated" in this_machine(2).name
    write_machine(load_machine("environment_b"), calibrated_path())
    assert this_machine(2).name == "environment B"


def test_layers_that_were_measured_are_priced_by_that() -> None:
    net, shape = zoo.build("lenet", 10), (12, 12, 1)
    machine, case = load_machine("environment_a"), Case(zoo.build("lenet", 10), (12, 12, 1), 32)
    guess = price(case, plans.data(1), machine)
    assert not guess.calibrated and guess.basis.endswith("the analytic guess for the others")
    kernels = tuple(measure_kernels(net, shape, rounds=1))
    assert all(kernel.seconds >= 0 and kernel.each >= 0 for kernel in kernels)
    known = price(case, plans.data(1), replace(machine, kernels=kernels))
    assert known.calibrated and known.basis == "all layers measured"
    twice = tuple(replace(kernel, seconds=2 * kernel.seconds, each=2 * kernel.each) for kernel in kernels)
    assert np.isclose(price(case, plans.data(1), replace(machine, kernels=twice)).compute, 2 * known.compute)


def test_what_a_block_takes_around_its_layers_has_a_price() -> None:
    case, machine = Case(zoo.build("lenet", 10), (12, 12, 1), 32), load_machine("environment_a")
    kernels = measure_kernels(case.network, case.input_shape, rounds=1)
    layers = [kernel for kernel in kernels if not kernel.layer.startswith("Block")]
    (rest,) = [kernel for kernel in kernels if kernel.layer.startswith("Block")]
    assert rest.seconds + rest.each > 0
    with_it, without = (
        price(case, plans.data(1), replace(machine, kernels=tuple(some))) for some in (kernels, layers)
    )
    threads = machine.cores // machine.workers_per_host
    more = (rest.seconds * with_it.blocks + rest.each * case.batch) / threads
    assert with_it.compute - without.compute == pytest.approx(more)


def test_what_crowds_takes_longer_on_a_full_host() -> None:
    case, machine = Case(zoo.build("lenet", 10), (12, 12, 1), 32), load_machine("environment_a")
    machine = replace(machine, workers_per_host=2, crowding=1.5)
    kernels = measure_kernels(case.network, case.input_shape, rounds=1)
    found = with_crowding(kernels, case.network, case.input_shape, 2, rounds=2)
    assert [replace(kernel, crowding=None) for kernel in found] == kernels
    assert all(kernel.crowding is not None and kernel.crowding >= 1 for kernel in found)

    def compute(crowding: float | None, workers: int) -> float:
        known = replace(machine, kernels=tuple(replace(each, crowding=crowding) for each in kernels))
        return price(case, plans.data(2), known, workers).compute

    assert compute(3.0, 2) == pytest.approx(3 * compute(1.0, 2))
    assert compute(None, 2) == pytest.approx(1.5 * compute(1.0, 2))
    assert compute(3.0, 1) == pytest.approx(compute(1.0, 1))


def test_what_is_serial_does_not_shrink_with_the_channels() -> None:
    case = Case(zoo.build("cifar10_quick", 10), (32, 32, 3), 32)
    kernels = measure_kernels(case.network, case.input_shape, rounds=1)
    machine = load_machine("environment_a")

    def seconds(serial: float, parts: int) -> float:
        known = replace(machine, kernels=tuple(replace(kernel, serial=serial) for kernel in kernels))
        layer = price(case, plans.model(parts), known).layers[0]
        assert (layer.step.node.name, layer.step.parts) == ("conv1", parts)
        return layer.forward

    assert np.isclose(seconds(0, 2), 4 * seconds(0, 8))
    assert np.isclose(seconds(1, 2), seconds(1, 8))
    assert seconds(0, 8) < seconds(0.5, 8) < seconds(1, 8)


def test_halves_of_layers_and_segments_are_measured() -> None:
    network, shape = zoo.build("cifar10_quick", 10), (32, 32, 3)
    whole = measure_kernels(network, shape, rounds=1)
    kernels = with_serial(whole, network, shape, rounds=1)
    assert [replace(kernel, serial=0) for kernel in kernels] == whole
    assert all(0 <= kernel.serial <= 1 for kernel in kernels)
    assert any(kernel.serial > 0 for kernel in kernels if kernel.layer.startswith("Conv2D"))
    assert 0 < segment_seconds(rounds=1) < 0.1


def test_what_is_put_together_has_a_price_on_one_worker_too() -> None:
    case, machine = Case(zoo.build("cifar10_quick", 10), (32, 32, 3), 32), load_machine("environment_a")
    slower = replace(machine, segment=machine.segment + 1.0)
    for plan in (plans.data(2), plans.spatial(h=2)):
        split = Trainer(case.network, plan=plan).program(case.input_shape, case.batch).split
        there = sum(1 for stage in split.stages if stage.exchanges) if split else 0
        back = sum(1 for exchanges in split.back if exchanges) if split else 0
        cost, more = (price(case, plan, each, workers=1) for each in (machine, slower))
        assert more.compute - cost.compute == pytest.approx(2 * (there + back))
