"""What a step does besides the optimiser's: clipped gradients, several batches, running means of the parameters."""

import tracemalloc

import numpy as np
import pytest

from daskconv import SGD, BatchNorm, Conv2D, Dense, Flatten, Sequential, events
from daskconv.train.files import load_checkpoint
from train.small import X, Y, bits, digests, fit, refuse, trainer

NET = Sequential([Conv2D(3, 3), BatchNorm(), Flatten(), Dense(10)])


def test_a_clipped_gradient_has_the_norm_that_was_asked_for():
    one = trainer(NET, optimizer=SGD(1.0), clip_norm=0.25)
    fit(one, X[:50], Y[:50], epochs=1)
    start = NET.init(0, (8, 8, 1))
    moved = [one.model.params[name] - array for name, array in start.items()]
    assert np.sqrt(sum(float((part**2).sum()) for part in moved)) == pytest.approx(0.25, rel=1e-5)
    free = fit(trainer(NET, optimizer=SGD(1.0)), X[:50], Y[:50], epochs=1)
    lax = fit(trainer(NET, optimizer=SGD(1.0), clip_norm=1e6), X[:50], Y[:50], epochs=1)
    assert bits(lax) == bits(free) != bits(one)
    parts = np.concatenate([part.ravel() for part in moved])
    whole = np.concatenate([(free.model.params[name] - array).ravel() for name, array in start.items()])
    assert float(parts @ whole) == pytest.approx(
        float(np.linalg.norm(parts) * np.linalg.norm(whole)), rel=1e-5
    )


def test_running_means_follow_the_parameters():
    states = []
    one = trainer(NET, optimizer=SGD(0.1), average=0.75)
    fit(one, X[:50], Y[:50], epochs=4, callbacks=[lambda trained, _: states.append(trained.model.params)])
    want = NET.init(0, (8, 8, 1))
    for params in states:
        want = {name: 0.75 * array + 0.25 * params[name] for name, array in want.items()}
    averaged = one.averaged_model
    for name, array in want.items():
        np.testing.assert_allclose(averaged.params[name], array, rtol=1e-4, atol=1e-6)
    assert digests(averaged.state) == digests(one.model.state)
    assert averaged.predict(X[:3]).shape == (3, 10)


@pytest.mark.parametrize("threads", [1, 3])
def test_both_go_on_to_the_same_bits(threads, tmp_path):
    options = {"clip_norm": 0.5, "average": 0.9}
    whole = fit(trainer(NET, **options), epochs=3)
    part = fit(trainer(NET, threads=threads, **options), epochs=1)
    part.save(tmp_path / "f")
    again = fit(trainer(NET, **options).resume(tmp_path / "f"), epochs=3)
    assert bits(again) == bits(whole) and bits(again.averaged_model) == bits(whole.averaged_model)
    assert any(name.startswith("average.") for name in load_checkpoint(tmp_path / "f").state.slots)
    other = trainer(NET, clip_norm=0.5).resume(tmp_path / "f")
    refuse("Training began with average 0.9", fit, other, epochs=3)


def test_wrong_numbers_are_refused():
    refuse("clip_norm is 0: give a number above 0", trainer, NET, clip_norm=0)
    refuse("average is 1: give a share", trainer, NET, average=1)
    refuse("no running means", lambda: fit(trainer(NET)).averaged_model)


def test_several_batches_to_a_step_are_one_batch_of_all_their_images():
    seen = []
    with events.listening(seen.append):
        several = fit(trainer(accumulate=2), batch_size=50)
    assert [event.images for event in seen] == [100, 200, 230]  # the last step is short
    assert bits(several) == bits(fit(trainer(shards=8), batch_size=100))
    one = fit(trainer(), batch_size=100)
    for name, array in one.model.params.items():
        np.testing.assert_allclose(several.model.params[name], array, rtol=1e-4, atol=1e-6)
    assert several.history["loss"][0] == pytest.approx(one.history["loss"][0], rel=1e-5)


def test_batch_norms_see_the_images_of_one_batch():
    program = trainer(NET, accumulate=3).program((8, 8, 1), 20)
    assert program.whole_shards and (program.shards, program.batch_size) == (12, 60)
    assert {len(block) for block in program.shard_indices(np.arange(60))} == {5}


def test_several_batches_need_the_memory_of_one_and_a_few_gradients():
    """Of a network whose gradients, 4.6 MiB each, are nearly all that a step needs."""
    net = Sequential([Flatten(), Dense(1024 * 16), Dense(10)])
    gradient = sum(array.nbytes for array in net.init(0, (8, 8, 1)).values())

    def peak(images, **options):
        run = fit(trainer(net, **options), X[:images], Y[:images], batch_size=16)
        tracemalloc.start()
        try:
            fit(run, X[:images], Y[:images], batch_size=16, epochs=2)
            return tracemalloc.get_traced_memory()[1] / gradient
        finally:
            tracemalloc.stop()

    # Sums of the tree that are open at once: one more with twice the shards, of which there are 4 and 32.
    assert peak(16) == pytest.approx(3, abs=0.5) and peak(128, accumulate=8) == pytest.approx(6, abs=0.5)


def test_accumulation_goes_on_to_the_same_bits(tmp_path):
    options = {"accumulate": 2, "clip_norm": 0.5, "average": 0.9}
    whole = fit(trainer(NET, **options), epochs=3)
    part = fit(trainer(NET, threads=2, **options), epochs=1)
    part.save(tmp_path / "f")
    assert part.batch_size == 50
    again = fit(trainer(NET, **options).resume(tmp_path / "f"), epochs=3)
    assert bits(again) == bits(whole) and bits(again.averaged_model) == bits(whole.averaged_model)
    other = trainer(NET, **{**options, "accumulate": 3}).resume(tmp_path / "f")
    refuse("Training began with accumulate 2 and would go on with 3", fit, other, epochs=3)
    refuse("accumulate is 0", trainer, accumulate=0)
    refuse("accumulate is 5 and batch_size 50 but there are 230 images", fit, trainer(accumulate=5))
