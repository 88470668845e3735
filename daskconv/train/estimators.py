"""Estimators: networks with scikit-learn's interface, for its pipelines, searches and scores (extra: sklearn)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError, check_count
from daskconv.nn import zoo
from daskconv.nn.losses import Loss, first_output, softmax
from daskconv.nn.network import Network
from daskconv.train.augment import Augmentation
from daskconv.train.data import as_array
from daskconv.train.files import Checkpoint
from daskconv.train.images import as_images, image_shape
from daskconv.train.model import Model
from daskconv.train.normalize import Normalize
from daskconv.train.optim import Optimizer
from daskconv.train.slots import first_slots, slots_after_change
from daskconv.train.trainer import Trainer

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
except ImportError:
    if not TYPE_CHECKING:
        # Whoever has no scikit-learn can read these names, and is told when making an estimator.
        BaseEstimator, ClassifierMixin, RegressorMixin = (type(name, (), {}) for name in "ECR")


class _ConvNet(BaseEstimator):
    """What both estimators share: options are kept as they were given, and looked at by ``fit``."""

    _loss: ClassVar[str]

    def __new__(cls, *args: Any, **options: Any) -> Any:
        if not hasattr(BaseEstimator, "get_params"):
            raise InputError(f"{cls.__name__} needs scikit-learn: pip install 'daskconv[sklearn]'.")
        return super().__new__(cls)

    def __init__(
        self,
        net: str | Network = "lenet",
        *,
        epochs: int = 10,
        batch_size: int = 100,
        optimizer: Optimizer | None = None,
        loss: str | Loss | None = None,
        preprocess: str | Normalize | None = "standardize",
        augment: Sequence[str | Augmentation] = (),
        clip_norm: float | None = None,
        accumulate: int = 1,
        average: float | None = None,
        image_shape: tuple[int, int, int] | None = None,
        transport: str = "auto",
        method: str = "auto",
        precision: str | None = None,
        shards: int | None = None,
        threads: int | None = None,
        random_state: int = 0,
        verbose: bool = False,
    ) -> None:
        self.net = net
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.loss = loss
        self.preprocess = preprocess
        self.augment = augment
        self.clip_norm = clip_norm
        self.accumulate = accumulate
        self.average = average
        self.image_shape = image_shape
        self.transport = transport
        self.method = method
        self.precision = precision
        self.shards = shards
        self.threads = threads
        self.random_state = random_state
        self.verbose = verbose

    def _images(self, x: Any) -> Any:
        """Return images (n, h, w, c) of what scikit-learn hands over: they, or rows of their pixels."""
        x = x if hasattr(x, "dask") else np.asarray(x)
        if self.image_shape is None:
            return as_images(x, "X")
        shape = tuple(self.image_shape)
        if len(shape) != 3 or x.ndim < 2 or prod(x.shape[1:]) != prod(shape):
            raise InputError(
                f"X has shape {x.shape} but image_shape is {self.image_shape}: give rows of that many pixels."
            )
        whole = x.rechunk(dict.fromkeys(range(1, x.ndim), -1)) if hasattr(x, "dask") else x
        return as_images(whole.reshape(len(x), *shape), "X")

    def _trainer(self, outputs: int) -> Trainer:
        net = zoo.build(self.net, outputs) if isinstance(self.net, str) else self.net
        return Trainer(
            net,
            loss=self._loss if self.loss is None else self.loss,
            optimizer=self.optimizer,
            transport=self.transport,
            method=self.method,
            precision=self.precision,
            seed=self.random_state,
            shards=self.shards,
            preprocess=self.preprocess,
            augment=self.augment,
            clip_norm=self.clip_norm,
            accumulate=self.accumulate,
            average=self.average,
            metrics=(),
            threads=self.threads,
        )

    def _train(
        self, x: Any, y: NDArray, outputs: int, epochs: int, weight: Any, before: Checkpoint | None = None
    ) -> Self:
        """Train anew, or for more epochs from where training stood, with these images or others."""
        x, trainer = self._images(x), self._trainer(outputs)
        found = trainer.network.output_shape(image_shape(x))
        if first_output(found) != (outputs,):
            raise InputError(f"The network's output is {found} but y needs {outputs} numbers an image.")
        if before is not None:
            trainer.resume(_untied(before, trainer))
            epochs += trainer.position.epoch
        most = max(1, len(x) // trainer.accumulate)
        size = min(check_count(self.batch_size, "batch_size"), most)
        trainer.fit(x, y, epochs=epochs, batch_size=size, sample_weight=weight, progress=bool(self.verbose))
        self.model_: Model = trainer.model if self.average is None else trainer.averaged_model
        self.checkpoint_, self.history_ = trainer.checkpoint(), trainer.history
        self.n_iter_ = trainer.position.epoch
        return self

    def _scores(self, x: Any) -> Any:
        """Return the network's outputs (n, outputs); a lazy Dask array for one."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self, "model_")
        return self.model_.predict(self._images(x), precision=self.precision)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.image_shape is not None
        return tags


def _untied(before: Checkpoint, trainer: Trainer) -> Checkpoint:
    """Return where training stood, no longer tied to its images, their number and its options, with the slots to go on.

    The trainer's options are those of now: an optimiser of another kind has none of its slots yet.
    """
    state = before.state
    fresh = first_slots(trainer.optimizer, trainer.average, state.params)
    same_kind = type(before.options["optimizer"]) is type(trainer.optimizer)
    slots = slots_after_change(fresh, state.slots, same_kind)
    return replace(before, state=replace(state, slots=slots), options={})


class ConvNetClassifier(ClassifierMixin, _ConvNet):
    """A network that tells classes apart, as scikit-learn's classifiers do: labels of any type, in any search.

    The options are those of :class:`daskconv.Trainer` and of its ``fit``; nothing is checked before ``fit`` is called.

    Parameters
    ----------
    net : str or Network
        Of the zoo, made for as many classes as there are, or a network with as many outputs.
    epochs, batch_size : int
        Batches are smaller where there are too few images for one, or for as many as ``accumulate`` takes.
    optimizer : Optimizer, optional
    loss : str or function, optional
        The softmax's cross-entropy when not given.
    preprocess, augment, clip_norm, accumulate, average, transport, method, precision, shards, threads
        As the Trainer's; with ``average`` the means of the parameters predict.
    image_shape : (h, w, c), optional
        For X as rows of pixels (n, h * w * c), as other steps of a Pipeline give it.
    random_state : int
        The Trainer's seed.
    verbose : bool
        Whether the progress is shown.

    Attributes
    ----------
    classes_ : array (classes,)
        The labels, sorted.
    model_ : Model
    history_ : History
    n_iter_ : int
        Epochs so far.

    Examples
    --------
    >>> import daskconv
    >>> digits = daskconv.datasets.load("digits")
    >>> names = np.array("zero one two three four five six seven eight nine".split())
    >>> net = daskconv.ConvNetClassifier(epochs=2, batch_size=50, optimizer=daskconv.SGD(0.02, momentum=0.9))
    >>> net = net.fit(digits.x_train, names[digits.y_train])
    >>> net.score(digits.x_test, names[digits.y_test]) > 0.9
    True
    >>> net.predict(digits.x_test[:1]).dtype.kind, net.predict_proba(digits.x_test[:3]).shape
    ('U', (3, 10))
    """

    _loss = "softmax_cross_entropy"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from the beginning.

        Parameters
        ----------
        X : array (n, h, w, c)
            uint8 or float; NumPy or Dask.
        y : array (n,)
            Labels of any type.
        sample_weight : array (n,), optional
        """
        labels = _labels(y)
        self.classes_ = np.unique(labels)
        return self._train(X, self._numbers(labels), len(self.classes_), self.epochs, sample_weight)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train one epoch more on these images; the optimiser, its schedule and the normalisation go on.

        Options may be others than before (``set_params``). An optimiser of another kind starts with fresh slots
        (velocities, means), and running means that were not kept before start at the weights, which stay.

        Parameters
        ----------
        X, y, sample_weight
            As for :meth:`fit`; others each time, where there are more than fit into memory.
        classes : array, optional
            All labels that will ever come, in the first call; those of ``y`` when not given.
        """
        before, labels = getattr(self, "checkpoint_", None), _labels(y)
        if before is None:
            self.classes_ = np.unique(labels if classes is None else as_array(classes))
        elif classes is not None and not np.array_equal(np.unique(as_array(classes)), self.classes_):
            raise InputError(f"classes are {classes} but began as {self.classes_.tolist()}: leave them out.")
        return self._train(X, self._numbers(labels), len(self.classes_), 1, sample_weight, before)

    def _numbers(self, labels: NDArray) -> NDArray[np.int64]:
        """Return the number of each label's class."""
        numbers = np.searchsorted(self.classes_, labels).clip(max=len(self.classes_) - 1)
        unknown = self.classes_[numbers] != labels
        if unknown.any():
            raise InputError(
                f"y[{int(unknown.argmax())}] is {labels[unknown][0]!r}, which is none of the classes "
                f"{self.classes_.tolist()}: name all of them in the first call of partial_fit."
            )
        return numbers.astype(np.int64)

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class (n, classes), in the order of ``classes_``; lazy for a Dask array."""
        scores = self._scores(X)
        return scores.map_blocks(softmax) if hasattr(scores, "dask") else softmax(scores)

    def predict(self, X: Any) -> Any:
        """Return the label (n,) of each image; lazy for a Dask array."""
        best = self._scores(X).argmax(1)
        if hasattr(best, "dask"):
            return best.map_blocks(partial(np.take, self.classes_), dtype=self.classes_.dtype)
        return self.classes_[best]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on images and labels."""
        from sklearn.metrics import accuracy_score

        weight = None if sample_weight is None else as_array(sample_weight)
        return float(accuracy_score(as_array(y), as_array(self.predict(X)), sample_weight=weight))


def _labels(y: Any) -> NDArray:
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import column_or_1d

    labels = column_or_1d(as_array(y), warn=True)
    check_classification_targets(labels)
    return labels


class ConvNetRegressor(RegressorMixin, _ConvNet):
    """A network that estimates numbers, as scikit-learn's regressors do.

    Parameters
    ----------
    net : str or Network
        Of the zoo, made for as many outputs as ``y`` has numbers an image, or a network with as many outputs.
    loss : str or function, optional
        The mean squared error when not given.
    epochs, batch_size, optimizer, preprocess, augment, clip_norm, accumulate, average, image_shape
        As in :class:`ConvNetClassifier`.
    transport, method, precision, shards, threads, random_state, verbose
        As in :class:`ConvNetClassifier`.

    Attributes
    ----------
    model_ : Model
    history_ : History
    n_iter_ : int
        Epochs so far.

    Examples
    --------
    >>> import daskconv
    >>> net = daskconv.Sequential([daskconv.Flatten(), daskconv.Dense(1)])
    >>> x = np.random.default_rng(0).random((200, 2, 2, 1), np.float32)
    >>> rule = daskconv.ConvNetRegressor(net, epochs=40, optimizer=daskconv.SGD(0.1, momentum=0.9))
    >>> rule.fit(x, x.sum((1, 2, 3))).score(x, x.sum((1, 2, 3))) > 0.99
    True
    """

    _loss = "mean_squared_error"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from the beginning.

        Parameters
        ----------
        X : array (n, h, w, c)
            uint8 or float; NumPy or Dask.
        y : array (n,) or (n, outputs)
        sample_weight : array (n,), optional
        """
        return self._fit(X, y, self.epochs, sample_weight)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train one epoch more on these images, as :meth:`ConvNetClassifier.partial_fit` does."""
        return self._fit(X, y, 1, sample_weight, getattr(self, "checkpoint_", None))

    def _fit(self, x: Any, y: Any, epochs: int, weight: Any, before: Checkpoint | None = None) -> Self:
        y = as_array(y)
        if y.ndim not in (1, 2) or y.dtype.kind not in "biuf":
            raise InputError(f"y is {y.dtype} of shape {y.shape}: give numbers (n,) or (n, outputs).")
        self._flat = y.ndim == 1
        outputs = 1 if self._flat else y.shape[1]
        return self._train(x, y.astype(np.float64), outputs, epochs, weight, before)

    def predict(self, X: Any) -> Any:
        """Return what is estimated, in the shape of y; lazy for a Dask array."""
        scores = self._scores(X)
        return scores[:, 0] if self._flat else scores

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the coefficient of determination, R squared."""
        from sklearn.metrics import r2_score

        weight = None if sample_weight is None else as_array(sample_weight)
        return float(r2_score(as_array(y), as_array(self.predict(X)), sample_weight=weight))
