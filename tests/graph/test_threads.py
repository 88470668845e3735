"""The process's threads: how many, and one BLAS thread each."""

import threading

import dask
import numexpr
import pytest
from dask._task_spec import Task
from threadpoolctl import threadpool_info

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
