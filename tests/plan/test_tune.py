"""Tuning: what is timed, what replaces the rule, and what Programs and summaries make of it."""

import os

import dask
import numpy as np
import pytest

import daskconv
from daskconv import Conv2D, Dense, Flatten, Sequential
from daskconv.events import RunBegan, listening
from daskconv.graph import tuning_file
from daskconv.graph.choose import PASSES, PRECISIONS, candidates, choose
from daskconv.graph.tuning import Case, Table
from daskconv.graph.tuning_file import load_table, save_table
from daskconv.plan import tune as tuner
from reference import refuse

compiled = pytest.mark.skipif(
    os.environ.get("DASKCONV_JIT") == "0", reason="the table names compiled methods"
)
SHAPE = (9, 9, 4)
NET = Sequential([Conv2D(8, 3, padding=1), Conv2D(8, 3, stride=2), Flatten(), Dense(3)])


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch):
    """A cache of its own, and fewer runs than figures that mean something need."""
    monkeypatch.setenv("DASKCONV_CACHE", str(tmp_path))
    monkeypatch.setattr(tuner, "ROUNDS", 2)
    monkeypatch.setattr(tuner, "_MOST_RUNS", 1)
    yield
    tuning_file._read_once.cache_clear()


@pytest.fixture
def clock(monkeypatch):
    """Methods take the seconds that a test gives them, whatever a clock says; "lowering" does not count itself."""
    seconds = {"direct": 3.0, "lowering": 1.0, "implicit": 2.0, "winograd": 2.5, "fft": 4.0}
    monkeypatch.setattr(tuner, "_seconds", lambda run, count: seconds[run.args[-1]])
    return seconds


@compiled
def test_what_is_clearly_faster_replaces_the_rule_in_programs_and_summaries(clock):
    before = daskconv.Trainer(NET).program(SHAPE, batch_size=8)
    tuning = daskconv.tune(NET, SHAPE, batch=8)
    assert [(row.layer, row.pass_) for row in tuning.passes] == [
        (f"conv{i}", p) for i in (1, 2) for p in PASSES
    ]
    assert all(row.method == row.exact == "lowering" and row.gain == 2.0 for row in tuning.passes)
    assert dict(tuning.passes[0].milliseconds) == {name: 1e3 * t for name, t in clock.items()}
    assert "winograd" not in dict(tuning.passes[3].milliseconds), "its stride is 2"
    after = daskconv.Trainer(NET).program(SHAPE, batch_size=8)
    assert before.tuning == "" and "tuning" not in str(before)
    assert after.tuning == tuning.table.hash == load_table().hash and after != before
    assert f", tuning {after.tuning}" in str(after)
    assert {gain for _, gain in load_table().gains} == {1.0}
    everywhere = {name: dict.fromkeys(PASSES, "lowering") for name in ("conv1", "conv2")}
    assert after.methods == everywhere != before.methods
    again = daskconv.Trainer(NET).program(SHAPE, batch_size=8)
    assert again == after and hash(again) == hash(after)
    named = daskconv.Trainer(NET, method="direct").program(SHAPE, batch_size=8).methods
    assert {method for row in named.values() for method in row.values()} == {"direct"}
    assert daskconv.Model(NET, NET.init(0, SHAPE)).predictor(SHAPE).methods == everywhere


@compiled
def test_the_page_is_told_how_much_faster_than_lowering_a_method_is(clock):
    clock["implicit"] = 0.25
    daskconv.tune(NET, SHAPE, batch=8)
    trainer, told = daskconv.Trainer(NET, transport="local"), []
    x, y = np.zeros((8, *SHAPE), np.float32), np.arange(8) % 3
    with dask.config.set({"daskconv.dashboard.enabled": True}), listening(told.append, RunBegan):
        trainer.fit(x, y, batch_size=8, progress=False)
    (began,) = told
    gains = {row["layer"]: row["gains"] for row in began.layers}
    assert gains["conv1"] == gains["conv2"] == dict.fromkeys(PASSES, 4.0) and gains["dense1"] == {}


@compiled
def test_a_network_without_convolutions_trains_where_others_were_tuned(clock):
    daskconv.tune(NET, SHAPE, batch=8)
    trainer = daskconv.Trainer(Sequential([Flatten(), Dense(3)]), transport="local")
    x, y, told = np.zeros((8, *SHAPE), np.float32), np.arange(8) % 3, []
    with dask.config.set({"daskconv.dashboard.enabled": True}), listening(told.append, RunBegan):
        trainer.fit(x, y, batch_size=8, progress=False)
    assert [row["gains"] for row in told[0].layers] == [{}] * len(told[0].layers)


@compiled
@pytest.mark.parametrize(("seconds", "method"), [(1.96, "implicit"), (1.9, "lowering"), (2.5, "implicit")])
def test_noise_does_not_replace_the_rule(clock, seconds, method):
    clock["lowering"] = seconds
    tuning = daskconv.tune(NET, SHAPE, batch=8)
    assert {row.method for row in tuning.passes} == {method}
    assert {row.gain for row in tuning.passes} == {2.0 / seconds if method == "lowering" else 1.0}


@compiled
def test_exact_precision_has_choices_of_its_own(clock):
    clock["winograd"] = 0.5
    tuning = daskconv.tune(NET, SHAPE, batch=8)
    first = tuning.passes[0]
    assert (first.rule, first.method, first.exact) == ("implicit", "winograd", "lowering")
    for precision, method in zip(PRECISIONS, ("winograd", "lowering"), strict=True):
        program = daskconv.Trainer(NET, precision=precision).program(SHAPE, batch_size=8)
        assert program.methods["conv1"] == dict.fromkeys(PASSES, method)


def test_the_clock_is_read_for_every_method_and_equal_layers_once():
    twice = Sequential([Conv2D(4, 3, padding=1), Conv2D(4, 3, padding=1), Conv2D(4, 1)])
    told = []
    tuning = daskconv.tune(twice, (6, 6, 4), batch=3, threads=2, report=lambda *what: told.append(what))
    assert told == [(i, 6, f"{name} {p}") for i, (name, p) in enumerate(
        (name, p) for name in ("conv1", "conv3") for p in PASSES
    )]  # fmt: skip
    layer = twice.nodes[0].layer.conv_shape((6, 6, 4))
    for row in tuning.passes[:6]:
        assert {name for name, ms in row.milliseconds if ms > 0} == set(candidates(layer, "fast"))
    assert [row.milliseconds for row in tuning.passes[:3]] == [row.milliseconds for row in tuning.passes[3:6]]
    assert {case.images for case, _ in tuning.table.rows} == {1}
    assert len(tuning.table.rows) == 2 * len(PASSES) * len(PRECISIONS)
    assert all(method in candidates(case.shape, case.precision) for case, method in tuning.table.rows)


def test_nothing_is_kept_unless_asked(tmp_path):
    tuning = daskconv.tune(NET, SHAPE, batch=4, save=False)
    assert tuning.path is None and tuning.table.rows and not list(tmp_path.iterdir())
    assert load_table() == Table()


def test_what_cannot_be_tuned_is_refused():
    refuse("has no Conv2D layer", daskconv.tune, Sequential([Flatten(), Dense(2)]), (4, 4, 1))
    refuse("net is 3", daskconv.tune, 3, (4, 4, 1))
    refuse("net is 'x': choose one of", daskconv.tune, "x", (4, 4, 1))
    refuse("Layer 'conv1'", daskconv.tune, NET, (4, 4))
    for name in "batch", "shards", "threads":
        refuse(f"{name} is 0", daskconv.tune, NET, SHAPE, **{name: 0})


@compiled
def test_a_summary_shows_the_choice_of_each_layer():
    first, second = (NET.nodes[i].layer.conv_shape((9, 9, c)) for i, c in ((0, 4), (1, 8)))
    rule = {choose("auto", shape) for shape in (first, second)}
    assert rule == {"implicit"}
    save_table(Table.of({Case(first, "weight_grad", "float32", 256, "fast"): "direct"}))
    lines = NET.summary(SHAPE, tuned=True).splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["method", "implicit/implicit/direct", "implicit"]
    plain = NET.summary(SHAPE).splitlines()
    assert all(line.startswith(start.rstrip()) for line, start in zip(lines, plain, strict=True))
    assert lines[4:] == plain[4:]
