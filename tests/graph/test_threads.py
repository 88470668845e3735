"""The process's threads: how many, and one BLAS thread each."""

import os
import threading

import dask
import numexpr
import pytest
from dask._task_spec import Task
from threadpoolctl import threadpool_info

from daskconv.graph import threads as process
from daskconv.graph.team import cores_of
from daskconv.graph.threads import available_threads, check_threads, execute, one_thread_each, serial_blas
from reference import refuse


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", None])
def test_threads_are_an_int_of_at_least_1(threads):
    refuse(f"threads is {threads!r}", check_threads, threads)


def test_a_configured_number_of_threads_is_checked():
    with dask.config.set({"daskconv.threads": -2}):
        refuse("threads is -2", available_threads)


def test_blas_keeps_to_one_thread_until_the_last_user_leaves():
    before = blas_threads()
    assert before, "NumPy has a BLAS that threadpoolctl knows"
    with serial_blas():
        with serial_blas():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_blas_keeps_to_one_thread_whichever_thread_asks():
    before, seen = blas_threads(), []

    def hold():
        with serial_blas():
            seen.append(blas_threads())

    hold()
    for _ in range(2):
        thread = threading.Thread(target=hold)
        thread.start()
        thread.join()
    assert all(set(threads) == {1} for threads in seen)
    assert blas_threads() == before


def test_numexpr_is_held_to_one_thread_and_restored():
    before = numexpr.get_num_threads()
    numexpr.set_num_threads(2)
    try:
        with one_thread_each():
            assert numexpr.get_num_threads() == 1
        assert numexpr.get_num_threads() == 2
    finally:
        numexpr.set_num_threads(before)


def test_settings_are_restored_after_an_error():
    before = blas_threads()
    with pytest.raises(ValueError, match="inside"), one_thread_each():
        raise ValueError("inside")
    assert blas_threads() == before


def meet(barrier):
    """Return this thread once as many tasks as the barrier counts run at the same time."""
    barrier.wait(timeout=20)
    return threading.get_ident(), blas_threads()


@pytest.mark.parametrize("threads", [2, 3])
def test_a_graph_runs_on_as_many_threads_as_asked_each_with_one_blas_thread(threads):
    barrier = threading.Barrier(threads)
    graph = {("task", i): Task(("task", i), meet, barrier) for i in range(threads)}
    results = execute(graph, list(graph), threads)
    assert len({ident for ident, _ in results}) == threads
    assert all(set(blas) == {1} for _, blas in results)


def test_one_thread_is_the_callers():
    graph = {"task": Task("task", threading.get_ident)}
    assert list(execute(graph, ["task"], 1)) == [threading.get_ident()]


def nested(barrier):
    barrier.wait(timeout=20)
    graph = {("tile", i): Task(("tile", i), threading.get_ident) for i in range(4)}
    return len(execute(graph, list(graph), 2))


def test_blocks_that_wait_for_their_tiles_do_not_block_them():
    barrier = threading.Barrier(2)
    graph = {("block", i): Task(("block", i), nested, barrier) for i in range(2)}
    assert list(execute(graph, list(graph), 2)) == [4, 4]


@pytest.mark.skipif(len(process.cores()) < 2 or not hasattr(os, "sched_setaffinity"), reason="one core only")
def test_a_caller_stays_on_its_core_while_a_helper_has_the_other():
    both, seen, meeting = set(process.cores()[:2]), {}, threading.Barrier(2)

    def look():
        meeting.wait(timeout=20)
        me = threading.get_native_id()
        seen[me] = os.sched_getaffinity(0), cores_of(me)

    def call():
        os.sched_setaffinity(0, both)
        execute({i: Task(i, look) for i in range(2)}, [], 2)
        seen["after"] = os.sched_getaffinity(0)
        seen["caller"] = threading.get_native_id()

    caller = threading.Thread(target=call)
    caller.start()
    caller.join(timeout=60)
    after, me = seen.pop("after"), seen.pop("caller")
    mine, (others,) = seen.pop(me), [cores for cores, _ in seen.values()]
    assert after == both == mine[1]
    assert len(mine[0]) == len(others) == 1 and mine[0] | others == both


def test_cores_are_shared_where_two_are_threads_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "cores", lambda: [0, 1, 5])
    for name, lists in {"apart": ("0,4", "1", "5"), "smt": ("0-1", "0-1", "5")}.items():
        for core, siblings in zip((0, 1, 5), lists, strict=True):
            folder = tmp_path / name / f"cpu{core}" / "topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert not process.share_cores(str(tmp_path / "apart"))
    assert process.share_cores(str(tmp_path / "smt"))
    assert not process.share_cores(str(tmp_path / "none"))
