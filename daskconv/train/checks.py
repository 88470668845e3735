"""Checks of what a Trainer is given, and of what has to stay as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from daskconv.errors import InputError, check_count
from daskconv.nn.layers.base import Shape
from daskconv.nn.losses import SPECS
from daskconv.nn.metrics import ConfusionMatrix, Metric
from daskconv.plan.plans import DEFAULT_SHARDS
from daskconv.plan.program import Program
from daskconv.train.callbacks import Monitor
from daskconv.train.data import ArrayData
from daskconv.train.normalize import Normalize

if TYPE_CHECKING:
    from daskconv.train.model import Model
    from daskconv.train.trainer import Trainer


def check_seed(seed: int) -> int:
    """Return the seed, or raise InputError unless it is a whole number that fits 63 bits."""
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed!r}: give an int of at least 0 and below 2**63.")
    return int(seed)


def check_clip_norm(clip_norm: float | None) -> float | None:
    """Return the limit of a gradient's norm, or raise InputError unless it is above 0."""
    if clip_norm is not None and not (isfinite(clip_norm) and clip_norm > 0):
        raise InputError(f"clip_norm is {clip_norm!r}: give a number above 0.")
    return clip_norm


def check_average(average: float | None) -> float | None:
    """Return the share that running means keep, or raise InputError unless it lies between 0 and 1."""
    if average is not None and not 0 < average < 1:
        raise InputError(f"average is {average!r}: give a share above 0 and below 1, such as 0.999.")
    return average


def check_callbacks(callbacks: Sequence[Any], metrics: Sequence[Metric], validated: bool) -> None:
    """Raise InputError where one of the callbacks is no function, or watches what an epoch does not have."""
    names = ["loss", *(metric.name for metric in metrics if not isinstance(metric, ConfusionMatrix))]
    names += [f"val_{name}" for name in names] if validated else []
    for callback in callbacks:
        if not callable(callback):
            raise InputError(f"callbacks holds {callback!r}: give functions of (trainer, logs).")
        if isinstance(callback, Monitor):
            callback.check(names)


def check_pair(validation_data: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return (x, y), or raise InputError where something else was given."""
    if len(validation_data) != 2:
        raise InputError(f"validation_data holds {len(validation_data)} items: give (x, y).")
    return validation_data


def check_length(trainer: Trainer, batch_size: int, epochs: int, images: int) -> None:
    """Raise InputError where a step has more images, or shards, than there are images, or no epoch is left to do."""
    done, accumulate, shards = trainer.position.epoch, trainer.accumulate, trainer.plan.layout.n
    for name, value in (("batch_size", batch_size), ("epochs", epochs)):
        check_count(value, name)
    if batch_size > images:
        raise InputError(f"batch_size is {batch_size} but there are {images} images: use at most that.")
    if batch_size * accumulate > images:
        raise InputError(
            f"accumulate is {accumulate} and batch_size {batch_size} but there are {images} images: "
            "a step takes so many batches, so use fewer."
        )
    # A shard or two of the default's may be empty: whoever trains on three images asked for none.
    if shards > max(images, DEFAULT_SHARDS):
        raise InputError(
            f"The plan splits n into {shards} parts but there are {images} images: use at most that many."
        )
    if epochs <= done:
        raise InputError(f"epochs is {epochs} but {done} are done: give the total to reach.")


def check_shape(shape: Shape, model: Model | None, preprocess: Any, began: bool) -> None:
    """Raise InputError where images do not fit a model's arrays or the normalisation, or are not those of before."""
    if began and model is not None and model.input_shape not in ((), shape):
        raise InputError(f"The images are {shape} but training began with {model.input_shape}.")
    if model is not None:
        replace(model, preprocess=None).check_images(shape)
    if isinstance(preprocess, Normalize):
        preprocess.check(shape)


def fixed_options(trainer: Trainer, program: Program, train: ArrayData) -> dict[str, Any]:
    """Return what the bits of training depend on."""
    return {
        "loss": trainer.loss
        if isinstance(trainer.loss, SPECS)
        else getattr(trainer.loss, "__name__", repr(trainer.loss)),
        "optimizer": trainer.optimizer,
        "batch_size": program.batch_size // trainer.accumulate,
        "accumulate": trainer.accumulate,
        "shards": program.plan.shards,
        "plan": program.plan,
        "seed": trainer.seed,
        "images": len(train),
        "targets with the checksum": crc32(train.y.tobytes()),
        "method": trainer.method,
        "precision": trainer.precision,
        "methods": program.methods,
        "tuning": program.tuning,
        "augment": trainer.augment,
        "clip_norm": trainer.clip_norm,
        "average": trainer.average,
        "metrics": trainer.metrics,
        "trainable": program.trainable,
    }


def check_unchanged(began: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raise InputError where training would go on with anything else than it began with."""
    for name, value in options.items():
        if name in began and began[name] != value:
            raise InputError(
                f"Training began with {name} {began[name]} and would go on with {value}: "
                "keep it, or start a new Trainer from the model."
            )
