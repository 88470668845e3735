"""Images in memory and in Dask chunks: the same pixels, shuffled by seed and epoch, each chunk read once."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import dask
import dask.array as da
import numpy as np
import pytest

from daskconv import SGD, Normalize, events
from daskconv.errors import DataError
from daskconv.layout import even_parts
from daskconv.train.data import ArrayData, shuffled
from daskconv.train.images import Cache, InMemory
from train.small import DIGITS, LOADED, TINY, X, Y, bits, counted, figures, fit, refuse, trainer

FLOATS = (X / 16).astype(np.float32)
RAGGED = (1, 50, 29, 100, 50)
EDGES = [0, 1, 51, 80, 180, 230]
WINDOW = 8  # chunks that are shuffled together


# ------------------------------------------------------------------------------------ shuffling


@pytest.mark.parametrize("edges", [None, EDGES, list(range(0, 231, 10))], ids=str)
def test_shuffling_permutes_by_seed_and_epoch_alone(edges):
    order = shuffled(230, 5, 2, edges)
    assert sorted(order.tolist()) == list(range(230)) != order.tolist()
    assert (shuffled(230, 5, 2, edges) == order).all()
    for other in (shuffled(230, 6, 2, edges), shuffled(230, 5, 3, edges), shuffled(230, 2, 5, edges)):
        assert (other != order).mean() > 0.8


def test_chunks_are_permuted_and_their_images_stay_in_windows():
    edges = list(range(0, 20 * 12 + 1, 12))
    order = shuffled(240, 0, 0, edges) // 12
    windows = [order[start : start + 12 * WINDOW] for start in range(0, 240, 12 * WINDOW)]
    chunks = [set(window.tolist()) for window in windows]
    assert [len(part) for part in chunks] == [8, 8, 4]
    assert set().union(*chunks) == set(range(20)) and chunks[0] != set(range(8))
    assert len(set(windows[0][:12].tolist())) > 3  # images of several chunks meet in a batch
    assert set((shuffled(240, 0, 1, edges) // 12)[: 12 * WINDOW].tolist()) != chunks[0]


def test_batches_cut_the_order_and_the_last_may_be_short():
    data = ArrayData(X, Y, batch_size=100, seed=4)
    batches = data.batches(epoch=7)
    assert [len(batch) for batch in batches] == [100, 100, 30]
    assert (np.concatenate(batches) == shuffled(230, 4, 7)).all()
    lazy = ArrayData(da.from_array(X, (RAGGED, 8, 8, 1)), Y, batch_size=100, seed=4)
    assert (np.concatenate(lazy.batches(7)) == shuffled(230, 4, 7, EDGES)).all()


SHARED = [
    (23 * [10], 4, 50),
    ([1, 50, 29, 100, 50], 3, 100),
    (12 * [20], 5, 7),
    ([230], 4, 40),
    ([5] * 3, 4, 3),
]


@pytest.mark.parametrize(("chunks", "shards", "batch_size"), SHARED, ids=str)
def test_each_shard_reads_its_own_run_of_chunks(chunks, shards, batch_size):
    images, edges = sum(chunks), np.cumsum([0, *chunks])
    x = da.zeros((images, 8, 8, 1), dtype=np.uint8, chunks=(tuple(chunks), 8, 8, 1))
    data = ArrayData(x, np.zeros(images, int), batch_size=batch_size, shards=shards, seed=2)
    batches = data.batches(epoch=1)
    assert [len(batch) for batch in batches] == [
        min(batch_size, images - start) for start in range(0, images, batch_size)
    ]
    assert sorted(np.concatenate(batches).tolist()) == list(range(images))
    of_shard = [set() for _ in range(shards)]
    for batch in batches:
        for mine, (start, stop) in zip(of_shard, even_parts(len(batch), shards), strict=True):
            mine |= set((np.searchsorted(edges, batch[start:stop], side="right") - 1).tolist())
    # Each chunk is one shard's, but for those in which one run ends and the next begins.
    assert len(chunks) <= sum(map(len, of_shard)) <= len(chunks) + shards - 1
    assert (np.concatenate(data.batches(1)) == np.concatenate(batches)).all()


@pytest.mark.parametrize(("side", "mixed"), [(4, 8), (2048, 2), (1024, 4)])
def test_a_shard_mixes_images_of_a_few_chunks_and_fewer_large_ones(side, mixed):
    x = da.zeros((960, side, side, 3), dtype=np.uint8, chunks=(10, side, side, 3))
    batches = ArrayData(x, np.zeros(960, int), batch_size=160, shards=4).batches(0)
    windows = [set() for _ in range(4)]
    for batch in batches[: mixed // 4 or 1]:
        for window, (start, stop) in zip(windows, even_parts(160, 4), strict=True):
            window |= set((batch[start:stop] // 10).tolist())
    assert all(mixed - 1 <= len(window) <= mixed + 2 for window in windows)


# ------------------------------------------------------------------------------------ reading


def test_the_cache_is_bounded_by_bytes_and_the_order_of_use():
    images = counted(X, (50, 8, 8, 1))
    with dask.config.set({"daskconv.input.cache": "8 kiB"}):  # two chunks of 3200 bytes
        data = pickle.loads(pickle.dumps(ArrayData(images, Y)))
    for image, read in [(0, [0]), (50, [50]), (0, []), (100, [100]), (0, []), (50, [50]), (229, [200])]:
        before = len(LOADED)
        data.take(np.array([image]))
        assert LOADED[before:] == read
    assert sum(chunk.result().nbytes for chunk in data.images.cache.held.values()) <= 8192
    assert (data.count.read.images, data.count.read.nbytes) == (230, 230 * 64)


def test_a_chunk_larger_than_the_cache_is_kept_while_it_is_the_newest():
    with dask.config.set({"daskconv.input.cache": 0}):
        data = ArrayData(counted(X, (50, 8, 8, 1)), Y)
    for image in (0, 1, 60, 2):
        data.take(np.array([image]))
    assert LOADED == [0, 50, 0]


@pytest.mark.parametrize("given", ["plenty", -1, None, [1]], ids=str)
def test_a_cache_of_no_size_is_refused(given):
    with dask.config.set({"daskconv.input.cache": given}):
        refuse(r"daskconv.input.cache is .*: give a size such as '1 GiB'", ArrayData, da.from_array(X), Y)


def test_threads_that_want_one_chunk_read_it_once_and_others_go_on():
    cache, begun, go, reads = Cache(1000), threading.Event(), threading.Event(), []

    def slow(number):
        reads.append(number)
        begun.set()
        assert go.wait(10)
        return np.full(3, number)

    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(cache.get, 1, slow) for _ in range(3)]
        assert begun.wait(10)
        assert cache.get(2, lambda number: np.full(3, number)).tolist() == [2, 2, 2]
        go.set()
        assert [future.result(10).tolist() for future in waiting] == [[1, 1, 1]] * 3
    assert reads == [1]


def test_a_chunk_that_could_not_be_read_is_tried_again():
    cache = Cache(1000)
    with pytest.raises(ZeroDivisionError):
        cache.get(0, lambda number: np.ones(1 // number))
    assert cache.get(0, lambda _: np.ones(1)).tolist() == [1]


@pytest.mark.parametrize("x", [X, FLOATS], ids=["uint8", "float32"])
@pytest.mark.parametrize("chunks", [(RAGGED, 8, 8, 1), (64, 3, 5, 1), (230, 8, 8, 1)], ids=str)
@pytest.mark.parametrize("normalize", [None, Normalize.unit()], ids=["raw", "unit"])
def test_dask_chunks_hold_the_images_of_numpy(x, chunks, normalize):
    weight = np.arange(230) + 1.0
    memory = ArrayData(x, Y, weight, normalize=normalize)
    lazy = ArrayData(
        da.from_array(x, chunks), da.from_array(Y, 50), da.from_array(weight, 9), normalize=normalize
    )
    assert len(lazy) == len(memory) == 230
    for indices in (np.arange(230), np.array([229, 0, 51, 50, 0]), np.array([7])):
        expected = (normalize(x) if normalize else x.astype(np.float32))[indices]
        for data in (memory, lazy):
            images, targets, weights = data.take(indices)
            assert images.dtype == np.float32 and weights.dtype == np.float32
            assert (images == expected).all() and (targets == Y[indices]).all()
            assert (weights == indices + 1).all()


def test_a_chunk_is_computed_once_an_epoch_when_it_is_needed():
    chunks = (3, *[12] * 18, 11)
    edges = np.cumsum([0, *chunks])
    data = ArrayData(counted(X, (chunks, 8, 8, 1)), Y, batch_size=20)
    assert LOADED == []
    for epoch in range(2):
        LOADED.clear()
        needed = []
        for batch in data.batches(epoch):
            data.take(batch)
            owners = np.searchsorted(edges, batch, side="right") - 1
            needed += [start for start in edges[np.unique(owners)].tolist() if start not in needed]
            assert set(LOADED) <= set(needed)
        assert len(set(needed)) == 20
        if epoch == 0:
            assert needed == LOADED
        assert len(LOADED) == len(set(LOADED)) <= 20


@pytest.mark.parametrize("threads", [1, 2])
def test_training_reads_each_chunk_once_an_epoch(threads):
    x = counted(X, (10, 8, 8, 1))
    fit(trainer(preprocess="unit", threads=threads), x)
    assert sorted(LOADED) == list(range(0, 230, 10))


def test_data_pickles_before_and_after_reading():
    for x in (X, FLOATS, da.from_array(X, (RAGGED, 8, 8, 1))):
        data = ArrayData(x, Y, normalize=Normalize.unit(), batch_size=50, seed=3)
        before = pickle.loads(pickle.dumps(data))
        data.take(np.arange(100))
        after = pickle.loads(pickle.dumps(data))
        for other in (before, after):
            assert (np.concatenate(other.batches(1)) == np.concatenate(data.batches(1))).all()
            for mine, theirs in zip(data.take(np.arange(90, 130)), other.take(np.arange(90, 130))):
                assert (mine == theirs).all()


@pytest.mark.parametrize("images", [X, FLOATS], ids=["uint8", "float32"])
def test_of_mapped_files_the_place_travels(tmp_path, images):
    whole = np.memmap(tmp_path / "x", images.dtype, "w+", offset=40, shape=images.shape)
    whole[:] = images
    for x, start in ((whole, 0), (whole[7:], 7), (np.asarray(whole)[7:], 7)):
        data = ArrayData(x, Y[start:])
        travels = pickle.dumps(data.images)
        assert len(travels) < 1000
        other = pickle.loads(travels)
        assert (other.take(np.array([3, 0])) == images[[start + 3, start]]).all()
        assert (other.count.read.images, other.count.read.nbytes) == (2, 2 * 64 * images.itemsize)
    (tmp_path / "x").unlink()
    lost = pickle.loads(travels)
    refuse(r"x lies in /.*/x, which cannot be mapped here", lost.take, np.array([0]), error=DataError)


def test_what_does_not_lie_in_a_file_row_after_row_travels_itself(tmp_path):
    whole = np.memmap(tmp_path / "x", np.uint8, "w+", shape=(4, 6, 6, 1))
    changed = np.memmap(tmp_path / "x", np.uint8, "c", shape=(4, 6, 6, 1))
    changed[:] = 3
    for x in (whole[:, ::2], whole[::2], whole.transpose(0, 2, 1, 3), whole + 1, whole[[2, 1]], changed):
        data = ArrayData(x, np.zeros(len(x), int))
        other = pickle.loads(pickle.dumps(data.images))
        assert type(other) is InMemory and (other.take(np.array([1])) == x[1]).all()


def test_read_chunks_are_not_pickled():
    data = ArrayData(counted(X, (50, 8, 8, 1)), Y)
    small = len(pickle.dumps(data.images))
    data.take(np.arange(230))
    assert data.images.cache.held and small == len(pickle.dumps(data.images))


# ----------------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    "x", [DIGITS.x_train, (DIGITS.x_train / 16).astype(np.float32)], ids=["uint8", "float"]
)
def test_training_on_dask_arrays_learns(x):
    lazy = da.from_array(x, ((100, 400, 38, 900), 8, 4, 1))
    run = fit(trainer("lenet", optimizer=SGD(0.02, momentum=0.9)), lazy, DIGITS.y_train, epochs=2)
    assert run.history["accuracy"][0] < 0.8 < 0.9 < run.history["accuracy"][-1]
    held_out = da.from_array(DIGITS.x_test if x.dtype == np.uint8 else DIGITS.x_test / 16, 100)
    assert run.evaluate(held_out, DIGITS.y_test)["accuracy"] > 0.9


def test_dask_training_depends_on_chunk_edges_alone():
    whole = [fit(trainer(threads=threads), da.from_array(X, (RAGGED, 8, 8, 1))) for threads in (1, 2)]
    doubled = da.from_array(X * 2, (RAGGED, 3, 8, 1)) // 2
    whole.append(fit(trainer(), doubled.astype(np.uint8)))
    assert all(bits(run) == bits(whole[0]) for run in whole)
    assert all(figures(run.history) == figures(whole[0].history) for run in whole)
    assert bits(fit(trainer(), da.from_array(X, (50, 8, 8, 1)))) != bits(whole[0])


def test_float64_and_float16_images_train():
    one = fit(trainer(preprocess=None), FLOATS.astype(np.float64))
    half = fit(trainer(preprocess=None), FLOATS.astype(np.float16))
    single = fit(trainer(preprocess=None), FLOATS)
    assert bits(half) == bits(single)  # sixteenths are exact in float16
    for name, array in single.model.params.items():
        assert one.model.params[name].dtype == np.float32
        np.testing.assert_allclose(one.model.params[name], array, atol=1e-5)


# ----------------------------------------------------------------------------------- refusing


def with_nan(image, value=np.nan):
    x = FLOATS.copy()
    x[image, 3, 4, 0] = value
    return x


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_not_finite_is_named_in_numpy(value):
    refuse(r"^x\[57\] has pixels that are not finite", fit, trainer(), with_nan(57, value), error=DataError)
    late = np.concatenate([DIGITS.x_train[:1100] / 16, with_nan(7, value)])
    refuse(r"^x\[1107\] has pixels", ArrayData, late, np.zeros(len(late), int), error=DataError)
    validation = {"validation_data": (with_nan(229, value), Y)}
    refuse(r"^validation x\[229\] has pixels", fit, trainer(), error=DataError, **validation)


@pytest.mark.parametrize("image", [0, 57, 229])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_pixel_that_is_not_finite_is_named_in_a_dask_chunk(image, threads):
    lazy = da.from_array(with_nan(image), (RAGGED, 8, 8, 1))
    run = trainer(threads=threads, preprocess="unit")
    refuse(rf"^x\[{image}\] has pixels", fit, run, lazy, error=DataError)


UNKNOWN = da.from_array(X, (50, 8, 8, 1))[da.from_array(Y >= 0, 50)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"x": X[..., 0]}, r"x has shape \(230, 8, 8\): give images \(n, h, w, c\); a grey image has c = 1"),
        ({"x": X[:0], "y": Y[:0]}, "x holds no images"),
        ({"x": X.astype(np.int64)}, "x is int64: convert images to uint8 or float32"),
        ({"x": X.astype(bool)}, "x is bool: convert"),
        ({"x": X.astype(complex)}, "x is complex128: convert"),
        ({"x": da.from_array(X.astype(np.int32))}, "x is int32: convert"),
        ({"x": da.from_array(X[..., 0])}, r"x has shape \(230, 8, 8\)"),
        ({"x": UNKNOWN}, "x has chunks of unknown size: call compute_chunk_sizes"),
        ({"x": "digits"}, r"x has shape \(\)"),
        ({"y": Y[:-1]}, "x has 230 images but there are 229 targets: give one for each"),
        (
            {"y": np.append(Y[:-1], 10)},
            r"y\[229\] is 10: the network has 10 outputs, so classes go from 0 to 9",
        ),
        ({"y": np.append(-1, Y[1:])}, r"y\[0\] is -1"),
        ({"y": Y.astype(float)}, r"y is float64 of shape \(230,\): give class numbers \(n,\) as integers"),
        ({"y": np.eye(10, dtype=int)[Y]}, r"y is int64 of shape \(230, 10\)"),
        ({"y": None}, "y is object"),
        ({"batch_size": 231}, "batch_size is 231 but there are 230 images: use at most that"),
        ({"batch_size": 0}, "batch_size is 0: give an int of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"epochs": 0}, "epochs is 0: give an int of at least 1"),
        ({"epochs": "ten"}, "epochs is 'ten'"),
        ({"sample_weight": np.ones(229)}, r"sample_weight has shape \(229,\): give one finite weight"),
        ({"sample_weight": np.full(230, -1.0)}, "sample_weight .* at least 0"),
        ({"sample_weight": np.full(230, np.nan)}, "sample_weight .* finite"),
        ({"sample_weight": np.zeros(230)}, "sample_weight .* not all 0"),
        (
            {"validation_data": (X[:, :6], Y)},
            r"validation x has images \(6, 8, 1\) but the network is for \(8, 8",
        ),
        ({"validation_data": (X, Y + 1)}, r"validation y\[.*\] is 10"),
        ({"validation_data": (X[:5], Y[:4])}, "validation x has 5 images but there are 4 targets"),
        ({"x": X[:, :1, :1]}, "Layer 'maxpool1': "),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_bad_data_is_one_sentence_before_anything_is_trained(options, sentence):
    seen = []
    with events.listening(seen.append):
        refuse(sentence, fit, trainer(TINY), **options)
    assert not seen


def test_more_shards_than_images_are_refused():
    few = trainer(TINY, shards=9)
    refuse(
        "The plan splits n into 9 parts but there are 8 images: use at most that many",
        fit,
        few,
        x=X[:8],
        y=Y[:8],
        batch_size=8,
    )


def test_evaluating_checks_its_data_too():
    run = fit(trainer())
    refuse(
        r"Images of \(8, 6, 1\) need dense1.weight .* trained on \(8, 8, 1\)", run.evaluate, X[:, :, :6], Y
    )
    refuse(r"y\[0\] is 7000", run.evaluate, X, Y + 7000 - Y[0])
    refuse("holds no images", run.evaluate, X[:0], Y[:0])
    refuse(r"x\[3\] has pixels", run.evaluate, with_nan(3), Y, error=DataError)
