"""Programs: what they print, how they cut a batch, and the bits of their graphs."""

import pickle
from dataclasses import dataclass, field, replace

import dask
import numpy as np
import pytest
from dask._task_spec import DataNode
from hypothesis import given, settings
from hypothesis import strategies as st

from daskconv import (
    SGD,
    Accuracy,
    Add,
    AvgPool2D,
    ConfusionMatrix,
    Context,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layout,
    Network,
    Node,
    Program,
    ReLU,
)
from daskconv.errors import WorkerError
from daskconv.graph.threads import execute
from daskconv.kernels import jit
from daskconv.nn.losses import softmax_cross_entropy
from daskconv.plan import tree
from daskconv.plan.input import InputCount
from daskconv.plan.outline import outline
from daskconv.plan.partition import partition
from daskconv.plan.plans import Plan
from daskconv.plan.tasks import Places, TrainState, add, add_into, block_partial, evaluate_block, update
from daskconv.run.loop import evaluate_blocks
from reference import METHODS

SHAPE = (6, 5, 2)
NETWORK = Network(
    (
        Node("conv", Conv2D(4, 3, padding=1)),
        Node("relu", ReLU(), ("conv",)),
        Node("side", Conv2D(4, 1), ("relu",)),
        Node("sum", Add(), ("side", "relu")),
        Node("pool", AvgPool2D(2, ceil_mode=True), ("sum",)),
        Node("drop", Dropout(0.25), ("pool",)),
        Node("flat", Flatten(), ("drop",)),
        Node("scores", Dense(3), ("flat",)),
    ),
    "small",
)


@dataclass
class Images:
    """Data in memory."""

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    ahead: int = 0
    count: InputCount = field(default_factory=InputCount)

    def take(self, indices, epoch=None):
        return self.x[indices], self.y[indices], self.weight[indices]

    def __len__(self):
        return len(self.y)


def images(count=40, dtype="float32"):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((count, *SHAPE)).astype(dtype)
    return Images(x, rng.integers(0, 3, count), rng.uniform(0.5, 2, count))


def program_of(shards=3, batch_size=12, method="auto", block=None, **options) -> Program:
    options = {
        "metrics": (Accuracy(), ConfusionMatrix()),
        "optimizer": SGD(0.1, momentum=0.9),
        "trainable": None,
        "seed": 5,
        "loss": softmax_cross_entropy,
    } | options
    plan = Plan("data", Layout(n=shards))
    program = partition(NETWORK, plan, input_shape=SHAPE, batch_size=batch_size, method=method, **options)
    return program if block is None else replace(program, block_images=block)


def state_of(program):
    params = NETWORK.init(3, SHAPE, program.dtype)
    return TrainState(params, program.optimizer.init(params))


def total_of(program, state, data, indices, threads=1):
    """The sums over a batch, from the Program's graph."""
    graph = program.subtree_graph((0, program.shards), indices, 2, threads)
    graph |= {"state": DataNode("state", state), "data": DataNode("data", data)}
    (total,) = execute(graph, [("sum", 0, program.shards)], threads)
    return total


def by_hand(program, state, data, indices, epoch=2):
    """The same sums without a graph: blocks added in order, shards in the tree."""

    def shard_sum(images):
        blocks = [block_partial(program, state, data, block, epoch, 1) for block in program.blocks_of(images)]
        total = blocks[0]
        for block in blocks[1:]:
            total = add_into(total, block)
        return total

    def span_sum(span):
        if tree.is_leaf(span):
            return shard_sum(program.shard_indices(indices)[span[0]])
        left, right = tree.halves(span)
        return add(span_sum(left), span_sum(right))

    return span_sum((0, program.shards))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("shards", "block", "count"), [(1, 50, 12), (3, 2, 12), (4, 3, 11), (5, 1, 3), (2, 1, 7)]
)
def test_the_graph_gives_the_bits_of_the_same_sums_by_hand(method, threads, shards, block, count):
    program = program_of(shards, method=method, block=block)
    state, data = state_of(program), images()
    indices = np.random.default_rng(1).permutation(40)[:count]
    want = by_hand(program, state, data, indices)
    got = total_of(program, state, data, indices, threads)
    assert got.gradient.tobytes() == want.gradient.tobytes()
    assert got.sums.tobytes() == want.sums.tobytes()
    assert got.sums[2] == count and np.isclose(got.sums[1], data.weight[indices].sum())


@pytest.mark.parametrize("count", [12, 7, 2, 1])
@pytest.mark.parametrize(("shards", "block"), [(1, 3), (4, 2), (5, 1)])
def test_the_weighted_mean_gradient_is_that_of_the_whole_batch(shards, block, count):
    program = program_of(shards, block=block)
    data, indices = images(), np.arange(30, 30 - count, -1)
    total = total_of(program, state_of(program), data, indices)
    exact = replace(program, dtype="float64")
    params = state_of(exact).params
    x, y, weight = images(dtype="float64").take(indices)
    context = Context(True, images=indices, seed=5, epoch=2)
    scores, saved = NETWORK.forward(params, x, context, program.methods)
    loss, dscores = softmax_cross_entropy(scores, y, weight / weight.sum())
    grads = NETWORK.backward(params, saved, dscores, context, program.methods, program.trainable)
    assert total.sums[1] == pytest.approx(weight.sum())
    assert total.sums[0] / total.sums[1] == pytest.approx(loss, rel=1e-6)
    mean = program.unflatten(total.gradient / total.sums[1])
    assert mean.keys() == grads.keys()
    for name, gradient in grads.items():
        np.testing.assert_allclose(mean[name], gradient, rtol=1e-5, atol=2e-6 * abs(gradient).max())


def test_short_batches_leave_shards_empty():
    program = program_of(shards=5)
    cut = program.shard_indices(np.array([8, 3]))
    assert [list(part) for part in cut] == [[8], [3], [], [], []]
    empty = block_partial(program, state_of(program), images(), cut[2], 0, 1)
    assert empty.gradient.shape == (program.elements,) and empty.gradient.dtype == np.float32
    assert not empty.gradient.any() and empty.sums.tolist() == [0] * program.sums_size


drawn = settings(deadline=None, derandomize=True, max_examples=60)


@drawn
@given(count=st.integers(0, 60), shards=st.integers(1, 9), block=st.integers(1, 20), seed=st.integers(0, 9))
def test_shards_and_blocks_partition_a_batch_in_its_order(count, shards, block, seed):
    program = PROGRAMS.setdefault((shards, block), program_of(shards, block=block))
    indices = np.random.default_rng(seed).permutation(100)[:count]
    parts = program.shard_indices(indices)
    assert len(parts) == shards
    np.testing.assert_array_equal(np.concatenate(parts), indices)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for part in parts:
        blocks = program.blocks_of(part)
        np.testing.assert_array_equal(np.concatenate(blocks), part)
        lengths = [len(one) for one in blocks]
        assert max(lengths) <= block and max(lengths) - min(lengths) <= 1
        assert len(blocks) == max(1, -(-len(part) // block))
    evaluated = program.evaluate_blocks(count)
    assert [image for one in evaluated for image in one] == list(range(count))
    assert all(0 < len(one) <= 4 * block for one in evaluated)


PROGRAMS: dict = {}


class Noting(Images):
    """Images that note which of them were read together."""

    def take(self, indices, epoch=None):
        self.taken = [*getattr(self, "taken", []), tuple(indices)]
        return super().take(indices, epoch)


@pytest.mark.parametrize("shards", [1, 2, 3, 6])
def test_the_blocks_of_a_shard_do_not_depend_on_the_threads(shards):
    program = program_of(shards, block=2)
    indices = np.arange(11)
    blocks = [tuple(one) for part in program.shard_indices(indices) for one in program.blocks_of(part)]
    for threads in (1, 2, 3):
        data = Noting(**vars(images()))
        total_of(program, state_of(program), data, indices, threads)
        assert sorted(data.taken) == sorted(blocks)


def test_the_subtrees_of_a_batch_are_tasks_of_their_own():
    program = program_of(3)
    for threads in (1, 2, 3):
        graph = program.subtree_graph((0, 3), np.arange(11), 0, threads)
        sums = sorted(key for key in graph if key[0] == "sum")
        assert sums == [("sum", 0, 1), ("sum", 0, 2), ("sum", 0, 3), ("sum", 1, 2), ("sum", 2, 3)]
        assert {("sum", 0, 1), ("sum", 1, 2)} <= set(graph["sum", 0, 2].dependencies)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_of_the_whole_graph_is_the_update_by_hand(threads):
    program = program_of(shards=3, block=2)
    data, indices = images(), np.arange(12)
    graph = program.to_graph(indices, epoch=2, rate=0.05, threads=threads)
    graph |= {"state": DataNode("state", state_of(program)), "data": DataNode("data", data)}
    after = dask.get(graph, "update")
    state = state_of(program)
    total = by_hand(program, state, data, indices)
    want = update(program, state, total, 0.05, in_place=False)
    assert after.steps == want.steps == 1
    for name, array in want.params.items():
        assert after.params[name].tobytes() == array.tobytes()
        assert (array != state.params[name]).any(), "the step changed the parameter"
    for name, array in want.slots.items():
        assert after.slots[name].tobytes() == array.tobytes()


def test_one_step_is_momentum_sgd_on_the_mean_gradient():
    program = program_of()
    state, data = state_of(program), images()
    total = total_of(program, state, data, np.arange(12))
    after = update(program, state, total, 0.1, in_place=False)
    for name, gradient in program.unflatten(total.gradient).items():
        want = state.params[name].astype(float) - 0.1 * gradient / total.sums[1]
        np.testing.assert_allclose(after.params[name], want, rtol=1e-5, atol=1e-7)
    again = update(program, state, total, 0.1, in_place=True)
    assert again.params["conv.weight"] is state.params["conv.weight"]
    assert (again.position.step, again.steps) == (1, 1)
    twice = update(program, again, total, 0.1, in_place=True)
    assert (twice.position.step, twice.steps) == (2, 2)
    np.testing.assert_array_equal(twice.position.sums, 2 * total.sums)


def test_the_first_batch_and_the_schedules_rate_are_the_defaults():
    program = program_of(shards=2, batch_size=8)
    data, graphs = images(), [program.to_graph(), program.to_graph(np.arange(8), 0, 0.1)]
    results = []
    for graph in graphs:
        graph |= {"state": DataNode("state", state_of(program)), "data": DataNode("data", data)}
        results.append(dask.get(graph, "update").params["conv.weight"].tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("part", ["gradient", "loss", "rate"])
def test_a_step_that_is_not_finite_changes_nothing(part):
    program = program_of()
    state = state_of(program)
    before = {name: array.copy() for name, array in state.params.items()}
    total = total_of(program, state, images(), np.arange(12))
    if part == "loss":
        total.sums[0] = np.inf
    elif part == "gradient":
        total.gradient[7] = np.nan
    with pytest.raises(WorkerError, match=r"not finite in step 1 .*: the weights stay as they were"):
        update(program, state, total, 1e300 if part == "rate" else 0.1, in_place=True)
    for name, array in before.items():
        np.testing.assert_array_equal(state.params[name], array)


def test_a_batch_without_weight_changes_nothing_by_itself():
    program = program_of(optimizer=SGD(0.1))
    state, data = state_of(program), images()
    data.weight[:] = 0
    after = update(program, state, total_of(program, state, data, np.arange(12)), 0.1, in_place=False)
    for name, array in state.params.items():
        np.testing.assert_array_equal(after.params[name], array)


def test_evaluation_sums_all_images_without_dropout():
    program = program_of(block=2)
    state, data = state_of(program), images(21)
    rows = evaluate_blocks(program, state, data, program.evaluate_blocks(len(data)), 2)
    scores, _ = NETWORK.forward(state.params, data.x, Context(), program.methods)
    loss, _ = softmax_cross_entropy(scores, data.y, data.weight)
    results = program.results(rows.sum(0))
    assert len(rows) == 3 and rows[:, 2].tolist() == [8, 8, 5]
    assert results["loss"] == pytest.approx(loss / data.weight.sum(), rel=1e-6)
    right = scores.argmax(1) == data.y
    assert results["accuracy"] == pytest.approx((data.weight * right).sum() / data.weight.sum())
    assert results["confusion_matrix"].shape == (3, 3)
    assert np.trace(results["confusion_matrix"]) == pytest.approx((data.weight * right).sum())
    again = evaluate_block(program, state, data, np.arange(8), 1)
    assert again.tobytes() == rows[0].tobytes()


def test_only_trainable_parameters_are_in_the_gradient():
    program = program_of(trainable=["scores.*", "conv.bias"])
    assert program.trainable == ("conv.bias", "scores.weight", "scores.bias")
    assert program.elements == 4 + 36 * 3 + 3
    vector = np.arange(program.elements, dtype=np.float32)
    views = program.unflatten(vector)
    assert {name: array.shape for name, array in views.items()} == {
        "conv.bias": (4,),
        "scores.weight": (36, 3),
        "scores.bias": (3,),
    }
    assert all(np.shares_memory(view, vector) for view in views.values())
    copy = np.zeros_like(vector)
    gradients = Places(program.unflatten(copy))
    for name, view in views.items():
        gradients[name] = view
    np.testing.assert_array_equal(copy, vector)
    total = total_of(program, state_of(program), images(), np.arange(12))
    everything = total_of(program_of(), state_of(program), images(), np.arange(12))
    for name, gradient in program.unflatten(total.gradient).items():
        np.testing.assert_array_equal(gradient, program_of().unflatten(everything.gradient)[name])


def test_a_program_prints_what_it_does():
    text = str(program_of(shards=4, method={"side": "fft"}, block=3))
    lines = text.splitlines()
    elements = sum(array.size for array in NETWORK.init(0, SHAPE).values())
    assert lines[0] == "Program of small: batch 12 in 4 shards, blocks of 3 images"
    assert lines[1].split() == ["segment", "gradients", "each", "shard", "conv", "..", "scores"]
    assert lines[2].endswith(
        f"gradients and sums, summed as ((0 + 1) + (2 + 3)), {4 * (elements * 4 + (4 + 1 + 9) * 8):,} bytes"
    )
    assert lines[3].split() == ["segment", "update", "each", "step", "conv", "..", "scores"]
    rule = "implicit" if jit.enabled() else "lowering"
    assert " ".join(lines[4].split()) == (
        f"method conv forward {rule}, input_grad {rule}, weight_grad {rule}"
    )
    assert lines[5].split()[:4] == ["method", "side", "forward", "fft,"]
    assert len(lines) == 6
    one = outline(program_of(trainable=["side.*"]))[-1]
    assert one.layers == ("side",) and str(one).endswith("step   side")


def test_a_program_pickles_and_compares():
    program = program_of(method="pipelined")
    again = pickle.loads(pickle.dumps(program))
    assert again == program == program_of(method="pipelined") and hash(again) == hash(program)
    assert again.methods == program.methods and str(again) == str(program)
    for other in (
        program_of(),
        replace(program, seed=6),
        replace(program, shards=2),
        replace(program, optimizer=SGD(0.2)),
    ):
        assert other != program
    data, indices = images(), np.arange(5)
    parts = [block_partial(p, state_of(p), data, indices, 1, 1).gradient.tobytes() for p in (program, again)]
    assert parts[0] == parts[1]
    assert pickle.loads(pickle.dumps(again)) == program, "also after it was used"
