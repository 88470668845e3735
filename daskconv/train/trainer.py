"""Trainer: walks a network's Program over epochs of data, on any transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from daskconv import events
from daskconv.errors import InputError, check_count
from daskconv.graph.choose import check_precision
from daskconv.graph.threads import check_threads
from daskconv.layout import Layout
from daskconv.nn import zoo
from daskconv.nn.head import measured_part
from daskconv.nn.losses import Loss, default_metrics, resolve_loss
from daskconv.nn.metrics import Metric, resolve_metrics
from daskconv.nn.network import Network
from daskconv.plan.input import InputRead
from daskconv.plan.partition import Chosen, partition
from daskconv.plan.plans import Plan, resolve_plan
from daskconv.plan.program import Program
from daskconv.plan.tasks import Position, TrainState
from daskconv.run.alike import check_versions
from daskconv.run.select import check_transport, open_transport, select
from daskconv.run.watch import asked_now
from daskconv.scene.memory import memory_limit
from daskconv.train import checks
from daskconv.train.augment import Augmentation, resolve_augmentations
from daskconv.train.automatic import planned
from daskconv.train.checkpoints.keeper import Keeper, keeping
from daskconv.train.checkpoints.spec import Checkpoints, resolve_checkpoints
from daskconv.train.data import ArrayData, checked_data
from daskconv.train.epochs import Epochs
from daskconv.train.files import Checkpoint, load_checkpoint, write_checkpoint
from daskconv.train.history import History
from daskconv.train.images import as_images, image_shape
from daskconv.train.interrupt import StopRequest, catching, check_not_stopped
from daskconv.train.memory import check_memory
from daskconv.train.model import Model
from daskconv.train.normalize import Normalize
from daskconv.train.optim import SGD, Optimizer
from daskconv.train.progress import progress_for
from daskconv.train.slots import averaged, first_slots
from daskconv.train.told import epoch_teller, telling

Callback = Callable[["Trainer", dict[str, Any]], Any]


class Trainer:
    """Train a network on images; the same seed gives the same bits on every transport and worker count.

    Parameters
    ----------
    net : Network, Model or str
        A network, the name of one in :mod:`daskconv.zoo`, or a trained Model to go on from (fine-tuning).
    loss : str or function
        "softmax_cross_entropy", "binary_cross_entropy", "mean_squared_error", a spec such as
        :class:`daskconv.SoftmaxCrossEntropy`, or a function as in :mod:`daskconv.nn.losses`.
    optimizer : Optimizer
    plan : str, Plan or mapping of str to Layout
        How shards split the work: "data", "model", "hybrid", "auto", one of :mod:`daskconv.plans`, Layouts by layer.
    transport : {"auto", "local", "dask", "mpi"}
        Threads of this process, tasks of the client's workers, or one long task a worker with gradients
        exchanged by MPI. "auto": mpi under an MPI launcher, dask where a client is active, else local.
    method : str or mapping
        Algorithm of all convolutions, or of those that are named; "auto" as ``daskconv tune`` measured, or by shape.
    precision : {"fast", "exact"}, optional
        Whether "auto" may take methods that are not exact to rounding, as in :func:`daskconv.conv2d`.
    client : distributed.Client, optional
        The active one when not given.
    seed : int
        Of weights, shuffling and dropout.
    shards : int, optional
        Logical shards S, a constant of the plan and never the number of workers; 4 when not given.
    preprocess : str or Normalize, optional
        "mean_image", "standardize", "unit" or a Normalize; saved with the model.
    augment : sequence of str or Augmentation
        "crop", "flip", "jitter", :class:`daskconv.RandomCrop` ...: changes of training images, anew each epoch.
    metrics : sequence of str or Metric, optional
        "accuracy", "top5", "confusion_matrix" or your own; when not given, the accuracy where targets are classes.
    clip_norm : float, optional
        The largest norm of a step's mean gradient; a larger one is scaled down to it.
    accumulate : int
        Batches to one step, which uses the mean gradient of all their images. Batch norms see those of one batch, and
        the step needs the memory of one; where only images are split, of one gradient more whenever batches double.
    average : float, optional
        Share that each step keeps of running means of the parameters, such as 0.999: :attr:`averaged_model`.
    trainable : sequence of str, optional
        Patterns of the parameters to train, such as "dense*"; all when not given. A batch norm with none of them keeps
        its running statistics and normalises by them.
    class_names : sequence of str
        Saved with the model.
    threads : int, optional
        Threads of each worker, or of this process.

    Examples
    --------
    >>> import daskconv
    >>> digits = daskconv.datasets.load("digits")
    >>> trainer = daskconv.Trainer("lenet", optimizer=daskconv.SGD(0.02, momentum=0.9), preprocess="standardize")
    >>> history = trainer.fit(digits.x_train, digits.y_train, epochs=2, batch_size=50, progress=False)
    >>> trainer.evaluate(digits.x_test, digits.y_test)["accuracy"] > 0.9
    True
    """

    def __init__(
        self,
        net: Network | Model | str,
        *,
        loss: str | Loss = "softmax_cross_entropy",
        optimizer: Optimizer | None = None,
        plan: str | Plan | Mapping[str, Layout] = "data",
        transport: str = "auto",
        method: str | Mapping[str, str] = "auto",
        precision: str | None = None,
        client: Any = None,
        seed: int = 0,
        shards: int | None = None,
        preprocess: str | Normalize | None = None,
        augment: Sequence[str | Augmentation] = (),
        metrics: Sequence[str | Metric] | None = None,
        clip_norm: float | None = None,
        accumulate: int = 1,
        average: float | None = None,
        trainable: Sequence[str] | None = None,
        class_names: Sequence[str] = (),
        threads: int | None = None,
    ) -> None:
        self._model = net if isinstance(net, Model) else None
        if isinstance(net, Model):
            self.network: Network = net.network
            preprocess = preprocess or net.preprocess
            class_names = class_names or net.class_names
        else:
            self.network = zoo.build(net, len(class_names) or 10) if isinstance(net, str) else net
        if not isinstance(self.network, Network):
            raise InputError(f"net is {net!r}: give a Network, a Model or the name of a net in the zoo.")
        self.loss = resolve_loss(loss)
        self.optimizer = optimizer or SGD(1e-3, momentum=0.9)
        if not isinstance(self.optimizer, Optimizer):
            raise InputError(f"optimizer is {optimizer!r}: give an Optimizer, such as daskconv.SGD(1e-3).")
        self.plan = resolve_plan(plan, shards)
        self.transport, self.client = transport, client
        check_transport(transport)
        self.method, self.precision, self.seed = method, check_precision(precision), checks.check_seed(seed)
        self.threads = None if threads is None else check_threads(threads)
        self.preprocess = preprocess
        self.augment = resolve_augmentations(augment)
        self.clip_norm, self.average = checks.check_clip_norm(clip_norm), checks.check_average(average)
        self.accumulate = check_count(accumulate, "accumulate")
        self.metrics = default_metrics(self.loss) if metrics is None else resolve_metrics(tuple(metrics))
        self.trainable, self.class_names = trainable, tuple(class_names)
        self.history = History()
        self.position = Position()
        self.shard_owners: dict[str, list[int]] = {}
        self.input_read: dict[str, InputRead] = {}
        self._state: TrainState | None = None
        self._shown = False  # whether someone else has the model's arrays
        self._stop = StopRequest()
        self._options: dict[str, Any] = {}

    @property
    def model(self) -> Model:
        """The network with its current parameters."""
        self._shown = True
        return self._require_model()

    @property
    def averaged_model(self) -> Model:
        """The network with the running means of its parameters, where the trainer keeps them: ``average=0.999``."""
        return averaged(self._require_model(), self._require_state().slots)

    def program(self, input_shape: tuple[int, int, int], batch_size: int) -> Program:
        """Return the Program of one training step.

        Parameters
        ----------
        input_shape : (h, w, c)
        batch_size : int
        """
        what = {"loss": self.loss, "trainable": self.trainable}
        return self._partition(self.network, input_shape, batch_size, **what)

    def _partition(
        self, network: Network, input_shape: tuple[int, int, int], batch_size: int, **what: Any
    ) -> Program:
        return partition(
            network,
            planned(self, input_shape, batch_size),
            **what,
            input_shape=input_shape,
            batch_size=batch_size,
            method=self.method,
            precision=self.precision,
            metrics=self.metrics,
            optimizer=self.optimizer,
            seed=self.seed,
            chosen=self._chosen_before(input_shape),
            clip_norm=self.clip_norm,
            average=self.average,
            accumulate=self.accumulate,
        )

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: int = 1,
        batch_size: int = 100,
        validation_data: tuple[Any, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        sample_weight: Any = None,
        checkpoint: str | PathLike[str] | Checkpoints | None = None,
        progress: bool = True,
    ) -> History:
        """Train until ``epochs`` epochs are done, counted from the first one that this trainer, or its checkpoint, ran.

        Parameters
        ----------
        x : array (n, h, w, c)
            uint8 or float images; NumPy, mapped, Zarr or Dask.
        y : array (n,)
            Classes, or targets (n, ...) of another loss.
        epochs, batch_size : int
            The last batch of an epoch may be short.
        validation_data : (x, y), optional
            Evaluated after each epoch.
        callbacks : sequence of function
            Called as ``callback(trainer, logs)`` after each epoch: :mod:`daskconv.train.callbacks`, or your own.
        sample_weight : array (n,), optional
        checkpoint : str, path or Checkpoints, optional
            A folder for checkpoints, written beside the steps every 10 minutes or as the Checkpoints say;
            :meth:`resume` goes on from it.
        progress : bool
            A bar on a terminal, a line an epoch elsewhere.

        Raises
        ------
        InputError
            Where data and network do not fit, before anything is trained.
        Interrupted
            After Ctrl-C, SIGTERM or SIGUSR1; the last full step is kept, and ``fit`` goes on from it.
        """
        x = as_images(x, "x")
        program = self._check_fit(x, batch_size, epochs)
        cut: dict[str, Any] = {"batch_size": program.batch_size, "shards": program.shards}
        train = self._data(x, y, "x", weight=sample_weight, augment=self.augment, **cut)
        data = {"train": train}
        if validation_data is not None:
            xv, yv = checks.check_pair(validation_data)
            data["validation"] = self._data(xv, yv, "validation x", shape=train.shape)
        checks.check_callbacks(callbacks, self.metrics, validation_data is not None)
        self._options = self._check_options(program, train, epochs)
        name, client = select(self.transport, self.client)
        spec = resolve_checkpoints(checkpoint)
        keeper = None if spec is None else Keeper(spec, self.steps)
        self._begin(program, x)
        left = check_memory(program, self._require_state(), name != "local", self.threads)
        for item in data.values():
            item.normalize = self._require_model().preprocess
            # Half: what a step takes is an estimate, and a process that compiles its kernels takes more.
            item.images.keep_at_most(left // (2 * len(data)))
        self._stop = StopRequest()
        shown = progress_for(epochs, program, progress)
        asked, state = asked_now(), self._require_state()
        show = epoch_teller(asked, shown.epoch)
        told = telling(asked, program, name, client, state, len(train), epochs, self.threads)
        with shown, events.listening(shown.step), told:
            with catching(self._stop), keeping(keeper, self.checkpoint):
                transport = open_transport(name, client, program, state, data, self.threads, asked)
                steps = -(-len(train) // program.batch_size)
                Epochs(self, transport, program, steps, self._stop, keeper).run(epochs, callbacks, show)
            check_not_stopped(self._stop, self.position, keeper.newest if keeper else None)
        return self.history

    def evaluate(self, x: Any, y: Any) -> dict[str, Any]:
        """Return the loss and the metrics over a data set, such as ``{"loss": ..., "accuracy": ...}``.

        They are those of the outputs that a Model predicts, without auxiliary ones.

        Parameters
        ----------
        x : array (n, h, w, c)
        y : array (n,)
        """
        model, x = self._require_model(), as_images(x, "x")
        network, loss = measured_part(self.network, self.loss)
        replace(model, network=network).check_images(image_shape(x))
        size = self.batch_size or len(x)
        program = self._partition(network, image_shape(x), size, loss=loss, trainable=None)
        data = {"evaluate": checked_data(network, loss, x, y, "x", metrics=self.metrics)}
        data["evaluate"].normalize = model.preprocess
        name, client = select(self.transport, self.client)
        data["evaluate"].images.keep_at_most(memory_limit(name != "local").total // 2)
        state = TrainState(model.params, {}, statistics=model.state)
        transport = open_transport(name, client, program, state, data, self.threads)
        try:
            return program.results(transport.evaluate("evaluate"))
        finally:
            transport.close()

    def predict(self, x: Any) -> Any:
        """Return the network's output; a lazy Dask array when ``x`` is one or Zarr's, else NumPy."""
        return self._require_model().predict(x)

    @property
    def steps(self) -> int:
        """The steps that are done, in all epochs."""
        return self._state.steps if self._state is not None else 0

    @property
    def batch_size(self) -> int | None:
        """The batch size that training began with, or None before."""
        return self._options.get("batch_size")

    def stop(self) -> None:
        """End training once the steps that run are done; for callbacks."""
        self._stop.asked = True

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model and all that training needs to go on to the same bits; :func:`daskconv.load` reads it too."""
        write_checkpoint(path, self._checkpoint())

    def checkpoint(self) -> Checkpoint:
        """Return what :meth:`save` writes, for :meth:`resume` of another trainer in this process."""
        self._shown = True
        return self._checkpoint()

    def checkpoint_at(self, position: Position, done: int) -> Checkpoint:
        """Return a checkpoint of a state that workers hold: where it stands, with arrays that only have its shapes."""
        state = replace(self._require_state(), position=position, steps=done)
        return Checkpoint(self._require_model(), state, list(self.history.epochs), self._options)

    def _checkpoint(self) -> Checkpoint:
        state = self._require_state()
        return Checkpoint(self._require_model(), state, list(self.history.epochs), self._options)

    def resume(self, checkpoint: str | PathLike[str] | Checkpoint) -> Trainer:
        """Go on from a file that :meth:`save` wrote, or from the newest checkpoint in a folder that verifies.

        The next ``fit`` has to have the same options and data. A warning names what was written by another version of
        daskconv, NumPy, or whatever else bits depend on.

        Parameters
        ----------
        checkpoint : str, path or Checkpoint
        """
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = load_checkpoint(checkpoint)
        if checkpoint.model.network != self.network:
            raise InputError(
                f"The checkpoint holds {checkpoint.model.network.name} with other layers than "
                f"{self.network.name}: give the network it was trained with."
            )
        check_versions(checkpoint.versions)
        self._model, self._state, self._shown = checkpoint.model, checkpoint.state, True
        self.preprocess, self.class_names = checkpoint.model.preprocess, checkpoint.model.class_names
        self.position, self._options = checkpoint.state.position, checkpoint.options
        self.history = History(list(checkpoint.history))
        return self

    def _check_fit(self, x: Any, batch_size: int, epochs: int) -> Program:
        """Return the Program; raise InputError for what cannot be trained. Nothing of the trainer changes."""
        checks.check_length(self, batch_size, epochs, len(x))
        checks.check_shape(image_shape(x), self._model, self.preprocess, began=self._state is not None)
        return self.program(image_shape(x), batch_size)

    def _begin(self, program: Program, x: Any) -> None:
        """Fit the normalisation and make the first state, unless training goes on.

        The state's arrays are nobody else's, so that a transport may change them.
        """
        if self._state is not None:
            self._own(self._state.copy() if self._shown else self._state)
            return
        fitted = Normalize.of(self.preprocess, x)
        if self._model is None:
            params = self.network.init(self.seed, program.input_shape)
            statistics = self.network.init_statistics(program.input_shape)
        else:
            start = TrainState(self._model.params, {}, statistics=self._model.state).copy()
            params, statistics = start.params, start.statistics
        trained = {name: params[name] for name in program.trainable}
        self._model = Model(self.network, params, statistics, fitted, self.class_names, program.input_shape)
        slots = first_slots(self.optimizer, self.average, trained)
        self._state = TrainState(params, slots, statistics=statistics)

    def _data(
        self, x: Any, y: Any, name: str, shape: tuple[int, ...] | None = None, **options: Any
    ) -> ArrayData:
        """Return data that this trainer's network, loss and metrics can take."""
        return checked_data(
            self.network, self.loss, x, y, name, shape, metrics=self.metrics, seed=self.seed, **options
        )

    def _check_options(self, program: Program, train: ArrayData, epochs: int) -> dict[str, Any]:
        """Return what fixes the bits; refuse to go on with anything else than before."""
        checks.check_unchanged(self._options, options := checks.fixed_options(self, program, train))
        return options | {"epochs": epochs}

    def _chosen_before(self, input_shape: tuple[int, int, int]) -> Chosen | None:
        """Return the methods that training began with: what was tuned since, or here, changes no bits."""
        began = self._options
        if self._model is None or self._model.input_shape != input_shape or "methods" not in began:
            return None
        same = began["method"] == self.method and began.get("precision") == self.precision
        return (began["methods"], began.get("tuning", "")) if same else None

    def keep(self, state: TrainState, steps: int) -> None:
        """Keep a state that a transport gave; after an epoch's last of its ``steps`` the next one begins."""
        if state.position.step == steps:
            state = replace(state, position=Position(state.position.epoch + 1))
        self._own(state)

    def _own(self, state: TrainState) -> None:
        """Make the state, and the position that belongs to it, the trainer's own."""
        self._state, self.position, self._shown = state, state.position, False
        model = self._require_model()
        self._model = replace(
            model, params=state.params, state=state.statistics, class_names=self.class_names
        )

    def _require_model(self) -> Model:
        if self._model is None:
            raise InputError("There is no model yet: call fit() first.")
        return self._model

    def _require_state(self) -> TrainState:
        if self._state is None:
            raise InputError("There is nothing to save yet: call fit() first.")
        return self._state
