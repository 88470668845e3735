"""Signals: the first ends training after a step, the second ends the process, and handlers come back."""

import os
import signal
import threading
import time

import pytest

from daskconv import events
from daskconv.errors import DataError, Interrupted
from daskconv.train import interrupt
from daskconv.train.interrupt import StopRequest, catching
from train.small import STEPS, X, Y, bits, fit, trainer

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def handlers():
    """Python's own handlers, which are there again after a test, whatever happens in training."""
    own = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    own[signal.SIGUSR1] = signal.SIG_DFL
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    yield
    after = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert after == own


def kill_at(step, *numbers, pause=0.0):
    def listener(event):
        if event.epoch * STEPS + event.step == step:
            for number in numbers:
                os.kill(os.getpid(), number)
                time.sleep(pause)

    return events.listening(listener)


@pytest.mark.parametrize("number", ALL)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_signal_ends_training_after_a_step_and_fit_goes_on(number, threads):
    run = trainer(threads=threads)
    with (
        kill_at(7, number),
        pytest.raises(Interrupted, match=f"stopped on {number.name} after 1 epochs") as got,
    ):
        fit(run, epochs=3)
    assert got.value.signal == number and "\n" not in str(got.value)
    assert run.position.epoch == 1 and 3 <= run.position.step < STEPS
    assert f"and {run.position.step} steps: the last full step is kept." in str(got.value)
    assert run._state.steps == STEPS + run.position.step
    fit(run, epochs=3)
    assert bits(run) == bits(fit(trainer(), epochs=3)) and run.history["epoch"] == [1, 2, 3]


def test_a_signal_in_the_last_step_still_says_so():
    run = trainer()
    with kill_at(STEPS - 1, signal.SIGINT), pytest.raises(Interrupted, match="after 1 epochs and 0 steps"):
        fit(run)
    assert bits(run) == bits(fit(trainer())) and len(run.history.epochs) == 1


def test_a_second_signal_meets_the_handler_from_before(monkeypatch):
    met = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: met.append(number))
    try:
        for first in (signal.SIGINT, signal.SIGTERM):
            monkeypatch.setattr(interrupt, "_SAME", 0.01)
            with kill_at(2, first, signal.SIGTERM, pause=0.02), pytest.raises(Interrupted) as got:
                fit(trainer())
            assert met == [signal.SIGTERM] and got.value.signal == first
            met.clear()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_belongs_to_one_wish_ends_training_and_not_the_process():
    """SIGTERM from a batch system and, the same, from the launcher; and after the warning of SIGUSR1."""
    warned = [signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1]
    for numbers in ([signal.SIGTERM] * 3, warned):
        with kill_at(2, *numbers), pytest.raises(Interrupted) as got:
            fit(trainer())
        assert got.value.signal == signal.SIGTERM


def test_fit_goes_on_after_a_second_signal_and_after_a_users_error():
    def break_down(trainer, logs):
        if logs["epoch"] == 2:
            raise ZeroDivisionError

    run = trainer()
    with kill_at(2, signal.SIGINT, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        fit(run, epochs=3)
    assert run.position.epoch == 0 and run.position.step == run._state.steps == 3
    with pytest.raises(ZeroDivisionError):
        fit(run, epochs=3, callbacks=[break_down])
    assert run.position.epoch == 2
    assert bits(fit(run, epochs=3)) == bits(fit(trainer(), epochs=3)) and run.history["epoch"] == [1, 2, 3]


def test_handlers_come_back_after_training_and_after_errors():
    fit(trainer())
    with pytest.raises(DataError):
        fit(trainer(), (X * float("nan")), Y)
    request = StopRequest()
    with pytest.raises(ZeroDivisionError), catching(request):
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        raise ZeroDivisionError
    assert not request()


def test_other_threads_leave_signals_alone():
    found = []

    def look():
        with catching(StopRequest()):
            found.extend(signal.getsignal(number) for number in ALL)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(number) for number in ALL]
