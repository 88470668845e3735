"""A run's metrics and its report: written as training goes, read again in whole or in part, drawn without a network."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import daskconv
from daskconv.dashboard.metrics import MetricsFile, read_run
from daskconv.dashboard.report import write_report
from daskconv.errors import DataError
from daskconv.events import EpochDone, RunBegan, RunEnded, StepDone, WorkerStep, event_of

# Where somebody wants the README's picture, it is of a longer run.
EPOCHS = 15 if "DASKCONV_PICTURES" in os.environ else 3
DIGITS = daskconv.datasets.load("digits")
EVIL = "</script><img src=x onerror='window.evil=1'><script>window.evil=1</script>{loss}"


def trainer(**options):
    optimizer = daskconv.SGD(0.02, momentum=0.9)
    return daskconv.Trainer(
        "lenet", optimizer=optimizer, preprocess="standardize", transport="local", **options
    )


def fit(trained, epochs):
    validation = (DIGITS.x_test, DIGITS.y_test)
    return trained.fit(
        DIGITS.x_train, DIGITS.y_train, epochs=epochs, validation_data=validation, progress=False
    )


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a report: its folder, and the trainer's history."""
    folder = tmp_path_factory.mktemp("report") / "digits-run"
    with daskconv.recording(folder, report=True):
        history = fit(trainer(threads=2), EPOCHS)
    return folder, history


def test_the_metrics_are_the_history(trained):
    folder, history = trained
    about, began, *events = lines(folder)
    assert about["event"] == "About" and "daskconv" in about["machine"]["versions"]
    assert (began["event"], began["network"], began["threads"]) == ("RunBegan", "lenet", 2)
    epochs = [event["figures"] for event in events if event["event"] == "EpochDone"]
    assert [row["val_loss"] for row in epochs] == history["val_loss"]
    assert events[-1]["event"] == "RunEnded" and events[-1]["how"] == "done"
    run = read_run(folder)
    assert run.name == "digits" and run.damage == [] and run.record.newest.step == 14
    assert run.record.validation.columns("accuracy")[2] == history["val_accuracy"]
    assert run.record.workers["local"][-1].layers, "where the time goes was not collected"


def test_nothing_is_collected_and_no_report_drawn_unless_asked(tmp_path):
    with daskconv.recording(tmp_path / "run"):
        fit(trainer(), 1)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.jsonl"]
    assert {event["event"] for event in lines(tmp_path / "run")} == {
        "About",
        "RunBegan",
        "StepDone",
        "EpochDone",
        "RunEnded",
    }


def test_another_run_keeps_the_one_before_and_a_resumed_one_goes_on(tmp_path):
    first = trainer()
    with daskconv.recording(tmp_path):
        fit(first, 2)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    first.save(tmp_path / "model")
    with daskconv.recording(tmp_path, resumed=True):
        fit(trainer().resume(tmp_path / "model"), 3)
    run = read_run(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes().startswith(before)
    steps, seconds, _ = run.record.training.columns("loss")
    assert steps == sorted(set(steps)) and steps[-1] == 45 and seconds == sorted(seconds)
    assert len(run.record.validation.points) == 3 and run.record.ended.how == "done"
    with daskconv.recording(tmp_path):
        fit(trainer(), 1)
    assert (tmp_path / "metrics-1.jsonl").read_bytes().startswith(before)
    assert len(read_run(tmp_path).record.validation.points) == 1


def test_a_failing_run_has_a_report_that_says_so(tmp_path):
    exploding = daskconv.Trainer("lenet", optimizer=daskconv.SGD(1e9), transport="local")
    with pytest.raises(FloatingPointError), daskconv.recording(tmp_path, report=True):
        try:
            fit(exploding, 2)
        except daskconv.errors.DaskconvError as error:
            raise FloatingPointError from error
    assert "not finite" in read_run(tmp_path).record.ended.how
    assert "not finite" in (tmp_path / "report.html").read_text()


# ----------------------------------------------------------------------- events made by hand


def began(**changes):
    layers = [
        {
            "layer": "conv1",
            "layout": "n=1",
            "exchange": "",
            "sent": 0,
            "weights": 9,
            "values": 9,
            "methods": {},
        }
    ]
    plain = {"network": "net", "plan": "data", "transport": "mpi", "workers": 1, "threads": 1, "shards": 1, "batch": 9,
             "images": 90, "steps": 10, "epochs": 9, "layers": layers, "run": "a", "time": 100.0}  # fmt: skip
    return RunBegan(**plain | changes)


def step(number, time, run="a", loss=1.0):
    epoch, at = divmod(number, 10)
    return StepDone(epoch, at, 10, 9 * (at + 1), (), {"loss": loss, "accuracy": 0.5}, run=run, time=time)


def times(step, time, worker="0", stage="product"):
    spans = [(0, "conv1", "forward", stage, 0, 900)]
    return WorkerStep(worker, 0, step, 1, 1, 9.0, 0.5, 0.4, 0.1, 9**9, [("conv1", "forward", stage, 0.4)], spans,
                      run="a", time=time)  # fmt: skip


def write(folder, *events):
    file = MetricsFile(folder)
    for event in events:
        file(event)
    file.close()
    return folder


def test_the_file_of_a_long_run_stays_small(tmp_path):
    events = (replace(step(number, 100 + number), step=number, steps=10**9) for number in range(40_000))
    workers = (times(number, 100 + number, str(worker)) for number in range(10_000) for worker in range(2))
    write(tmp_path, began(steps=10**9), *events, *workers, RunEnded("done", run="a", time=40_100.0))
    found = lines(tmp_path)
    kinds = [event["event"] for event in found]
    assert 2_000 < kinds.count("StepDone") < 12_000 and 20 < kinds.count("WorkerStep") < 200
    assert [(event["worker"], event["step"]) for event in found[-3:-1]] == [("0", 9999), ("1", 9999)]


def test_steps_that_a_killed_run_took_beyond_its_checkpoint_count_once(tmp_path):
    write(tmp_path, began(), *(step(number, 101 + number) for number in range(8)))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event":"StepDone","epo')  # killed in the middle of a line
    again = MetricsFile(tmp_path, resumed=True)
    for event in [began(run="b", time=900.0), *(step(n, 898 + n, "b", 2.0) for n in range(5, 12))]:
        again(event)
    again.close()
    run = read_run(tmp_path)
    steps, seconds, losses = run.record.training.columns("loss")
    assert steps == list(range(1, 13)) and losses == [1.0] * 5 + [2.0] * 7
    assert seconds == sorted(seconds) and seconds[-1] < 30, "the hours between the parts count"
    assert run.damage == ["Line 11 is damaged and left out."]
    write_report([run], tmp_path / "report.html")
    assert "no end is written: it was killed, or still runs" in (tmp_path / "report.html").read_text()


def test_what_is_damaged_is_left_out_and_named(trained, tmp_path):
    good = (trained[0] / "metrics.jsonl").read_bytes().splitlines()
    draw = np.random.default_rng(0)
    for number in range(30):
        bad = [bytearray(line) for line in good]
        for _ in range(1 + number // 3):
            line = bad[draw.integers(len(bad))]
            line[draw.integers(len(line))] = draw.integers(256)
        (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(bad)[: -draw.integers(1, 200)])
        run = read_run(tmp_path)
        assert run.damage and run.record.training.points
    write_report([run], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert all(sentence in text for sentence in run.damage)
    (tmp_path / "metrics.jsonl").write_bytes(
        b"\n".join([b"\xff\x00", *good[1:4], b"[1]", b'{"event": "No"}', *good[4:]])
    )
    assert read_run(tmp_path).damage == ["Lines 1, 5, 6 (3 in all) are damaged and left out."]


@pytest.mark.parametrize(
    "line",
    [
        '{"event":"StepDone","epoch":"x","step":1,"steps":2,"images":1,"sums":[],"run":"a","time":1}',
        '{"event":"StepDone","epoch":0,"step":1,"steps":10,"images":1,"sums":[],"figures":[1],"run":"a","time":1}',
        '{"event":"EpochDone","epoch":0,"figures":7,"run":"a","time":1}',
        '{"event":"About","command":[],"machine":[]}',
        '{"event":"WorkerStep","worker":"0"}',
        "[" * 100_000,
    ],
)
def test_a_line_of_other_types_hides_no_other(tmp_path, line):
    write(tmp_path, began(), step(0, 101.0))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(line + "\n" + json.dumps(step(1, 102.0).asdict()) + "\n")
    run = read_run(tmp_path)
    assert run.record.training.columns("loss")[0] == [1, 2] and len(run.damage) == 1


def test_a_figure_of_damaged_numbers_is_named_and_the_others_drawn(tmp_path):
    write(tmp_path, began(layers=[{"layer": 7}]), step(0, 101.0), times(0, 101.0))
    write_report([read_run(tmp_path)], tmp_path / "report.html")
    assert "The figure plan cannot be drawn (KeyError)." in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("what", ["none", "folder", "empty", "text"])
def test_what_is_no_run_is_one_sentence(tmp_path, what):
    path = tmp_path / what
    if what != "none":
        path.mkdir()
    if what in ("empty", "text"):
        (path / "metrics.jsonl").write_text("no metrics\n" if what == "text" else "")
    sentence = {"none": "does not exist", "folder": "is no run, for it has no metrics.jsonl"}
    with pytest.raises(DataError, match=sentence.get(what, "holds nothing that can be read")):
        read_run(path)


def test_a_report_that_cannot_be_written_hides_nothing(tmp_path):
    (tmp_path / "report.html").mkdir()
    said = pytest.warns(RuntimeWarning, match="There is no report of this run")
    with said, daskconv.recording(tmp_path, report=True):
        assert len(fit(trainer(), 1).epochs) == 1


def test_a_full_disk_does_not_stop_training(tmp_path):
    (tmp_path / "run").symlink_to("/dev/full")  # no folder can be made there
    with (
        pytest.warns(RuntimeWarning, match="training goes on without it"),
        daskconv.recording(tmp_path / "run"),
    ):
        assert len(fit(trainer(), 1).epochs) == 1


# --------------------------------------------------------------------------------- the browser


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser, path):
    """Open a file; return the page, and check that it needed nothing else and complained of nothing."""
    page, complaints, requests = browser.new_page(viewport={"width": 1400, "height": 1700}), [], []
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.resolve().as_uri())
    page.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    return page


COLUMNS = """() => Object.fromEntries([...Bokeh.documents[0]._all_models.values()]
  .filter((model) => model.type === "ColumnDataSource" && model.name)
  .map((model) => [model.name, Object.values(model.data)[0].length]))"""


def test_the_report_shows_every_figure_without_a_network(trained, browser, tmp_path):
    folder, _ = trained
    page = opened(browser, folder / "report.html")
    filled = page.evaluate(COLUMNS)
    assert {"loss-training", "loss-validation", "layers", "plan"} <= set(filled)
    assert all(filled.values()), filled
    text = page.inner_text("body")
    assert ("daskconv: digits" in text and "AMD" in text) or "cores for this process" in text
    picture = Path(os.environ.get("DASKCONV_PICTURES", tmp_path)) / "report.png"
    page.wait_for_timeout(1000)  # figures take their width from the window after they were drawn once
    height = page.evaluate("document.querySelector('h2').getBoundingClientRect().y - 16")
    page.screenshot(path=picture, clip={"x": 0, "y": 0, "width": 1400, "height": height})
    assert picture.stat().st_size > 50_000
    page.close()


def test_runs_are_compared_line_by_line(trained, browser, tmp_path):
    other = write(
        tmp_path / "other-run",
        began(),
        step(0, 101.0),
        step(1, 102.0),
        EpochDone(0, {"val_loss": 0.25}, run="a"),
    )
    write_report([read_run(trained[0]), read_run(other)], tmp_path / "comparison.html")
    page = opened(browser, tmp_path / "comparison.html")
    cells = [row.inner_text().split("\t") for row in page.query_selector_all("table:first-of-type tr")]
    assert cells[0][:5] == ["run", "network", "plan", "transport", "workers x threads"]
    assert [row[0] for row in cells[1:3]] == ["digits", "other"]
    assert cells[1][cells[0].index("validation loss")] == f"{trained[1]['val_loss'][-1]:.4f}"
    assert cells[2][cells[0].index("validation loss")] == "0.2500"
    titles = "[...Bokeh.documents[0]._all_models.values()].filter((m) => m.type === 'Figure').map((m) => m.title.text)"
    assert {"Loss", "Loss of validation", "Accuracy", "Images a second"} <= set(page.evaluate(titles))
    page.close()


def test_text_of_users_is_escaped_in_the_report(browser, tmp_path):
    folder = tmp_path / "<img src=x onerror=window.evil=1>-run"
    plain = began(network=EVIL, plan=EVIL, transport=EVIL).asdict()
    plain["layers"][0] |= {"layer": EVIL, "layout": EVIL, "exchange": EVIL, "methods": {"forward": EVIL}}
    events = [
        event_of(plain),
        step(0, 101.0),
        times(0, 101.0, worker=EVIL),
        RunEnded(EVIL, run="a", time=109.0),
    ]
    write(folder, *events)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"event": "About", "command": ["daskconv", EVIL], "machine": {EVIL: EVIL}}) + "\n"
        )
    for name, runs in [("one", [folder]), ("several", [folder, shutil.copytree(folder, tmp_path / "b")])]:
        write_report([read_run(run) for run in runs], tmp_path / f"{name}.html")
        page = opened(browser, tmp_path / f"{name}.html")
        page.wait_for_timeout(300)
        assert page.evaluate("window.evil") is None
        assert "onerror" in page.inner_text("body"), "the text is not there at all"
        page.close()
    assert not re.search("<img src=x", Path(tmp_path / "one.html").read_text())
