"""Train on digits until a file appears: what the page's tests watch, on a local cluster and under mpiexec."""

import sys
from pathlib import Path

import daskconv


def main(stop: str, method: str, threads: int) -> None:
    workers = {} if len(sys.argv) < 5 else {"workers": int(sys.argv[4])}
    with daskconv.start(threads=threads, dashboard_address="127.0.0.1:0", **workers):
        data = daskconv.datasets.load("digits")
        net = daskconv.Sequential(
            [
                daskconv.Conv2D(16, 3, padding="same"),
                daskconv.ReLU(),
                ("<b>bold</b>", daskconv.Conv2D(32, 3, padding="same")),
                daskconv.ReLU(),
                daskconv.MaxPool2D(2),
                daskconv.Flatten(),
                daskconv.Dense(10),
            ],
            name="<script>document.title = 'run by the page'</script>",
        )
        trainer = daskconv.Trainer(net, optimizer=daskconv.SGD(0.002, momentum=0.9), method=method)

        def look(trainer: daskconv.Trainer, logs: dict) -> None:
            if Path(stop).exists():
                trainer.stop()

        images = {"validation_data": (data.x_test, data.y_test)}
        trainer.fit(data.x_train, data.y_train, epochs=100_000, callbacks=[look], progress=False, **images)
        print("ended", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
