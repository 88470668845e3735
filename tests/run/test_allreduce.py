"""All-reduce among any number of workers: the bits of the tree, few messages, no more bytes than have to travel."""

from collections import defaultdict, deque
from itertools import pairwise
from math import ceil, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskconv.plan import tree
from daskconv.plan.allreduce import PARTS, heights, meetings, rounds, traffic
from daskconv.run.allreduce import all_reduce, join_into

drawn = settings(deadline=None, derandomize=True, max_examples=150)


class Post:
    """Carries the moves of all workers, each as far as what it waits for has come: parcels come in their order."""

    def __init__(self, exchanges):
        self.exchanges, self.moves = exchanges, {}
        self.lanes, self.sent = defaultdict(deque), []
        for worker in exchanges:
            self.advance(worker)

    def advance(self, worker):
        move = next(self.exchanges[worker], None)
        if move is None:
            self.moves.pop(worker, None)
            return
        for to, tag, array in move.sends:
            if array.nbytes:
                self.lanes[worker, to, tag].append(array.copy())
                self.sent.append((worker, to, array.size))
        self.moves[worker] = deque(parcel for parcel in move.receives if parcel[2].nbytes)

    def run(self):
        while self.moves:
            went = False
            for worker in list(self.moves):
                missing = self.moves[worker]
                while missing and self.lanes[missing[0][0], worker, missing[0][1]]:
                    source, tag, array = missing.popleft()
                    array[...] = self.lanes[source, worker, tag].popleft()
                    went = True
                if not missing:
                    self.advance(worker)
                    went = True
            assert went, "workers wait for each other"
        assert not any(self.lanes.values()), "something was left over"


def added(owners, holders, hosts, size, whole, tag=0):
    """Return the sum as every worker gets it, that of the tree, what was sent and what is predicted."""
    draw = np.random.default_rng(size)
    shape = len(owners), size
    vectors = (draw.standard_normal(shape) * 10.0 ** draw.integers(-6, 6, shape)).astype("float32")
    leaves = {(shard, shard + 1): vectors[shard] for shard in holders}
    want = tree.fold((0, len(owners)), leaves.get, lambda left, right: left + right)
    root = meetings(owners, holders, hosts)
    totals = {worker: np.full(size, np.nan, "float32") for worker in root.workers}

    def exchange(worker):
        own = {
            leaf.span: join_into(leaf.span, {span: array.copy() for span, array in leaves.items()})
            for leaf in root.leaves_of(worker)
        }
        way = rounds(root, worker, size, whole)
        return all_reduce(
            worker, way, own, tag, totals[worker], lambda span, size: np.full(size, np.nan, "float32")
        )

    post = Post({worker: exchange(worker) for worker in root.workers})
    post.run()
    return totals, want, sorted(post.sent), sorted(traffic(root, size, whole))


@drawn
@given(data=st.data(), shards=st.integers(1, 40), size=st.integers(1, 60), whole=st.booleans())
def test_any_workers_get_the_bits_of_the_tree(data, shards, size, whole):
    workers = data.draw(st.integers(1, shards))
    # Neighbours on a worker, as they always are, or any.
    owners = tree.owners(shards, workers)
    if data.draw(st.booleans()):
        owners = tuple(data.draw(st.lists(st.integers(0, 6), min_size=shards, max_size=shards)))
    some = data.draw(st.sets(st.integers(0, shards - 1), min_size=1))
    holders = tuple(sorted(some)) if data.draw(st.booleans()) else tuple(range(shards))
    hosts = tuple(data.draw(st.lists(st.integers(0, 3), min_size=1 + max(owners), max_size=1 + max(owners))))
    totals, want, sent, predicted = added(owners, holders, hosts, size, whole)
    assert {total.tobytes() for total in totals.values()} == {want.tobytes()}
    assert sent == predicted


@pytest.mark.parametrize("workers", [2, 3, 4, 5, 7, 8, 16, 31, 32, 100, 257])
def test_few_messages_and_no_more_bytes_than_have_to_travel(workers):
    size, owners = 1009, tuple(range(workers))
    _, _, cut, _ = added(owners, owners, None, size, whole=False)
    _, _, whole, _ = added(owners, owners, None, size, whole=True)
    # Each element leaves all but one of its holders, and comes back to all but one.
    assert sum(elements for *_, elements in cut) == 2 * (workers - 1) * size
    most = (PARTS - 1) * ceil(log2(workers) / log2(PARTS) + 1)
    assert len(whole) / workers <= most and len(cut) / workers <= 4 * most
    if workers <= PARTS:
        assert len(whole) == workers * (workers - 1) and len(cut) == 2 * len(whole)


def test_slices_of_meetings_of_different_sizes_lie_in_each_other():
    """So a worker of hundreds sends to few: recursive halving where there are as many on both sides."""
    for workers in (*range(2, 70), 100, 200, 257):
        owners = tuple(range(workers))
        for root in meetings(owners).inside():
            for part in root.parts:
                for worker in part.workers:
                    a, b = root.slice_of(worker, 10**6, False)
                    c, d = part.slice_of(worker, 10**6, False)
                    assert c <= a and b <= d


def test_hosts_add_up_inside_before_anything_leaves_them():
    hosts = tuple(worker // 8 for worker in range(64))
    root, size = meetings(tuple(range(64)), None, hosts), 6400
    across = [n for a, b, n in traffic(root, size, False) if hosts[a] != hosts[b]]
    assert sum(across) == 2 * 7 * size
    for meeting in root.inside():
        assert meeting.host is not None or all(
            part.host is None or len(part.workers) == 8 for part in meeting.parts
        )


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("workers", "together"), [(1, 1), (2, 1), (6, 2), (16, 4), (100, 1), (500, 2)])
def test_what_is_priced_is_what_is_sent(workers, together, whole):
    hosts = tuple(worker // together for worker in range(workers))
    size = 10**6
    sent = list(traffic(meetings(tuple(range(workers)), None, hosts), size, whole))
    priced = heights(workers, together, whole)
    assert sum(each.messages for each in priced) * workers == pytest.approx(len(sent))
    share = sum(each.share for each in priced)
    assert share * size * workers == pytest.approx(sum(n for *_, n in sent), rel=1e-3)


def test_slices_tell_all_elements_once():
    for meeting in meetings(tuple(range(37))).inside():
        cuts = sorted(meeting.slice_of(worker, 1000, False) for worker in meeting.workers)
        assert cuts[0][0] == 0 and cuts[-1][1] == 1000 and all(a[1] == b[0] for a, b in pairwise(cuts))
