"""The page, in a real browser, while a real run trains: on a local cluster, under mpiexec, and without a scheduler."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import daskconv
from dashboard.simulated import began, step
from dashboard.watching import keep_picture, read, wait_for_data, watched
from daskconv.dashboard.local import serving
from daskconv.dashboard.record import Record
from daskconv.events import emit

SCRIPT = str(Path(__file__).with_name("trains.py"))
NAMED = "<script>document.title = 'run by the page'</script>"


@contextmanager
def trained(stop, launcher, *args):
    """Run the script until the context ends; yield the address of its page."""
    out = subprocess.Popen(
        [*launcher, sys.executable, SCRIPT, str(stop), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(daskconv.__file__).parents[1])},
    )
    try:
        line = out.stdout.readline()
        yield re.search(r"page: (http\S+/daskconv)", line).group(1)
        stop.touch()
        rest, errors = out.communicate(timeout=120)
        assert out.returncode == 0 and "ended" in rest, errors
        assert "Traceback" not in errors and "Error" not in errors, errors
    finally:
        if out.poll() is None:
            out.send_signal(signal.SIGKILL)


def stages_by_lane(page):
    lanes = page.evaluate(
        "() => { const d = Bokeh.documents[0].get_model_by_name('lanes').data;"
        "return Array.from(d.lane).map((lane, i) => [lane, d.stage[i], d.start[i], d.end[i]]) }"
    )
    return [(lane, stage, start, end) for lane, stage, start, end in lanes]


def says_when_pointed_at(page, text):
    """Move the pointer down the bars of the only plot; return whether one of them says so, in text of its own."""
    box = page.locator("canvas").first.bounding_box()
    for y in range(40, int(box["height"]) - 40, 12):
        page.mouse.move(box["x"] + 85, box["y"] + y)
        page.wait_for_timeout(100)
        if page.get_by_text(text, exact=True).count():
            return True
    return False


def grows(page, before):
    """Wait until the curves are longer than before, and what shows one step shows another one."""
    page.wait_for_timeout(3000)
    after = read(page)
    for name in ("loss-training", "accuracy-training", "loss-validation", "speed"):
        assert len(after[name]) > len(before[name]), name
    assert after["memory"] and after["lanes"]


def test_a_run_on_a_local_cluster_is_seen_from_the_navigation_bar(chromium, tmp_path):
    with (
        trained(tmp_path / "stop", [], "auto", 1, 2) as address,
        watched(chromium) as (page, errors),
    ):
        page.goto(address.replace("/daskconv", "/status"))
        page.locator("canvas").first.wait_for()  # Bokeh complains of who leaves before it has come
        page.locator(".navbar a", has_text=re.compile("daskconv", re.I)).first.click()
        page.wait_for_url("**/daskconv")
        first = wait_for_data(page)
        assert first["stragglers"] == ["0", "1"] and {"conv1", "<b>bold</b>", "dense1"} <= set(first["plan"])
        grows(page, first)
        # What users have named is text, and nothing else.
        assert page.title() == "daskconv: training"
        assert page.get_by_text(NAMED).is_visible()
        assert "<b>bold</b>" in page.locator(".slick-cell").all_inner_texts()
        keep_picture(page, "local_cluster", tmp_path)
        plots = page.request.get(address.replace("/daskconv", "/individual-plots.json")).json()
        assert plots["Individual Daskconv Loss"] == "/individual-daskconv-loss"
        page.goto(address.replace("/daskconv", "/individual-daskconv-layers"))
        assert says_when_pointed_at(page, "<b>bold</b>")
        assert not errors


@pytest.mark.slow
def test_a_pipelined_run_under_mpiexec_shows_lowering_beside_products(chromium, mpiexec, tmp_path):
    with (
        trained(tmp_path / "stop", [mpiexec, "-n", "4"], "pipelined", 2) as address,
        watched(chromium) as (page, errors),
    ):
        page.goto(address)
        first = wait_for_data(page)
        lanes = stages_by_lane(page)
        assert {"lower", "product", "exchange", "other", "travel"} <= {stage for _, stage, _, _ in lanes}
        assert {lane.split(" · ")[0] for lane, *_ in lanes} == {"2", "3"}
        assert len({lane for lane, stage, *_ in lanes if stage in ("lower", "product")}) == 4
        grows(page, first)
        keep_picture(page, "mpiexec", tmp_path)
        assert not errors


@pytest.mark.slow
def test_without_a_scheduler_this_process_serves_the_page_of_many_workers(chromium, tmp_path):
    draw, count = np.random.default_rng(0), 100
    with serving() as address, watched(chromium) as (page, errors):
        page.goto(address)
        page.get_by_text("Nothing has been trained yet").wait_for()
        page.evaluate(
            "() => { window.long = [0]; new PerformanceObserver(list => list.getEntries().forEach("
            "e => window.long.push(e.duration))).observe({entryTypes: ['longtask']}) }"
        )
        emit(began(count))
        for number in range(102):
            for event in step(number, count, draw):
                emit(event)
            if number > 96:
                page.wait_for_timeout(600)
        data = wait_for_data(page)
        assert len(data["stragglers"]) == len(data["memory"]) == count
        assert max(page.evaluate("() => window.long")) < 1000
        keep_picture(page, "hundred_workers", tmp_path)
        assert not errors


def test_who_leaves_while_the_server_is_busy_is_no_error(monkeypatch, caplog):
    from bokeh.client import pull_session
    from bokeh.server.tornado import BokehTornado

    servers, start = [], BokehTornado.start
    monkeypatch.setattr(BokehTornado, "start", lambda server: (servers.append(server), start(server)))
    for name in ("bokeh", "tornado.application"):  # Dask keeps them from the root
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    with serving() as address:
        session = pull_session(url=address)
        (server,) = servers
        lost = threading.Event()

        def lose():  # what Bokeh does with a connection whose ping fails, while messages still wait to be read
            for connection in list(server._clients):
                server.client_lost(connection)
            lost.set()

        server.io_loop.add_callback(lose)
        assert lost.wait(10)
        session.document.title = "sent before it left"
        session.force_roundtrip()
        session.close()
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR and record.exc_info]
    assert not errors, errors


def test_figures_of_many_workers_are_made_in_less_than_a_second():
    from daskconv.dashboard.figures import FIGURES

    draw, record, count = np.random.default_rng(0), Record(), 100
    record.add(began(count))
    figures = [make() for make in FIGURES.values()]
    longest = 0.0
    for number in range(20):
        for event in step(number, count, draw):
            record.add(event)
        start = time.process_time()
        for figure in figures:
            figure.update(record)
        longest = max(longest, time.process_time() - start)
    assert longest < 1.0


def test_a_port_in_use_is_not_the_end(capsys):
    with serving() as first, serving(int(first.rpartition(":")[2].split("/")[0])) as second:
        assert first != second
    with pytest.raises(daskconv.errors.InputError, match="so give another one"):
        import socket

        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            import daskconv.dashboard.local as local

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(local, "_TRIES", 1)
                taken.listen()
                with serving(taken.getsockname()[1]):
                    pass
