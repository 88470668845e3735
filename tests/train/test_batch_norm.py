"""Batch norm in training: a shard's statistics, their mean in the model's state, the same bits everywhere."""

import numpy as np
import pytest

import daskconv
from daskconv import SGD, BatchNorm, Context, Conv2D, Dense, Flatten, Model, ReLU, Sequential, Trainer
from daskconv.kernels import normalize, plain
from daskconv.kernels.epilogue import Epilogue
from train.small import X, Y, bits, digests, fit, refuse, trainer

NET = Sequential(
    [Conv2D(6, 3, bias=False), BatchNorm(), ReLU(), Flatten(), Dense(10), BatchNorm(momentum=0.5)],
    name="normed",
)


def run(**options):
    return trainer(NET, optimizer=SGD(0.05, momentum=0.9), **options)


def test_running_statistics_follow_the_mean_over_shards():
    flat = Sequential([Flatten(), BatchNorm(momentum=0.25)])
    x = np.random.default_rng(0).normal(3, 2, (12, 1, 2, 3)).astype(np.float32)
    one = Trainer(
        flat, optimizer=SGD(0.0), transport="local", shards=3, loss="mean_squared_error", metrics=()
    )
    one.fit(x, np.zeros((12, 6)), batch_size=12, progress=False)
    order = one_epoch_order(12)
    shards = x.reshape(12, 6).astype(float)[order].reshape(3, 4, 6)
    mean, variance = shards.mean(1).mean(0), shards.var(1, ddof=1).mean(0)
    np.testing.assert_allclose(one.model.state["batchnorm1.mean"], 0.25 * mean, rtol=1e-5)
    np.testing.assert_allclose(one.model.state["batchnorm1.variance"], 0.75 + 0.25 * variance, rtol=1e-5)
    want = (x.reshape(12, 6) - one.model.state["batchnorm1.mean"]) / np.sqrt(
        one.model.state["batchnorm1.variance"] + 1e-5
    )
    np.testing.assert_allclose(one.model.predict(x), want, rtol=1e-5, atol=1e-5)


def one_epoch_order(images):
    from daskconv.train.data import shuffled

    return shuffled(images, seed=0, epoch=0)


def test_a_shard_is_taken_whole():
    program = run().program((8, 8, 1), batch_size=200)
    assert program.whole_shards and "blocks of 50 images" in str(program)
    assert all(len(block) <= 4 * program.block_images <= 1024 for block in program.evaluate_blocks(5000))
    assert len(program.blocks_of(np.arange(50))) == 1
    assert program.elements == sum(array.size for array in NET.init(0, (8, 8, 1)).values()) + 2 * (6 + 10)


def test_threads_change_no_bits_and_training_learns():
    one, three = fit(run(threads=1), epochs=3), fit(run(threads=3), epochs=3)
    assert bits(one) == bits(three) and digests(one.model.state) == digests(three.model.state)
    assert one.evaluate(X, Y)["accuracy"] > 0.8
    assert set(one.model.state) == {
        "batchnorm1.mean",
        "batchnorm1.variance",
        "batchnorm2.mean",
        "batchnorm2.variance",
    }


def test_statistics_are_saved_loaded_and_gone_on_from(tmp_path):
    whole, part = fit(run(), epochs=3), fit(run(), epochs=2)
    part.save(tmp_path / "f")
    loaded = daskconv.load(tmp_path / "f")
    assert digests(loaded.state) == digests(part.model.state)
    np.testing.assert_array_equal(loaded.predict(X[:9]), part.predict(X[:9]))
    again = fit(run().resume(tmp_path / "f"), epochs=3)
    assert bits(again) == bits(whole) and digests(again.model.state) == digests(whole.model.state)


def test_a_model_that_was_handed_out_stays_as_it_is():
    one = fit(run(), epochs=1)
    model, before = one.model, (bits(one), digests(one.model.state))
    tuned = fit(trainer(model), epochs=1)
    fit(one, epochs=2)
    assert (digests(model.params), digests(model.state)) == before
    assert bits(one) != before[0] and bits(tuned) != before[0]
    assert digests(one.model.state) != before[1]


def test_a_frozen_batch_norm_keeps_its_statistics_and_uses_them():
    """Training a head on a frozen trunk is training a Dense on what the trunk predicts, to rounding."""
    start = fit(run(), epochs=2).model
    trunk = Sequential([Conv2D(6, 3, bias=False), BatchNorm(), ReLU(), Flatten()])
    features = Model(trunk, *({n: a for n, a in d.items() if n.startswith(("conv1", "batchnorm1"))}
                              for d in (start.params, start.state)), start.preprocess).predict(X)  # fmt: skip
    head = Sequential([Dense(10), BatchNorm(momentum=0.5)])
    renamed = {"batchnorm1": "batchnorm2"}
    params, state = (
        {n: d[f"{renamed.get(n.split('.')[0], n.split('.')[0])}.{n.split('.')[1]}"] for n in names}
        for d, names in (
            (start.params, head.weight_shapes((216,))),
            (start.state, head.statistic_shapes((216,))),
        )
    )
    whole = fit(trainer(start, trainable=["dense*", "batchnorm2.scale"], optimizer=SGD(0.02)), epochs=2)
    flat = Sequential([Flatten(), *(node.layer for node in head.nodes)])
    alone = fit(trainer(Model(flat, params, state), preprocess=None, optimizer=SGD(0.02),
                        trainable=["dense*", "batchnorm1.scale"]), features[:, None, None], epochs=2)  # fmt: skip
    for name, array in alone.model.params.items():
        same = whole.model.params[name.replace("batchnorm1", "batchnorm2")]
        np.testing.assert_allclose(same, array, rtol=1e-3, atol=1e-4, err_msg=name)
    before, after = digests(start.state), digests(whole.model.state)
    kept = {name for name in before if before[name] == after[name]}
    assert kept == {"batchnorm1.mean", "batchnorm1.variance"}
    program = whole.program((8, 8, 1), 50)
    assert program.frozen == {"batchnorm1"}
    assert program.elements == 216 * 10 + 10 + 10 + 2 * 10


def test_gradients_through_a_frozen_batch_norm_are_those_of_a_constant_scaling():
    """A trained convolution before a frozen norm, against finite differences of the network outside of training."""
    net = Sequential([Conv2D(3, 3), BatchNorm(), ReLU(), Flatten(), Dense(2)])
    rng = np.random.default_rng(0)
    params = net.init(0, (5, 5, 2), np.float64)
    state = {"batchnorm1.mean": rng.normal(0, 0.1, 3), "batchnorm1.variance": rng.uniform(0.5, 2, 3)}
    x, dy, name = rng.standard_normal((4, 5, 5, 2)), rng.standard_normal((4, 2)), "conv1.weight"
    methods = net.choose_methods((5, 5, 2), "lowering")
    context = Context(True, statistics=state, frozen=frozenset({"batchnorm1"}))
    y, saved = net.forward(params, x, context, methods)
    assert not context.batch_statistics
    np.testing.assert_array_equal(y, net.forward(params, x, Context(statistics=state), methods)[0])
    gradient = net.backward(params, saved, dy, context, methods, [name])[name]
    step = rng.standard_normal(gradient.shape) * 1e-6
    above, below = (
        (
            net.forward(params | {name: params[name] + s * step}, x, Context(statistics=state), methods)[0]
            * dy
        ).sum()
        for s in (1, -1)
    )
    assert (above - below) / 2 == pytest.approx((gradient * step).sum(), rel=1e-5)


def test_frozen_norms_stay_so_where_training_goes_on(tmp_path):
    start = fit(run(), epochs=1).model
    frozen = {"trainable": ["dense*"], "optimizer": SGD(0.02)}
    whole, part = fit(trainer(start, **frozen), epochs=2), fit(trainer(start, **frozen), epochs=1)
    part.save(tmp_path / "f")
    again = fit(trainer(start, **frozen).resume(tmp_path / "f"), epochs=2)
    assert bits(again) == bits(whole)
    assert digests(start.state) == digests(whole.model.state) == digests(again.model.state)
    assert fit(run(trainable=["*.scale"])).program((8, 8, 1), 50).frozen == set()
    bare = Sequential([Flatten(), BatchNorm(scale=False, offset=False), Dense(10)])
    assert trainer(bare, trainable=["dense*"]).program((8, 8, 1), 50).frozen == set()


def test_missing_statistics_are_refused(tmp_path):
    model = fit(run(), epochs=1).model
    model.state.pop("batchnorm1.mean")
    refuse("no batchnorm1.mean", model.predict, X[:2])
    model.save(tmp_path / "f")
    refuse("batchnorm1.mean should have", daskconv.load, tmp_path / "f", error=daskconv.errors.DataError)


@pytest.mark.parametrize("options", [{"momentum": 2.0}, {"epsilon": -1.0}], ids=str)
def test_wrong_options_are_refused(options):
    refuse("give a momentum from 0 to 1", BatchNorm(**options).output_shape, (3, 3, 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (63, 3), (64, 1), (200, 17)])
def test_moments_are_those_of_float64(shape, dtype):
    rows = np.random.default_rng(1).normal(1000, 0.5, shape).astype(dtype)
    mean, variance = normalize.moments(rows)
    np.testing.assert_allclose(mean, rows.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(variance, rows.astype(np.float64).var(0), rtol=2e-3, atol=1e-9)


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_compiled_kernels_and_their_twins_agree(add, relu):
    rng = np.random.default_rng(2)
    rows, dy, other = rng.standard_normal((3, 130, 5)).astype(np.float32)
    mean, factor, offset = rng.standard_normal((3, 5)).astype(np.float32)
    rows[3, 2] = np.nan
    got = normalize.normalize(rows, mean, factor, offset, Epilogue(other if add else None, relu))
    want = np.full_like(rows, np.inf)
    plain.normalize(rows, mean, factor, offset, other, (add, relu), want)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert np.isnan(got[3, 2]) and (not relu or np.nanmin(got) == 0)
    rows[3, 2] = 0
    sums, products = normalize.normalize_grad_sums(dy, rows, mean, factor)
    twins = np.empty((2, 5))
    plain.normalize_grad_sums(dy, rows, mean, *twins)
    np.testing.assert_allclose(sums, twins[0], rtol=1e-5)
    np.testing.assert_allclose(products, twins[1] * factor, rtol=1e-5, atol=1e-5)
    want = np.full_like(rows, np.nan)
    plain.normalize_grad(dy, rows, mean, mean, factor, offset, want)
    got = normalize.normalize_grad(dy, rows, mean, (mean, factor, offset))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
