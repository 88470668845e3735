"""Run under mpiexec -n 6: train under split plans with 4, 3, 2 and 1 workers; print a JSON line for each."""

import json
import sys
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import digest, digits, trainer

import daskconv
from daskconv import Checkpoints, Conv2D, Dense, Flatten, Layer, Sequential, plans
from daskconv.plan import tree
from daskconv.plan.allreduce import meetings, traffic
from daskconv.plan.boxes import shape_of
from daskconv.plan.describe import added_bytes, exchanged_bytes
from daskconv.run import select
from daskconv.run.mpi import MPITransport
from plan.drawn import images, networks, some_plans

PLANS = [plans.data(4, synchronize=True), plans.model(4), plans.hybrid(4), plans.spatial(h=2, w=2)]
PLANS.append(replace(plans.hybrid(4, slices=3), name="slices of two batches"))
IMAGES, STEP = 144, 48


def made(plan: Any, **options: Any) -> Any:
    """Return a trainer; steps of the plan with slices take two batches."""
    return trainer(plan=plan, accumulate=2 if plan.slices != 1 else 1, **options)


def fit(run: Any, **options: Any) -> Any:
    """Train to the end of an epoch, and return the trainer."""
    x, y, _, _ = digits()
    batch = STEP // run.accumulate
    run.fit(x[:IMAGES], y[:IMAGES], epochs=1, batch_size=batch, progress=False, **options)
    return run


class Watched(MPITransport):
    """Keeps what its ranks have sent, and what each holds of the weights."""

    sent: Any = None
    held: Any = None

    def close(self) -> None:
        if self.program.split:
            Watched.sent = self.traffic()
            Watched.held = [
                sum(prod(shape_of(box, None)) for name, box in pieces.params if name == "dense1.weight")
                for pieces in self.call_all(self.spread.tasks.pieces_of)
            ]
        super().close()


@dataclass(frozen=True)
class Fails(Layer):
    """Raises on the last worker only."""

    def forward(self, params: Any, x: Any, context: Any) -> Any:
        from mpi4py import MPI

        if context.training and MPI.COMM_WORLD.rank == MPI.COMM_WORLD.size - 1:
            raise RuntimeError("the layer gave up")
        return x, None

    def backward(self, params: Any, saved: Any, dy: Any, context: Any) -> Any:
        return dy, {}


def fails(data: Any) -> str:
    net = Sequential([Conv2D(4, 3), Fails(), Flatten(), Dense(10)])
    try:
        daskconv.Trainer(net, preprocess="unit", plan=plans.hybrid(4)).fit(*data[:2], progress=False)
    except daskconv.errors.WorkerError as error:
        return str(error)
    return "nothing was raised"


def drawn(client: Any) -> list[str]:
    """Train random networks under random plans, over MPI and in this process; return those whose bits differ."""
    found = []

    @settings(max_examples=8, derandomize=True, database=None, deadline=None)
    @given(networks(), some_plans(), st.sampled_from([1, 2]))
    def train(network: Any, plan: Any, batches: int) -> None:
        data = images(31, (8, 9, 4), "float32")
        options = {"plan": plan, "optimizer": daskconv.SGD(0.01, momentum=0.9), "threads": 1}
        options["accumulate"] = batches
        runs = []
        for transport in ("mpi", "local"):
            run = daskconv.Trainer(network, transport=transport, **options)
            try:
                run.fit(data.x, data.y, batch_size=12, progress=False)
            except daskconv.errors.InputError:  # some part would see padding only
                return
            runs.append(digest(run))
        found.append("" if len(set(runs)) == 1 else f"{plan} of {network}")

    train()
    return found


def expected_bytes(program: Any, workers: int, steps: int) -> int:
    """Return what the plan says that all workers send in some steps."""
    split, owners = program.split, tree.owners(4, workers)
    step = exchanged_bytes(split, owners, program.batch_size) + added_bytes(
        split, owners, program.vector_shapes
    )
    control = sum(1 for _ in traffic(meetings(owners), 1, whole=True))
    return steps * (step + control * (3 + program.sums_size) * 8)


def main() -> None:
    select.MPITransport = Watched
    with daskconv.start() as client:
        x, y, xv, yv = digits()
        print(json.dumps({"failure": fails((x, y))}), flush=True)
        print(json.dumps({"drawn": drawn(client)}), flush=True)
        while True:
            workers = list(client.scheduler_info(n_workers=-1)["workers"])
            for plan in PLANS:
                spec = Checkpoints(Path(sys.argv[1]) / f"{plan.name}-{len(workers)}", steps=2)
                trained = fit(made(plan), checkpoint=spec)
                program = trained.program((8, 8, 1), STEP // trained.accumulate)
                row = {
                    "plan": plan.name,
                    "workers": len(workers),
                    "digest": digest(trained),
                    "sent": sum(nbytes for _, nbytes in Watched.sent.values()),
                    "expected": expected_bytes(program, len(workers), IMAGES // STEP),
                    "held": Watched.held,
                    "accuracy": trained.evaluate(xv[:99], yv[:99])["accuracy"],
                }
                print(json.dumps(row), flush=True)
            if len(workers) == 1:
                return
            client.retire_workers(workers[-1:])


if __name__ == "__main__":
    sys.path.insert(0, "")
    main()
