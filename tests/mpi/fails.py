"""Run under mpiexec: a script that fails in the way its argument names."""

import sys
from dataclasses import dataclass
from typing import Any

from recipes import digits, trainer

import daskconv
from daskconv import Dense, Flatten, Layer


@dataclass(frozen=True)
class Breaks(Layer):
    """Raises on the worker that has a certain image."""

    def forward(self, params: Any, x: Any, context: Any) -> Any:
        if context.epoch == 0 and 7 in context.images:
            raise OSError("the layer's own mistake")
        return x, None

    def backward(self, params: Any, saved: Any, dy: Any, context: Any) -> Any:
        return dy, {}


def main() -> None:
    with daskconv.start():
        x, y, _, _ = digits()
        if sys.argv[1] == "labels":
            trainer().fit(x, y + 1, progress=False)
        if sys.argv[1] == "worker":
            daskconv.Trainer(daskconv.Sequential([Flatten(), Breaks(), Dense(10)]), preprocess="unit").fit(
                x, y
            )
        if sys.argv[1] == "own":
            raise KeyError("the script's own mistake")
        if sys.argv[1] == "exit":
            sys.exit(7)


if __name__ == "__main__":
    main()
