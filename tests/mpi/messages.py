"""Run under mpiexec -n 4, without Dask: random swaps, exchanges side by side, failing ranks; a JSON line a rank."""

import json
import time

import numpy as np

from daskconv.errors import WorkerError
from daskconv.run.messages import Messages
from daskconv.run.moves import Move


def random_swaps(comm, messages):
    """Every rank draws the same patterns: who sends how much to whom, in one to three parcels."""
    draw = np.random.default_rng(7)
    nbytes, count = 0, 0
    for turn in range(30):
        sends, receives, expected = [], [], []
        for source in range(comm.size):
            for target in range(comm.size):
                for part in range(draw.integers(0, 4)):
                    size, tag = int(draw.choice([0, 1, 1000, 300_000])), int(draw.integers(0, 3))
                    array = np.random.default_rng([turn, source, target, part]).standard_normal(size)
                    if source == target:
                        continue
                    if source == comm.rank:
                        sends.append((target, tag, array))
                        nbytes, count = nbytes + array.nbytes, count + bool(array.nbytes)
                    if target == comm.rank:
                        receives.append((source, tag, np.zeros(size)))
                        expected.append(array)
        messages.swap(sends, receives)
        for (_, _, found), array in zip(receives, expected, strict=True):
            assert np.array_equal(found, array)
    assert sum(messages.traffic.nbytes.values()) == nbytes
    assert sum(messages.traffic.messages.values()) == count


def ring(comm, tag, hops):
    """Pass a number on around the ring, hop by hop; each rank adds one."""
    value, got = np.full(50_000, float(comm.rank)), np.zeros(50_000)
    for _ in range(hops):
        right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
        yield Move([(right, tag, value)], [(left, tag, got)])
        value[:] = got + 1
    assert value[0] == (comm.rank - hops) % comm.size + hops


def side_by_side(comm, messages):
    """Begin in another order on each rank; what is begun last may end first."""
    tags = np.random.default_rng(comm.rank).permutation(20)
    pending = [messages.start(ring(comm, int(tag), 2 + int(tag) % 5)) for tag in tags]
    for one in pending:
        one.wait()


def failing(comm, how):
    """Ranks fail in several ways while messages of all sizes are on their way; what is said of it."""
    peers = [rank for rank in range(comm.size) if rank != comm.rank]
    try:
        with Messages(comm, 30) as messages:
            sent, got = np.ones(400_000), {peer: np.zeros(400_000) for peer in peers}
            small = np.ones(3)
            messages.start(iter([Move([(peer, 1, sent) for peer in peers])]))
            messages.start(iter([Move([(peer, 2, small) for peer in peers])]))
            if comm.rank == 2 or (how == "two" and comm.rank == 1):
                if how == "in an exchange":
                    messages.start(broken()).wait()
                time.sleep(0.05)
                raise RuntimeError(f"rank {comm.rank} gave up")
            messages.swap((), [(peer, 1, got[peer]) for peer in peers if peer != 2 or how != "late"])
            messages.swap((), [(peer, 3, got[peer]) for peer in peers])
    except WorkerError as error:
        return str(error)
    return "nothing was raised"


def broken():
    yield Move()
    raise ValueError("no sum today")


def waits_asleep(comm):
    """Return the processor's seconds while a message is half a second late."""
    peer, array = comm.rank ^ 1, np.zeros(10)
    with Messages(comm, 30) as messages:
        messages.swap([(peer, 0, array)], [(peer, 0, array.copy())])
        if comm.rank % 2:
            time.sleep(0.5)
        spent = time.process_time()
        messages.swap([(peer, 0, array)], [(peer, 0, array.copy())])
        return time.process_time() - spent


def main():
    from mpi4py import MPI

    comm = MPI.COMM_WORLD.Dup()
    row = {"rank": comm.rank}
    with Messages(comm, 30) as messages:
        random_swaps(comm, messages)
        side_by_side(comm, messages)
    ways = ("alone", "two", "late", "in an exchange")
    row["failures"] = {how: failing(comm, how) for how in ways}
    with Messages(comm, 30) as messages:
        random_swaps(comm, messages)
    row["waiting"] = waits_asleep(comm)
    # One rank prints: the launcher may mix what several say.
    for said in comm.gather(row) or ():
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
