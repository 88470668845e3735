"""Run under mpiexec: train on the Zarr group that is named; print what each worker read, and the digest."""

import json
import sys

from recipes import digest, trainer

import daskconv


def main() -> None:
    with daskconv.start():
        data = daskconv.datasets.from_zarr(sys.argv[1])
        trained = trainer()
        trained.fit(data.x_train, data.y_train, epochs=1, batch_size=80, progress=False)
        read = [[each.images, each.nbytes] for each in trained.input_read.values()]
        print(json.dumps({"digest": digest(trained), "read": read}), flush=True)


if __name__ == "__main__":
    main()
