"""The live page: what collecting for it costs a training step, and a picture of it.

python workflows/live_page.py --data cifar10.npz --png page.png

The cost is the processor time of the collecting code: what `Watch` does, and what the calls of spans do, which are too
short to be timed one by one and are counted. Beside it stands the time of steps with and without it, in turns. The
picture is taken by Chromium while two workers train.
"""

import argparse
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import dask
import numpy as np
from _measure import arguments, machine, show, show_machine, write_json
from _training import random_images

import daskconv
from daskconv import timeline
from daskconv.events import Event, WorkerStep, listening
from daskconv.run.watch import Watch

BATCH = 100
# What Chromium needs in a container; nothing that it draws changes.
FLAGS = ["--no-sandbox", "--disable-gpu"]


def parse() -> argparse.Namespace:
    parser = arguments(
        "Measure what collecting for the page costs a step of cifar10_quick, and draw the page."
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--png", type=Path, metavar="FILE", help="a picture of the page, while 2 workers train"
    )
    parser.add_argument(
        "--data", default="random", help="what they train on: cifar10, FILE.npz ... or random images"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they train before")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    return parser.parse_args()


def main() -> None:
    args = parse()
    figures = cost(args.threads, *((1, 10) if args.quick else (6, 80)))
    show("Collecting for the page, a step of cifar10_quick", [figures])
    facts = machine(args.threads) | {"batch": BATCH}
    show_machine(facts)
    write_json(args.json, {"machine": facts, **figures})
    if args.png:
        picture(args)


class Counted:
    """The processor seconds of a watch's own code, on whatever thread it runs."""

    def __init__(self) -> None:
        self.seconds, self.spans, self.steps = 0.0, 0, 0
        self.own = {name: getattr(Watch, name) for name in ("begin", "end", "done")}

    def __enter__(self) -> "Counted":
        for name, method in self.own.items():
            setattr(Watch, name, self.counted(method))
        return self

    def __exit__(self, *_: Any) -> None:
        for name, method in self.own.items():
            setattr(Watch, name, method)

    def counted(self, method: Callable) -> Callable:
        def call(watch: Watch, *args: Any) -> None:
            if method.__name__ == "end":
                self.steps += 1
                self.spans += len(watch._spans or ())
            start = time.thread_time()
            method(watch, *args)
            self.seconds += time.thread_time() - start

        return call


def cost(threads: int, rounds: int, steps: int) -> dict[str, float]:
    """Return milliseconds of a step's processor time, and the share of the collecting code in it, in percent."""
    x, y = random_images(steps * BATCH, (32, 32, 3), 10)
    trainers = {closely: trainer(threads) for closely in (True, False)}
    for closely in trainers:
        run(trainers[closely], x, y, closely)  # compiles
    times: dict[bool, list[float]] = {True: [], False: []}
    with Counted() as counted:
        for number in range(rounds):
            for closely in (True, False) if number % 2 else (False, True):
                counting = counted.seconds, counted.spans, counted.steps
                times[closely].append(run(trainers[closely], x, y, closely) / steps)
                if not closely:
                    counted.seconds, counted.spans, counted.steps = counting
    own = (counted.seconds + counted.spans * a_span()) / counted.steps + 2 * a_stretch()
    step = median(times[False])
    ratios = [on / off for on, off in zip(times[True], times[False], strict=True)]
    return {
        "step, ms": 1e3 * step,
        "collecting, ms": 1e3 * own,
        "share, %": 100 * own / step,
        "spans a step": counted.spans / counted.steps,
        "with / without, median": median(ratios),
        "with / without, least": min(ratios),
        "with / without, most": max(ratios),
    }


def trainer(threads: int) -> daskconv.Trainer:
    return daskconv.Trainer(
        "cifar10_quick", optimizer=daskconv.SGD(0.001), transport="local", threads=threads
    )


def run(trainer: daskconv.Trainer, x: Any, y: Any, closely: bool) -> float:
    """Train an epoch; return its processor seconds. What is told goes where a worker's would: into bytes."""

    def send(event: Event) -> None:
        if isinstance(event, WorkerStep):
            json.dumps(event.asdict())

    start = time.process_time()
    with dask.config.set({"daskconv.dashboard.enabled": closely}), listening(send, Event):
        trainer.fit(x, y, epochs=trainer.position.epoch + 1, batch_size=BATCH, progress=False)
    return time.process_time() - start


def a_span(calls: int = 20_000) -> float:
    """Return the seconds that recording one span takes."""
    with timeline.record():
        return per_call(lambda: timeline.in_layer("layer", "forward", "other", len, ()), calls)


def a_stretch(calls: int = 20_000) -> float:
    """Return the seconds that watching one stretch of a step takes beside its spans."""
    watch = Watch(None, lambda event: None)  # type: ignore[arg-type]
    watch._began, watch._spans = 0.0, None

    def call() -> None:
        with watch.working():
            pass

    return per_call(call, calls)


def per_call(call: Callable[[], Any], calls: int) -> float:
    start = time.thread_time()
    for _ in range(calls):
        call()
    return (time.thread_time() - start) / calls


def picture(args: argparse.Namespace) -> None:
    """Train on 2 workers, and take a picture of their page."""
    from playwright.sync_api import sync_playwright

    from daskconv.launch.page import page_address

    if args.data == "random":
        x, y = random_images(2000, (32, 32, 3), 10)
        validation = x[:500], y[:500]
    else:
        data = daskconv.datasets.load(args.data)
        x, y, validation = data.x_train, data.y_train, (data.x_test[:1000], data.y_test[:1000])
    with daskconv.start(workers=2, threads=1) as client:
        net = daskconv.Trainer("cifar10_quick", optimizer=daskconv.SGD(0.001, momentum=0.9))
        options = {"epochs": 1000, "validation_data": validation, "progress": False}
        training = threading.Thread(target=net.fit, args=(np.asarray(x), np.asarray(y)), kwargs=options)
        training.start()
        address = page_address(client.scheduler_info(), "/daskconv")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=args.chromium, args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 1410})
            page.goto(address)
            page.wait_for_timeout(1e3 * args.seconds)
            page.screenshot(path=args.png)
            browser.close()
        net.stop()
        training.join()


if __name__ == "__main__":
    main()
