"""What workers exchange in the tests of what carries exchanges; ``here`` has a worker's ``rank`` and the ``size``."""

import time

import numpy as np

from daskconv.errors import WorkerError
from daskconv.run.moves import Move


def random_swaps(here, carrier):
    """Every worker draws the same patterns: who sends how much to whom, in one to three parcels."""
    draw = np.random.default_rng(7)
    nbytes, count = 0, 0
    for turn in range(30):
        sends, receives, expected = [], [], []
        for source in range(here.size):
            for target in range(here.size):
                for part in range(draw.integers(0, 4)):
                    size, tag = int(draw.choice([0, 1, 1000, 300_000])), int(draw.integers(0, 3))
                    array = np.random.default_rng([turn, source, target, part]).standard_normal(size)
                    if source == target:
                        continue
                    if source == here.rank:
                        sends.append((target, tag, array))
                        nbytes, count = nbytes + array.nbytes, count + bool(array.nbytes)
                    if target == here.rank:
                        receives.append((source, tag, np.zeros(size)))
                        expected.append(array)
        carrier.swap(sends, receives)
        for _, _, array in sends:
            array[:] = np.nan  # it has gone, and may be used again
        for (_, _, found), array in zip(receives, expected, strict=True):
            assert np.array_equal(found, array)
    assert sum(carrier.traffic.nbytes.values()) == nbytes
    assert sum(carrier.traffic.messages.values()) == count


def ring(here, tag, hops):
    """Pass a number on around the ring, hop by hop; each worker adds one."""
    value, got = np.full(50_000, float(here.rank)), np.zeros(50_000)
    for _ in range(hops):
        right, left = (here.rank + 1) % here.size, (here.rank - 1) % here.size
        yield Move([(right, tag, value)], [(left, tag, got)])
        value[:] = got + 1
    assert value[0] == (here.rank - hops) % here.size + hops


def side_by_side(here, carrier):
    """Begin in another order on each worker; what is begun last may end first."""
    tags = np.random.default_rng(here.rank).permutation(20)
    pending = [carrier.start(ring(here, int(tag), 2 + int(tag) % 5)) for tag in tags]
    for one in pending:
        one.wait()


WAYS = ("alone", "two", "late", "in an exchange")


def failing(here, how, carrier):
    """Workers fail in several ways while messages of all sizes are on their way; what is said of it."""
    peers = [rank for rank in range(here.size) if rank != here.rank]
    try:
        with carrier:
            sent, got = np.ones(400_000), {peer: np.zeros(400_000) for peer in peers}
            small = np.ones(3)
            carrier.start(iter([Move([(peer, 1, sent) for peer in peers])]))
            carrier.start(iter([Move([(peer, 2, small) for peer in peers])]))
            if here.rank == 2 or (how == "two" and here.rank == 1):
                if how == "in an exchange":
                    carrier.start(broken()).wait()
                time.sleep(0.05)
                raise RuntimeError(f"rank {here.rank} gave up")
            carrier.swap((), [(peer, 1, got[peer]) for peer in peers if peer != 2 or how != "late"])
            carrier.swap((), [(peer, 3, got[peer]) for peer in peers])
    except WorkerError as error:
        return str(error)
    return "nothing was raised"


def broken():
    yield Move()
    raise ValueError("no sum today")
