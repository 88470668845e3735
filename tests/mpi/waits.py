"""Run under mpiexec: the script fails while a worker waits in MPI for a message that never comes."""

import time

import numpy as np

import daskconv


def wait_for_ever() -> None:
    from mpi4py import MPI

    MPI.COMM_WORLD.Recv(np.zeros(1), source=0, tag=77)


def main() -> None:
    with daskconv.start() as client:
        future = client.submit(wait_for_ever, pure=False)
        time.sleep(1)
        raise ValueError(f"the script failed while {future.key[:8]} waits")


if __name__ == "__main__":
    main()
