"""Run under mpiexec -n 6: 50 steps on both transports with 4, 3, 2 and 1 workers; print a JSON line for each."""

import json
import sys

from recipes import digest, network

import daskconv
from daskconv import plans

STEPS = 50
CASES = {
    "cifar10_quick": (
        daskconv.zoo.cifar10_quick,
        20,
        [plans.data(4), plans.hybrid(4), plans.hybrid(4, slices=5)],
    ),
    "norm and dropout": (
        network,
        20,
        [plans.data(4), plans.data(4, synchronize=True), plans.spatial(h=2, w=2)],
    ),
}


def trained(case, plan, transport, client=None):
    net, batch, _ = CASES[case]
    digits = daskconv.datasets.load("digits")
    x, y = digits.x_train, digits.y_train
    count = STEPS * batch
    trainer = daskconv.Trainer(
        net(),
        plan=plan,
        transport=transport,
        client=client,
        optimizer=daskconv.SGD(0.01, momentum=0.9),
        preprocess="standardize",
    )
    if case == "cifar10_quick":
        x = x.repeat(4, 1).repeat(4, 2).repeat(3, 3)
    trainer.fit(x[:count], y[:count], epochs=1, batch_size=batch, progress=False)
    return digest(trainer)


def main():
    with daskconv.start() as client:
        while True:
            workers = list(client.scheduler_info(n_workers=-1)["workers"])
            for case, (_, _, some) in CASES.items():
                for plan in some:
                    for transport in ("mpi", "dask"):
                        row = {"case": case, "plan": plan.name, "slices": plan.slices}
                        row["synchronize"] = plan.synchronize
                        row |= {"transport": transport, "workers": len(workers)}
                        print(json.dumps(row | {"digest": trained(case, plan, transport)}), flush=True)
            if len(workers) == 1:
                return
            client.retire_workers(workers[-1:])


if __name__ == "__main__":
    sys.path.insert(0, "")
    main()
