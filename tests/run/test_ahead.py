"""Reading ahead: the same blocks, a bounded number of them, and no thread that outlives its work."""

import os
import threading
import time
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import pytest

import daskconv
from daskconv import Augmentation
from daskconv.plan.input import InputCount
from daskconv.run.ahead import Ahead
from train.small import X, Y, bits, figures, fit, refuse, trainer


class Source:
    """Numbers that are read slowly, or not at all; notes who reads what."""

    def __init__(self, ahead=1, seconds=0.0, bad=()):
        self.ahead, self.seconds, self.bad, self.count = ahead, seconds, bad, InputCount()
        self.read: list[tuple[str, int]] = []

    def __len__(self):
        return 100

    def take(self, indices, epoch=None):
        self.read.append((threading.current_thread().name, int(indices[0])))
        time.sleep(self.seconds)
        if int(indices[0]) in self.bad:
            raise ValueError(f"image {indices[0]} is bad")
        return indices * 10, epoch, None


def blocks_of(step):
    """Two blocks of five images a step."""
    return [np.arange(start, start + 5) for start in (step * 10, step * 10 + 5)]


def settled(ahead):
    """Wait until all is read that may be."""
    deadline = time.monotonic() + 10
    while ahead._left or not all(block.done() for block in ahead._begun.values()):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "daskconv-ahead"]


@pytest.fixture
def read():
    """What reads a source ahead of so many steps; closed in the end."""
    made = []

    def reading(source, steps):
        made.append(Ahead(source, lambda step: [(block, None) for block in blocks_of(step)], range(steps)))
        return made[-1]

    yield reading
    for ahead in made:
        ahead.close()
    assert not readers()


@pytest.mark.parametrize("steps", [1, 2])
def test_as_many_steps_are_read_ahead_as_is_configured(read, steps):
    source = Source(ahead=steps)
    ahead = read(source, 10)
    for step in range(10):
        for block in blocks_of(step):
            images, epoch, _ = ahead.take(block, 3)
            assert (images == block * 10).all() and epoch == 3
        settled(ahead)
        assert max(first for _, first in source.read) == min(10 * (step + steps) + 5, 95)
    ours = [first for name, first in source.read if name != "daskconv-ahead"]
    assert 0 in ours and set(ours) <= {0, 5}, "later steps found all they needed"
    assert sorted(first for _, first in source.read) == list(range(0, 100, 5)), "each block is read once"


def test_what_the_thread_has_not_begun_the_step_reads_itself(read):
    source = Source(seconds=0.2)
    ahead = read(source, 2)
    ahead.take(np.arange(5))
    ahead.take(np.arange(15, 20))  # the thread reads 5 now, then 10
    assert [first for name, first in source.read if name == "MainThread"] == [0, 15]
    ahead.close()


def test_an_error_comes_when_its_block_is_taken(read):
    ahead = read(Source(bad={10}), 3)
    for block in blocks_of(0):
        ahead.take(block)
    settled(ahead)
    with pytest.raises(ValueError, match="image 10 is bad"):
        ahead.take(np.arange(10, 15))
    assert (ahead.take(np.arange(15, 20))[0] == np.arange(150, 200, 10)).all()


def test_steps_that_are_left_out_are_forgotten_and_others_are_read_at_once(read):
    ahead = read(Source(), 10)
    for step in (0, 1, 5, 9, 2):
        for block in blocks_of(step):
            assert (ahead.take(block)[0] == block * 10).all()
        settled(ahead)
        assert len(ahead._begun) <= 4 and len(ahead._step_of) <= 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads choose no cores here")
def test_the_thread_has_the_cores_of_the_process_and_yields_them(read):
    """Threads of a team keep off each other's cores; what they start would stay there."""
    seen = []

    class Noting(Source):
        def take(self, indices, epoch=None):
            thread = threading.get_native_id()
            seen.append((os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, thread)))
            return super().take(indices, epoch)

    cores, nice = os.sched_getaffinity(os.getpid()), os.getpriority(os.PRIO_PROCESS, os.getpid())
    ahead = read(Noting(), 2)

    def bound():
        os.sched_setaffinity(0, {min(cores)})
        ahead.take(np.arange(5))

    thread = threading.Thread(target=bound)
    thread.start()
    thread.join()
    settled(ahead)
    assert sorted(seen, key=str) == sorted(
        [({min(cores)}, nice), *[(cores, min(nice + 10, 19))] * 3], key=str
    )


def test_a_thread_that_nobody_needs_ends_and_another_takes_its_place(read, monkeypatch):
    monkeypatch.setattr("daskconv.run.ahead._IDLE", 0.02)
    source = Source()
    ahead = read(source, 3)
    for step in range(3):
        for block in blocks_of(step):
            ahead.take(block)
        settled(ahead)
        while ahead._thread is not None:
            time.sleep(0.001)
    deadline = time.monotonic() + 5
    while readers() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not readers()
    assert {first for name, first in source.read if name == "daskconv-ahead"} >= {10, 15, 20, 25}


def test_closing_waits_for_the_block_that_is_being_read_and_reads_no_more(read):
    source = Source(seconds=0.1)
    ahead = read(source, 10)
    ahead.take(np.arange(5))
    ahead.close()
    assert not readers() and len(source.read) <= 3
    ahead.take(np.arange(5, 10))
    assert not readers()


@dataclass(frozen=True)
class Slow(Augmentation):
    """Takes its time, as a reader of a slow disk does."""

    seconds: float = 0.01

    def __call__(self, images, draws):
        time.sleep(self.seconds)
        return images


def with_ahead(steps, x=X, **options):
    with dask.config.set({"daskconv.input.ahead": steps}):
        return fit(trainer(**options), x, epochs=2, validation_data=(x, Y))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("x", [X, da.from_array(X, (50, 8, 8, 1))], ids=["numpy", "dask"])
def test_training_comes_to_the_same_bits_and_leaves_no_thread(x, threads):
    options = {"threads": threads, "augment": ["crop", "flip", Slow(0.001)]}
    runs = [with_ahead(steps, x, **options) for steps in (0, 1, 2)]
    assert not readers()
    assert all(bits(run) == bits(runs[0]) for run in runs)
    assert all(figures(run.history) == figures(runs[0].history) for run in runs)


@dataclass(frozen=True)
class Rests(daskconv.Layer):
    """A layer that takes long, so that there is time to read."""

    def forward(self, params, x, context):
        time.sleep(0.05 if context.training else 0)
        return x, None

    def backward(self, params, saved, dy, context):
        return dy, {}


def test_a_slow_reader_is_hidden_behind_the_steps():
    from daskconv import Dense, Flatten, Sequential

    net = Sequential([Rests(), Flatten(), Dense(10)])
    waited = {}
    for steps in (0, 1):
        with dask.config.set({"daskconv.input.ahead": steps}):
            run = fit(trainer(net, augment=[Slow(0.03)]), epochs=1, batch_size=23)
        waited[steps] = run.input_read["local"].seconds
    # Ten steps of four shards: 40 blocks wait 0.03 s each, or those of the first step alone.
    assert waited[0] >= 40 * 0.03
    assert waited[1] < 0.5 * waited[0]


@dataclass(frozen=True)
class Fails(Augmentation):
    """Cannot change an image."""

    def __call__(self, images, draws):
        raise ValueError("no image today")


def test_a_reader_that_fails_ends_training_with_its_error():
    for steps in (0, 1):
        with pytest.raises(ValueError, match="no image today"):
            with_ahead(steps, augment=[Fails()])
    assert not readers()


def test_stopping_leaves_no_thread():
    run = trainer(augment=[Slow(0.01)])

    def stop(event):
        run.stop()

    with daskconv.events.listening(stop):
        fit(run, epochs=3)
    assert run.position.step == 2 and not readers()


def test_what_was_read_is_counted():
    run = fit(trainer(), epochs=2)
    read = run.input_read["local"]
    assert (read.images, read.nbytes) == (2 * 230, 2 * 230 * 64)
    assert read.seconds > 0


@pytest.mark.parametrize("given", ["one", -1, 9, True, 1.5], ids=str)
def test_a_number_of_steps_that_is_none_is_refused(given):
    with dask.config.set({"daskconv.input.ahead": given}):
        refuse("daskconv.input.ahead is .*: give a number of steps from 0 to 8", fit, trainer())


def test_parts_of_images_are_read_ahead():
    data = trainer()._data(X, Y, "x", batch_size=50, shards=4)
    data.normalize = daskconv.Normalize.mean_image(X)
    box, indices = ((2, 5), (0, 8), (0, 1)), np.arange(10)
    ahead = Ahead(data, lambda step: [(indices + 10 * step, box)], range(3))
    expected = data.take(indices + 10, 0)[0][:, 2:5]
    ahead.take(indices, 0, box)
    settled(ahead)
    assert np.array_equal(ahead.take(indices + 10, 0, box)[0], expected)
    ahead.close()
