"""A crew runs each task once, after those it needs, on all its threads; errors and callbacks are Dask's."""

import threading
from concurrent.futures import ThreadPoolExecutor
from operator import add
from time import sleep

import pytest
from dask._task_spec import Task, TaskRef
from dask.callbacks import Callback
from hypothesis import given, settings
from hypothesis import strategies as st

from daskconv.graph.threads import execute


def total(log, key, *values):
    log.append(key)
    return 1 + sum(values)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(edges=st.lists(st.lists(st.integers(1, 6), max_size=3), max_size=30), threads=st.integers(1, 3))
def test_each_task_runs_once_after_those_it_needs(edges, threads):
    log: list[int] = []
    needs = [sorted({at - back for back in backs if at >= back}) for at, backs in enumerate(edges)]
    graph = {at: Task(at, total, log, at, *map(TaskRef, keys)) for at, keys in enumerate(needs)}
    want: list[int] = []
    for keys in needs:
        want.append(1 + sum(want[key] for key in keys))
    assert execute(graph, list(graph), threads) == want
    assert sorted(log) == list(graph)
    assert all(log.index(key) < log.index(at) for at, keys in enumerate(needs) for key in keys)


def test_one_thread_takes_ready_tasks_in_the_order_of_the_graph():
    log: list[str] = []
    graph = {key: Task(key, total, log, key) for key in "cab"}
    execute(graph, list("abc"), 1)
    assert log == list("cab")


def test_the_calling_thread_is_one_of_the_crew():
    barrier = threading.Barrier(3)
    seen: list[int] = []

    def meet():
        seen.append(threading.get_ident())
        barrier.wait(timeout=20)

    execute({i: Task(i, meet) for i in range(3)}, [], 3)
    assert len(set(seen)) == 3 and threading.get_ident() in seen


def fail():
    raise MemoryError("no room")


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_error_ends_the_run_and_is_raised_once(threads):
    log: list[str] = []
    graph = {"bad": Task("bad", fail), "next": Task("next", total, log, "next", TaskRef("bad"))}
    for _ in range(3):
        with pytest.raises(MemoryError, match="no room"):
            execute(graph, ["next"], threads)
    assert log == []
    assert execute({"x": Task("x", add, 1, 2)}, ["x"], threads) == [3]


def test_a_task_may_run_a_graph_of_its_own():
    def outer():
        return sum(execute({i: Task(i, add, i, 1) for i in range(5)}, range(5), 2))

    graph = {i: Task(i, outer) for i in range(8)}
    assert execute(graph, list(graph), 2) == [15] * 8


def test_callers_at_once_have_threads_of_their_own():
    meeting = threading.Barrier(6)

    def call(_):
        return execute({i: Task(i, meeting.wait, 20) for i in range(2)}, [], 2)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(call, range(3)))
    assert not meeting.broken


def test_threads_that_fell_asleep_are_woken():
    for pause in (0, 0.1, 0.1):
        sleep(pause)
        meeting = threading.Barrier(3)
        execute({i: Task(i, meeting.wait, 20) for i in range(3)}, [], 3)


def test_an_interrupt_leaves_no_thread_at_work():
    """The interrupted caller returns once the others have ended their tasks, and the next run is like any."""
    began, ended = threading.Event(), threading.Event()

    def interrupt():
        began.wait(20)
        raise KeyboardInterrupt

    def slow():
        began.set()
        sleep(0.2)
        ended.set()

    graph = {"a": Task("a", interrupt), "b": Task("b", slow), "c": Task("c", fail)}
    with pytest.raises(KeyboardInterrupt):
        execute(graph, [], 2)
    assert ended.is_set()
    assert execute({"x": Task("x", add, 1, 2)}, ["x"], 2) == [3]


@pytest.mark.parametrize("threads", [1, 2])
def test_callbacks_of_dask_see_every_task(threads):
    events: list[tuple] = []
    callback = Callback(
        start=lambda dsk: events.append(("start", len(dsk))),
        start_state=lambda dsk, state: events.append(("state", len(state["waiting"]))),
        pretask=lambda key, dsk, state: events.append(("pre", key)),
        posttask=lambda key, value, dsk, state, thread: events.append(("post", key, value)),
        finish=lambda dsk, state, failed: events.append(("finish", len(state["finished"]), failed)),
    )
    graph = {"a": Task("a", add, 1, 2), "b": Task("b", add, TaskRef("a"), 1)}
    with callback:
        execute(graph, ["b"], threads)
    between = [("pre", "a"), ("post", "a", 3), ("pre", "b"), ("post", "b", 4)]
    assert [e for e in events if e[0] not in ("pre", "post")] == [
        ("start", 2),
        ("state", 2),
        ("finish", 2, False),
    ]
    assert sorted(events[2:-1]) == sorted(between)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_progress_bar_counts_to_the_end(threads, capsys):
    from dask.diagnostics import ProgressBar

    with ProgressBar():
        execute({i: Task(i, add, i, 1) for i in range(5)}, [4], threads)
    assert "100%" in capsys.readouterr().out
