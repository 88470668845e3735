"""Machines: files, their figures' sources, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daskconv.cost.here import this_machine
from daskconv.cost.kernels import measure_kernels
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
from daskconv.nn import zoo
from daskconv.plan import plans


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
