"""What a step does besides the optimiser's: clipped gradients and running means of the parameters."""

import numpy as np
import pytest

from daskconv import SGD, BatchNorm, Conv2D, Dense, Flatten, Sequential
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
