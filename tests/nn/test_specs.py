"""Specs as plain data."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from daskconv import (
    Add,
    AvgPool2D,
    Concat,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2D,
    Network,
    Node,
    Normal,
    ReLU,
    zoo,
)
from daskconv.errors import DataError
from daskconv.nn.initializers import Initializer
from daskconv.nn.specs import from_plain, kinds_of, to_plain
from reference import refuse

ROOTS = (Layer, Initializer, Network, Node)


def through_json(spec, *roots):
    return from_plain(json.loads(json.dumps(to_plain(spec))), kinds_of(*(roots or ROOTS)))


@dataclass(frozen=True)
class ScaledByUser(Layer):
    """A custom layer."""

    factor: float = 2.0
    axes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class DrawnByUser(Normal):
    """A custom initialiser, of a class that is no direct subclass."""

    shift: float = 0.0


SPECS = [
    zoo.cifar10_quick(),
    zoo.lenet(3),
    Conv2D(4, (3, 5), stride=2, padding=((0, 1), (2, 3)), dilation=(1, 2), groups=2, bias=False),
    Conv2D(4, 3, padding="same", weight_init=Normal(0.5)),
    MaxPool2D(3, stride=None, ceil_mode=True),
    AvgPool2D((2, 3), padding=(1, 1), count_include_pad=False),
    Dropout(0.25),
    Network((Node("a", ReLU()), Node("b", Add(), ("a", "input")), Node("c", Concat(), ("a", "b"))), "dag"),
    Network((Node("a", ScaledByUser(0.5, (3,))), Node("b", Flatten(), ("a",)), Node("c", Dense(2), ("b",)))),
    Dense(3, weight_init=DrawnByUser(0.1, 0.2)),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec)[:40])
def test_a_spec_comes_back_equal_from_json(spec):
    again = through_json(spec)
    assert again == spec and hash(again) == hash(spec) and type(again) is type(spec)


def test_numpy_numbers_and_lists_become_plain():
    spec = Dropout(np.float32(0.5))
    assert to_plain(spec) == {"kind": "Dropout", "rate": 0.5}
    assert through_json(Conv2D(np.int64(4), 3, padding=[1, 2])) == Conv2D(4, 3, padding=(1, 2))


@pytest.mark.parametrize("value", [object(), ReLU, {1, 2}, len])
def test_what_is_no_plain_data_cannot_be_saved(value):
    refuse(f"{value!r} cannot be saved: specs hold numbers, strings, tuples", to_plain, ScaledByUser(value))


def test_an_unknown_kind_is_refused():
    plain = to_plain(zoo.lenet())
    plain["nodes"][0]["layer"]["kind"] = "Transformer"
    match = "The file holds a 'Transformer', which is unknown here: import what defines it before loading"
    refuse(match, from_plain, plain, kinds_of(*ROOTS), error=DataError)
    refuse("The file holds a 'None'", from_plain, {"factor": 1}, kinds_of(*ROOTS), error=DataError)
    refuse("The file holds a 'Normal'", through_json, Normal(), Layer, error=DataError)


def test_an_unknown_option_is_refused():
    plain = to_plain(Dense(3)) | {"sparse": True, "rank": 4}
    match = "The file's Dense has the options ['rank', 'sparse'], which are unknown here"
    refuse(match, from_plain, plain, kinds_of(Layer, Initializer), error=DataError)


def test_kinds_are_all_subclasses_by_name():
    kinds = kinds_of(Layer, Initializer)
    assert kinds["Conv2D"] is Conv2D and kinds["ScaledByUser"] is ScaledByUser
    assert kinds["DrawnByUser"] is DrawnByUser and kinds["Layer"] is Layer
    assert "Network" not in kinds
