"""Records: what they keep of events, and what of events goes over a wire and comes back."""

import json

import msgpack
import numpy as np
import pytest

from dashboard.simulated import began, step
from daskconv.dashboard.figures import draw
from daskconv.dashboard.record import Record
from daskconv.events import RunEnded, SceneBegan, StepDone, TilesDone, event_of


def events(steps, workers=3, run="a"):
    draw = np.random.default_rng(0)
    return [began(workers, run), *(e for n in range(steps) for e in step(n, workers, draw, run))]


@pytest.mark.parametrize("wire", [(json.dumps, json.loads), (msgpack.packb, msgpack.unpackb)])
def test_events_are_the_same_on_the_other_side(wire):
    there, back = wire
    for event in events(1):
        again = event_of(back(there(event.asdict())))
        assert type(again) is type(event)
        assert there(again.asdict()) == there(event.asdict())


@pytest.mark.parametrize("plain", [None, [], {}, {"event": "Other"}, {"event": "RunEnded"}, {"event": ["a"]}])
def test_what_is_no_event_is_said(plain):
    with pytest.raises(ValueError, match="This is no "):
        event_of(plain)


def test_fields_of_a_newer_version_are_left_out():
    assert event_of(RunEnded("done", run="a", time=1.0).asdict() | {"colour": 3}).how == "done"


def test_a_new_run_begins_the_record_anew_and_late_events_of_the_old_one_are_dropped():
    record = Record.of(events(5))
    assert len(record.training.points) == 5 and set(record.workers) == {"0", "1", "2"}
    record.add(began(1, "b"))
    record.add(events(1)[-1])
    assert record.run == "b" and not record.training.points and not record.workers


def test_long_runs_keep_their_first_and_newest_points():
    record = Record(run="a", started=1.0)
    for at in range(10_000):
        figures = {"loss": float(at)}
        record.add(StepDone(0, at, 10_000, at, (), figures, run="a", time=2.0 + at))
    steps, seconds, values = record.training.columns("loss")
    assert 300 < len(steps) <= 1200 and steps[0] < 40 and steps[-1] > 9_900
    assert steps == sorted(steps) and values == [at - 1.0 for at in steps]
    assert seconds[0] == values[0] + 1


def test_workers_are_compared_in_a_step_that_all_have_told_of():
    record = Record.of(events(4))
    late = next(e for e in events(5)[::-1] if getattr(e, "worker", "") == "1")
    record.add(late)
    assert {(e.epoch, e.step) for e in record.steps_seen.values()} == {(0, 15)}


def test_a_scene_knows_what_is_done_and_runs():
    record = Record.of([SceneBegan("map", [2, 3, 1], [[0, 0, 0]], ["predict"], run="s")])
    record.add(TilesDone([[0, 1, 0]], [[0, 1, 0], [1, 2, 0]], run="s"))
    assert record.scene.done == {(0, 0, 0), (0, 1, 0)} and record.scene.running == {(1, 2, 0)}
    picture = draw(record)["scene"]
    assert picture.visible and "2 of 6 done, 1 running" in picture.title.text
    (image,) = picture.select_one({"name": "scene"}).data["image"]
    assert image.tolist() == [[3, 2, 0], [0, 0, 1]]
