"""Run under mpiexec: a script that fails in the way its argument names."""

import sys

from recipes import digits, trainer

import daskconv


def main() -> None:
    with daskconv.start():
        x, y, _, _ = digits()
        if sys.argv[1] == "labels":
            trainer().fit(x, y + 1, progress=False)
        if sys.argv[1] == "own":
            raise KeyError("the script's own mistake")
        if sys.argv[1] == "exit":
            sys.exit(7)


if __name__ == "__main__":
    main()
