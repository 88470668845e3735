"""Augmentation: what each change does, the same for an image wherever and whenever it is read."""

from dataclasses import dataclass

import numpy as np
import pytest

from daskconv import Augmentation, ColorJitter, RandomCrop, RandomFlip
from daskconv.train.augment import augmented, resolve_augmentations
from daskconv.train.data import ArrayData
from daskconv.train.draws import uniform
from train.small import X, Y, bits, fit, refuse, trainer

CHANGES = (RandomCrop(2), RandomFlip(), ColorJitter(0.2, 0.3))


def test_draws_are_even_and_independent():
    images = np.arange(4000)
    draws = uniform(3, 1, images, 0, 4)
    assert draws.shape == (4000, 4) and draws.min() >= 0 and draws.max() < 1
    assert abs(np.histogram(draws, 10, (0, 1))[0] / 1600 - 1).max() < 0.1
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(4), atol=0.05)
    for other in (uniform(4, 1, images, 0, 4), uniform(3, 2, images, 0, 4), uniform(3, 1, images, 1, 4)):
        assert abs(np.corrcoef(draws.ravel(), other.ravel())[0, 1]) < 0.03
    np.testing.assert_array_equal(uniform(3, 1, images[70:90], 0, 2), draws[70:90, :2])


def test_a_crop_is_a_shifted_image_with_a_border():
    x = np.arange(1, 26, dtype=np.uint8).reshape(1, 5, 5, 1)
    assert (RandomCrop(2)(x, np.array([[0.5, 0.5]])) == x).all()
    corner = RandomCrop(2)(x, np.array([[0.0, 0.999]]))[0, :, :, 0]
    np.testing.assert_array_equal(corner[2:, :3], x[0, :3, 2:, 0])
    assert not corner[:2].any() and not corner[:, 3:].any() and corner.dtype == np.uint8
    edge = RandomCrop(1, "edge")(x, np.array([[0.0, 0.0]]))[0, :, :, 0]
    np.testing.assert_array_equal(edge[0], [1, 1, 2, 3, 4])
    shifts = {
        tuple(RandomCrop(1)(x, draw[None]).ravel()) for draw in np.random.default_rng(0).random((200, 2))
    }
    assert len(shifts) == 9


def test_flips_and_colours():
    x = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 3), dtype=np.uint8)
    flipped = RandomFlip(0.5)(x, np.array([[0.1], [0.9], [0.4], [0.6]]))
    np.testing.assert_array_equal(flipped[[0, 2]], x[[0, 2], :, ::-1])
    np.testing.assert_array_equal(flipped[[1, 3]], x[[1, 3]])
    middle = np.full((4, 3), 0.5)
    np.testing.assert_allclose(ColorJitter(1, 1, 1)(x, middle), x, atol=1e-3)
    darkest = ColorJitter(brightness=1)(x, np.zeros((4, 3)))
    assert not darkest.any() and darkest.dtype == np.float32
    grey = ColorJitter(saturation=1)(x, np.zeros((4, 3)))
    np.testing.assert_allclose(grey, x.mean(3, keepdims=True) + 0 * grey, atol=1e-3)
    flat = ColorJitter(contrast=1)(x, np.zeros((4, 3)))
    np.testing.assert_allclose(flat, x.mean((1, 2, 3), keepdims=True) + 0 * flat, atol=1e-3)
    bright = ColorJitter(brightness=1)(x, np.full((4, 3), 0.999))
    assert bright.max() == 255 and ColorJitter(brightness=1)(x / 255.0, np.full((4, 3), 0.999)).max() > 1


def test_only_training_sees_changes_and_each_epoch_others():
    data = ArrayData(X, Y, seed=5, augment=CHANGES)
    numbers = np.array([7, 3, 100])
    first, again, next_epoch = (data.take(numbers, epoch)[0] for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != next_epoch).any()
    np.testing.assert_array_equal(data.take(numbers)[0], X[numbers])
    np.testing.assert_array_equal(data.take(numbers[1:2], 0)[0], first[1:2])


def test_the_same_bits_on_any_number_of_threads_and_after_resuming(tmp_path):
    one, three = (fit(trainer(augment=CHANGES, threads=threads), epochs=2) for threads in (1, 3))
    assert bits(one) == bits(three) != bits(fit(trainer(), epochs=2))
    part = fit(trainer(augment=CHANGES), epochs=1)
    part.save(tmp_path / "f")
    assert bits(fit(trainer(augment=CHANGES).resume(tmp_path / "f"), epochs=2)) == bits(one)
    other = trainer(augment=["flip"]).resume(tmp_path / "f")
    refuse("Training began with augment", fit, other, epochs=2)


@dataclass(frozen=True)
class Inverted(Augmentation):
    """A custom one."""

    def __call__(self, images, draws):
        return 16 - images


@dataclass(frozen=True)
class Shrunk(Augmentation):
    def __call__(self, images, draws):
        return images[:, 1:]


def cut(images, padding, mode, draws):
    """What a crop is: a part of each padded image."""
    _, h, w, _ = images.shape
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    starts = (draws * (2 * padding + 1)).astype(int)
    return np.stack(
        [
            whole[top : top + h, left : left + w]
            for whole, (top, left) in zip(np.pad(images, around, mode), starts, strict=True)
        ]
    )


def mirrored(images, rate, draws):
    return np.where((draws < rate)[:, :, None, None], images[:, :, ::-1], images)


@dataclass(frozen=True)
class UpsideDown(RandomFlip):
    """One that does more than its base."""

    def __call__(self, images, draws):
        return super().__call__(images, draws)[:, ::-1]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    "changes",
    [
        [RandomCrop(2)],
        [RandomFlip(0.7)],
        [RandomCrop(4), RandomFlip()],
        [RandomFlip(), RandomCrop(3, "reflect")],
        [RandomCrop(2, "edge"), RandomCrop(3), RandomFlip(), RandomCrop(1)],
        [RandomCrop(9, "reflect"), Inverted(), RandomFlip(), RandomCrop(9)],
        [RandomFlip(), UpsideDown(), RandomFlip()],
    ],
    ids=str,
)
def test_moves_in_one_pass_are_moves_one_after_the_other(changes, dtype):
    x, numbers = X[:40, :, 1:].astype(dtype), np.arange(100, 140)
    want = x
    for stream, change in enumerate(changes):
        draws = uniform(3, 1, numbers, stream, change.draws)
        if isinstance(change, RandomCrop):
            want = cut(want, change.padding, change.mode, draws)
        elif isinstance(change, RandomFlip):
            want = mirrored(want, change.rate, draws)
            want = want[:, ::-1] if isinstance(change, UpsideDown) else want
        else:
            want = 16 - want
    got = augmented(x, changes, 3, 1, numbers)
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got, want)


def test_custom_augmentations_and_names():
    refuse("they have to keep the shape", augmented, X[:3], [Shrunk(), *CHANGES], 0, 0, np.arange(3))
    assert resolve_augmentations(["crop", Inverted()]) == (RandomCrop(4), Inverted())
    assert bits(fit(trainer(augment=[Inverted()]))) != bits(fit(trainer()))
    refuse("they have to keep the shape", augmented, X[:3], [Shrunk()], 0, 0, np.arange(3))
    refuse("augment holds 'rotate': choose from crop, flip, jitter", trainer, augment=["rotate"])


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        (RandomCrop, {"padding": 0}, "padding 0: give at least 1 pixel"),
        (RandomCrop, {"mode": "wrap"}, "mode 'wrap': choose constant"),
        (RandomFlip, {"rate": 1.5}, "rate 1.5: give a share"),
        (ColorJitter, {"contrast": -1}, "strengths"),
    ],
)
def test_wrong_options_are_refused(kind, options, match):
    refuse(match, kind, **options)
