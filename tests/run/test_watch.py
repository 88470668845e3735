"""What steps tell of themselves: where their time goes adds up, and workers tell of the same ones."""

import dask
import pytest

import daskconv
from daskconv import plans
from daskconv.events import Event, RunBegan, StepDone, WorkerStep, listening
from daskconv.run.watch import Watch

DIGITS = daskconv.datasets.load("digits")
NET = daskconv.Sequential(
    [daskconv.Conv2D(8, 3, padding=1), daskconv.ReLU(), daskconv.Flatten(), daskconv.Dense(10)]
)


def told(epochs=1, enabled=True, **options):
    seen = []
    trainer = daskconv.Trainer(NET, optimizer=daskconv.SGD(0.01), transport="local", **options)
    with dask.config.set({"daskconv.dashboard.enabled": enabled}), listening(seen.append, Event):
        trainer.fit(DIGITS.x_train, DIGITS.y_train, epochs=epochs, progress=False)
    return seen


@pytest.mark.parametrize("method", ["auto", "lowering", "pipelined"])
@pytest.mark.parametrize("plan", ["data", plans.spatial(h=2, n=2)], ids=["data", "spatial"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_time_of_a_step_is_that_of_its_layers(method, plan, threads):
    (first, *_) = (e for e in told(method=method, plan=plan, threads=threads) if isinstance(e, WorkerStep))
    assert first.steps == 1 and first.images == 100 and first.threads == threads
    whole = sum(seconds for *_, seconds in first.layers)
    assert whole == pytest.approx(first.seconds, rel=0.05)
    assert {"data", "conv1", "flatten1", "dense1", "loss", "update"} <= {layer for layer, *_ in first.layers}
    of_conv = {stage for layer, _, stage, _ in first.layers if layer == "conv1"}
    if method == "auto":
        assert "convolve" in of_conv
    else:
        assert {"lower", "product"} <= of_conv and "convolve" not in of_conv
    lanes = {span[0] for span in first.spans}
    assert 0 in lanes and len(lanes) <= threads
    longest = 1e6 * first.seconds
    assert all(0 <= start <= end <= longest + 1 for *_, start, end in first.spans)
    assert first.memory > 10**7


def test_steps_tell_of_themselves_in_figures_and_a_run_of_its_plan():
    events = told(epochs=2)
    (began,) = (e for e in events if isinstance(e, RunBegan))
    assert [row["layer"] for row in began.layers] == [
        "conv1",
        "relu1",
        "flatten1",
        "dense1",
        "loss",
        "gradients",
    ]
    assert began.memory > 10**8 and began.steps == 15 and began.epochs == 2
    steps = [e for e in events if isinstance(e, StepDone)]
    assert len(steps) == 30 and {e.run for e in events} == {began.run}
    assert all(0 <= e.figures["accuracy"] <= 1 for e in steps)


def test_without_a_wish_no_plan_is_told_and_no_step_watched():
    events = told(enabled=False)
    (began,) = (e for e in events if isinstance(e, RunBegan))
    assert began.layers == [] and not any(isinstance(e, WorkerStep) for e in events)


def test_workers_of_other_speeds_choose_the_same_steps():
    chosen = []
    for seconds in (0.010, 0.012, 0.017):
        watch = Watch(None, lambda event: None)
        watch._mean = seconds
        chosen.append({number for number in range(1000) if watch._chosen(number)})
    assert chosen[0] <= chosen[1] and chosen[0] <= chosen[2] and len(chosen[0]) >= 15


def test_of_very_many_workers_each_tells_less_often():
    watch = Watch(None, lambda event: None, workers=1000)
    watch._mean = 0.1
    assert sum(watch._chosen(number) for number in range(1000)) <= 1000 * 0.1 / 5
