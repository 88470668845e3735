"""Split Programs: every plan's loss, gradients and weights are those of the whole network."""

import queue
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskconv import (
    SGD,
    Add,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layout,
    MaxPool2D,
    Network,
    Node,
    Outputs,
    ReLU,
    Sequential,
    WeightedLosses,
    plans,
)
from daskconv.errors import InputError, WorkerError
from daskconv.plan import tree
from daskconv.plan.allreduce import meetings, traffic
from daskconv.plan.describe import added_bytes, exchanged_bytes
from daskconv.plan.pieces import Pieces, joined
from daskconv.plan.plans import resolve_plan
from daskconv.plan.tasks import block_partial, evaluate_block
from daskconv.run.exchange import Mesh, drive, taking_turns
from daskconv.run.shards import Shards
from plan.drawn import images, networks, program_of, some_plans, state_of, unsplit


def shards_of(program, state, threads=1):
    count = program.split.shards
    pieces = Pieces.cut(program.split, state, range(count))
    return Shards(program, pieces, Mesh((0,) * count), threads)


def gradients_of(shards, data, indices):
    """Return the summed gradients and statistics, put together, and the sums; NaN where no shard gave any."""
    gradients, sums = drive(shards.gradients(data, indices, 0))
    found = {name: np.full(shape, np.nan) for name, shape in shards.program.vector_shapes.items()}
    for (name, box), gradient in gradients.items():
        place = found[name][tuple(slice(*side) for side in box)]
        assert np.isnan(place).all(), "each piece once"
        place[...] = gradient
    return found, drive(shards.mesh.add_everywhere(sums))


def image_groups(program, indices):
    """Return the groups of images that share the statistics of batch norms."""
    plan, found = program.plan, []
    each = plan.shards // (1 if plan.synchronize else plan.layout.n)
    for batch in program.batches_of(indices):
        edges, images = batch.edges, batch.of(indices)
        found += [images[edges[i] : edges[i + each]] for i in range(0, plan.shards, each)]
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    networks(),
    some_plans(),
    st.sampled_from([(8, 9, 4), (12, 8, 4)]),
    st.integers(1, 7),
    st.sampled_from([1, 1, 2, 3]),
    st.data(),
)
def test_every_plan_gives_the_gradients_of_the_whole_network(network, plan, shape, count, batches, draw):
    try:
        program = program_of(network, plan, shape, 12, accumulate=batches)
    except InputError as error:
        # Deep networks on small images: some part of the last ones would see padding only.
        assert "see padding only" in str(error) or "kernel spans" in str(error), error
        return
    if program.split is None:
        return
    data, indices = images(9, shape), np.arange(9)[draw.draw(st.permutations(range(9)))][:count]
    if plan.layout.n > 1 and any("variance" in name for name in program.vector_shapes):
        indices = indices[: max(1, count)]
    found, sums = gradients_of(shards_of(program, state_of(network, shape, SGD(0.1))), data, indices)
    expected, expected_sums = unsplit(network, shape, data, image_groups(program, indices))
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-9)
    scale = max(np.abs(gradient).max() for name, gradient in expected.items())
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-7, atol=1e-9 * scale, err_msg=name)


class Post:
    """Messages between threads of this process, each in the place of a worker; it counts what crosses."""

    def __init__(self):
        self.boxes, self.lock = defaultdict(queue.Queue), threading.Lock()
        self.nbytes = 0

    def of(self, rank):
        return SimpleNamespace(start=lambda exchange: Sent(self, rank, exchange))

    def box(self, *lane):
        with self.lock:
            return self.boxes[lane]


class Sent:
    """An exchange whose first parcels are on their way; all else is done by who waits for it."""

    def __init__(self, post, rank, exchange):
        self.post, self.rank, self.exchange = post, rank, exchange
        self.receives = self.send()

    def send(self):
        sends, receives = next(self.exchange, ((), None))
        for other, tag, array in sends:
            with self.post.lock:
                self.post.nbytes += array.nbytes
            self.post.box(self.rank, other, tag).put(array.copy())
        return receives

    def wait(self):
        while self.receives is not None:
            for other, tag, buffer in self.receives:
                array = self.post.box(other, self.rank, tag).get(timeout=20)
                assert array.dtype == buffer.dtype and array.shape == buffer.shape
                buffer[...] = array
            self.receives = self.send()


def on_workers(program, state, workers, work, threads=1):
    """Return what `work(shards)` gives on each of some workers, their pieces joined, and the bytes they sent."""
    count = program.split.shards
    owners = tree.owners(count, workers)
    post, found = Post(), {}

    def run(rank):
        mesh = Mesh(owners, rank, post.of(rank))
        shards = Shards(program, Pieces.cut(program.split, state, mesh.mine), mesh, threads)
        found[rank] = drive(work(shards)), shards.pieces

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, range(workers)))
    results, pieces = zip(*(found[rank] for rank in range(workers)), strict=True)
    return results, joined(state, pieces), post


def steps(data, count, batch, evaluates=True):
    """Return work: some steps, the last one with fewer images, and an evaluation."""

    def work(shards):
        for step in range(count):
            size = batch if step < count - 1 else batch - 1
            yield from shards.step(data, np.arange(step, step + size), 0, 0.05)
        if evaluates:
            return (yield from shards.evaluate(data, np.arange(7)))

    return work


NETWORK = Network(
    (
        Node("conv1", Conv2D(8, 3, padding=1)),
        Node("norm1", BatchNorm(), ("conv1",)),
        Node("relu1", ReLU(), ("norm1",)),
        Node("conv2", Conv2D(8, 3, padding=1), ("relu1",)),
        Node("sum", Add(), ("conv2", "relu1")),
        Node("pool", MaxPool2D(3, 2), ("sum",)),
        Node("drop", Dropout(0.25), ("pool",)),
        Node("flat", Flatten(), ("drop",)),
        Node("dense1", Dense(12), ("flat",)),
        Node("relu2", ReLU(), ("dense1",)),
        Node("dense2", Dense(5), ("relu2",)),
    )
)
SHAPE = (9, 8, 4)
PLANS = [
    plans.data(4, synchronize=True),
    plans.model(4),
    plans.model(2, n=2),
    plans.hybrid(4),
    plans.hybrid(4, slices=2),
    plans.hybrid(4, slices="shard"),
    plans.spatial(h=2, w=2),
    plans.spatial(h=2, n=2),
    resolve_plan({"conv*": Layout(n=2, h=2), "dense1": Layout(c=4), "dense2": Layout(k=2)}, None),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.name}-{plan.layout}-{plan.slices}")
def test_the_bits_are_those_of_any_number_of_workers(plan):
    optimizer = SGD(0.1, momentum=0.9)
    program = program_of(NETWORK, plan, SHAPE, 6, "float32", optimizer=optimizer, clip_norm=1.0)
    state, data = state_of(NETWORK, SHAPE, optimizer, "float32"), images(12, SHAPE, "float32")
    (sums,), once, sent = on_workers(program, state, 1, steps(data, 4, 6))
    assert sent.nbytes == 0 and not np.array_equal(once.params["conv1.weight"], state.params["conv1.weight"])
    for workers in 2, 3, 4:
        each, found, sent = on_workers(program, state, workers, steps(data, 4, 6))
        assert sent.nbytes > 0
        assert all(np.array_equal(sums, other) for other in each)
        for kind in "params", "slots", "statistics":
            for name, array in getattr(once, kind).items():
                assert np.array_equal(array, getattr(found, kind)[name]), (workers, name)


NOTES = []


class Noted(ReLU):
    """Notes when its gradient comes."""

    def backward(self, params, saved, dy, context):
        NOTES.append("backward")
        return super().backward(params, saved, dy, context)


def test_works_take_turns_and_what_one_waits_for_travels_while_another_computes():
    notes = []

    def work(name, waits="ab"):
        for part in waits:
            notes.append(f"{name}{part}")
            yield notes[-1]
        notes.append(f"{name}c")

    assert not list(taking_turns(work(name, "") for name in "1234")) and notes == ["1c", "2c", "3c", "4c"]
    notes.clear()
    awaited = list(taking_turns(map(work, "123")))
    assert " ".join(notes) == "1a 2a 1b 2b 1c 3a 2c 3b 3c" and awaited == ["1a", "2a", "1b", "2b", "3a", "3b"]


@pytest.mark.parametrize("batches", [1, 2])
def test_gradients_begin_to_travel_while_the_backward_pass_goes_on(batches):
    NOTES.clear()
    network = Sequential([Conv2D(8, 3, padding=1), Noted(), Flatten(), Dense(5)])
    plan = replace(plans.data(2, synchronize=True), bucket_bytes=1000)
    program = program_of(network, plan, SHAPE, 6, accumulate=batches)
    mesh = Mesh((0, 1), 0, SimpleNamespace(start=lambda exchange: NOTES.append("bucket")))
    pieces = Pieces.cut(program.split, state_of(network, SHAPE, program.optimizer), mesh.mine)
    next(Shards(program, pieces, mesh, 1).gradients(images(12, SHAPE), np.arange(12), 0))
    # The buckets: of dense, then of its bias and conv's weight, then of conv's bias.
    assert [*["backward"] * batches, "bucket", "bucket"] == [
        note for i, note in enumerate(NOTES) if i != batches - 1
    ]
    assert NOTES[batches - 1] == "bucket"


def test_buckets_change_no_bits():
    found = []
    for nbytes in None, 1000:
        program = program_of(NETWORK, replace(plans.hybrid(4), bucket_bytes=nbytes), SHAPE, 6, "float32")
        state, data = state_of(NETWORK, SHAPE, program.optimizer, "float32"), images(12, SHAPE, "float32")
        found.append(
            (
                len(program.split.buckets(program.vector_shapes)),
                on_workers(program, state, 3, steps(data, 2, 6))[1],
            )
        )
    (few, one), (many, other) = found
    assert many > few and all(np.array_equal(array, other.params[name]) for name, array in one.params.items())


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.name}-{plan.layout}-{plan.slices}")
@pytest.mark.parametrize("workers", [2, 3, 4])
def test_workers_send_what_the_plan_says(plan, workers):
    program = program_of(NETWORK, plan, SHAPE, 7, "float32")
    state, data = state_of(NETWORK, SHAPE, SGD(0.1), "float32"), images(12, SHAPE, "float32")
    _, _, sent = on_workers(program, state, workers, steps(data, 1, 8, evaluates=False))
    owners = tree.owners(4, workers)
    expected = exchanged_bytes(program.split, owners, 7) + added_bytes(
        program.split, owners, program.vector_shapes
    )
    control = sum(1 for _ in traffic(meetings(owners), 1, whole=True))
    assert sent.nbytes == expected + control * (3 + program.sums_size) * 8


@pytest.mark.parametrize("plan", [plans.data(3, synchronize=True), plans.spatial(h=2, w=2)])
def test_frozen_norms_normalise_by_their_running_statistics(plan):
    program = program_of(NETWORK, plan, SHAPE, 6, trainable=["conv*", "dense*"])
    assert program.frozen == {"norm1"}
    data, indices = images(12, SHAPE), np.arange(6)
    state = state_of(NETWORK, SHAPE, SGD(0.1))
    state.statistics["norm1.variance"] += 3
    found, sums = gradients_of(shards_of(program, state), data, indices)
    whole = program_of(NETWORK, plans.data(1), SHAPE, 6, trainable=["conv*", "dense*"])
    part = block_partial(whole, state, data, indices, 0, 1)
    expected = whole.unflatten(part.gradient)
    np.testing.assert_allclose(sums, part.sums, rtol=1e-9)
    assert set(found) == set(expected) and not any("norm1" in name for name in found)
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-7, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("plan", [plans.model(2), plans.hybrid(4), plans.spatial(h=2)])
def test_networks_with_several_outputs_train_and_are_evaluated_without_the_auxiliary_ones(plan):
    head = [Node("aux", Dense(5), ("flat",)), Node("both", Outputs(1), ("dense2", "aux"))]
    network = Network((*NETWORK.nodes, *head))
    loss = WeightedLosses("softmax_cross_entropy", (1.0, 0.3))
    whole, program = (program_of(network, each, SHAPE, 6, loss=loss) for each in (plans.data(1), plan))
    data, indices, state = images(12, SHAPE), np.arange(6), state_of(network, SHAPE, SGD(0.1))
    if plan.layout.n == 1:  # statistics of all images
        part = block_partial(whole, state, data, indices, 0, 1)
        found, sums = gradients_of(shards_of(program, state), data, indices)
        np.testing.assert_allclose(sums, part.sums, rtol=1e-9)
        for name, gradient in whole.unflatten(part.gradient).items():
            np.testing.assert_allclose(found[name], gradient, rtol=1e-7, atol=1e-12, err_msg=name)
    expected = evaluate_block(whole, state, data, indices, 1)
    found = drive(shards_of(program, state).evaluate(data, indices))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_loss_that_is_not_finite_leaves_the_weights_as_they_were():
    program = program_of(NETWORK, plans.hybrid(4), SHAPE, 6)
    data = images(12, SHAPE)
    data.x[3, 0, 0, 0] = np.nan
    state = state_of(NETWORK, SHAPE, program.optimizer)
    shards = shards_of(program, state)
    with pytest.raises(WorkerError, match=r"not finite in step 1 .*the weights stay as they were"):
        drive(shards.step(data, np.arange(6), 0, 0.1))
    after = joined(state, [shards.pieces])
    assert all(np.array_equal(after.params[name], array) for name, array in state.params.items())
