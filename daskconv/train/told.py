"""What training tells of itself as it begins and ends: its plan, what it takes, and how it went."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from daskconv.errors import Interrupted, sentence_of
from daskconv.events import EpochDone, RunBegan, RunEnded, emit
from daskconv.graph.threads import available_threads
from daskconv.graph.tuning_file import load_table
from daskconv.plan import tree
from daskconv.plan.boxes import edges_of
from daskconv.plan.describe import rows_of
from daskconv.plan.program import Program
from daskconv.plan.splitter import split
from daskconv.plan.tasks import TrainState
from daskconv.plan.tune import gains_of
from daskconv.run.present import scheduler_info
from daskconv.run.select import worker_threads
from daskconv.run.watch import Asked, numbers
from daskconv.scene.memory import PROCESS
from daskconv.train.memory import predicted


@contextmanager
def telling(
    asked: Asked,
    program: Program,
    transport: str,
    client: Any,
    state: TrainState,
    images: int,
    epochs: int,
    threads: int | None,
) -> Iterator[None]:
    """Tell the page on the client's scheduler and the listeners here how a run begins, goes and ends."""
    from daskconv.run.forward import publishing

    with publishing(client if asked.closely else None):
        emit(_began(asked, program, transport, client, state, images, epochs, threads))
        try:
            yield
        except BaseException as error:
            how = "stopped" if isinstance(error, Interrupted | KeyboardInterrupt) else sentence_of(error)
            emit(RunEnded(how, run=asked.run))
            raise
        emit(RunEnded("done", run=asked.run))


def epoch_teller(asked: Asked, show: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """Return what shows an epoch's figures, and tells of them."""

    def tell(logs: dict[str, Any]) -> None:
        show(logs)
        emit(EpochDone(logs["epoch"] - 1, numbers(logs), run=asked.run))

    return tell


def _began(
    asked: Asked,
    program: Program,
    transport: str,
    client: Any,
    state: TrainState,
    images: int,
    epochs: int,
    threads: int | None,
) -> RunBegan:
    workers = 1
    if transport == "local":
        threads = threads or available_threads()
    else:
        threads = threads or worker_threads(client)
        workers = min(len(scheduler_info(client)["workers"]), program.shards)
    layers: list[dict[str, Any]] = []
    memory = 0.0
    if asked.closely:
        layers = _layers(program, workers)
        memory = PROCESS + predicted(program, state, workers, threads, local=transport == "local")
    steps = -(-images // program.batch_size)
    return RunBegan(
        program.network.name,
        program.plan.name,
        transport,
        workers,
        threads,
        program.shards,
        program.batch_size,
        images,
        steps,
        epochs,
        layers,
        int(np.ceil(memory)),
        run=asked.run,
    )


def _layers(program: Program, workers: int) -> list[dict[str, Any]]:
    """Return what each layer holds and sends, of one batch of a step and of all."""
    # The same parts that a split program has; of a plan that splits images alone, it has none.
    parts = program.split or split(
        program.network,
        program.plan,
        program.input_shape,
        trainable=program.trainable,
        methods=program.methods,
    )
    edges = edges_of(program.batch_size // program.batches, parts.shards)
    owners = tree.owners(parts.shards, workers)
    *rows, gradients = rows_of(parts, program.network, edges, owners, program.trainable)
    rows = [*(row._replace(sent=row.sent * program.batches) for row in rows), gradients]
    gains = _gains(program)
    return [
        row._asdict() | {"methods": program.methods.get(row.layer, {}), "gains": gains.get(row.layer, {})}
        for row in rows
    ]


def _gains(program: Program) -> dict[str, dict[str, float]]:
    """Return how many times as fast as lowering the methods were that this machine's table chose."""
    table = load_table()
    if not program.tuning or table.hash != program.tuning:
        return {}
    tuned = table.at(program.dtype, program.block_images)
    return gains_of(program.network, program.input_shape, program.methods, tuned)
