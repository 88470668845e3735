"""Fewer blocks than threads: the threads share convolutions, to the same bits."""

import numpy as np
import pytest

import daskconv
from daskconv.plan.program import Program


@pytest.mark.parametrize("net", ["cifar10_quick", "resnet20", "lenet"])
def test_the_bits_are_those_of_one_thread(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).random((6, 32, 32, 3), np.float32)
    y, spread = np.arange(6) % 10, []
    whole = Program.spread_threads

    def noted(self, spans, indices, threads):
        spread.append(whole(self, spans, indices, threads))
        return spread[-1]

    monkeypatch.setattr(Program, "spread_threads", noted)

    def weights(threads: int) -> dict:
        trainer = daskconv.Trainer(net, transport="local", threads=threads, shards=1)
        trainer.fit(x, y, epochs=2, batch_size=3, progress=False)
        return trainer.model.params

    alone = weights(1)
    assert set(spread) == {1}
    for threads in (2, 3, 8):
        spread.clear()
        shared = weights(threads)
        assert set(spread) == {threads}
        assert all(np.array_equal(alone[name], shared[name]) for name in alone)


def test_threads_are_shared_out_among_blocks() -> None:
    program = daskconv.Trainer("lenet", shards=4).program((28, 28, 1), 4)
    indices = np.arange(4)
    counts = [program.spread_threads([(0, 4)], indices, threads) for threads in (1, 4, 7, 8, 16)]
    assert counts == [1, 1, 1, 2, 4]
    assert program.spread_threads([(2, 3)], indices, 8) == 8
