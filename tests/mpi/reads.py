"""Run under mpiexec: train on the Zarr group that is named, then on its chunks in the workers' memory.

Print what each worker read, and the digest, a JSON line each.
"""

import json
import sys

from recipes import digest, trainer

import daskconv


def main() -> None:
    with daskconv.start() as client:
        data = daskconv.datasets.from_zarr(sys.argv[1])
        for x in (data.x_train, client.persist(data.x_train)):
            trained = trainer()
            held_out = (x[:200], data.y_train[:200])
            history = trained.fit(
                x, data.y_train, epochs=1, batch_size=80, validation_data=held_out, progress=False
            )
            read = [[each.images, each.nbytes] for each in trained.input_read.values()]
            row = {"digest": digest(trained), "read": read, "accuracy": history["val_accuracy"]}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
