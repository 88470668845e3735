"""Run under mpiexec -n 4, without Dask: random swaps, exchanges side by side, failing ranks; a JSON line a rank."""

import json
import sys
import time
from pathlib import Path

import numpy as np

from daskconv.run.messages import Messages

sys.path.insert(0, str(Path(__file__).parents[1]))

from run.swaps import WAYS, failing, random_swaps, side_by_side


def waits_asleep(comm):
    """Return the processor's seconds while a message is half a second late."""
    peer, array = comm.rank ^ 1, np.zeros(10)
    with Messages(comm, 30) as messages:
        messages.swap([(peer, 0, array)], [(peer, 0, array.copy())])
        if comm.rank % 2:
            time.sleep(0.5)
        spent = time.process_time()
        messages.swap([(peer, 0, array)], [(peer, 0, array.copy())])
        return time.process_time() - spent


def main():
    from mpi4py import MPI

    comm = MPI.COMM_WORLD.Dup()
    row = {"rank": comm.rank}
    with Messages(comm, 30) as messages:
        random_swaps(comm, messages)
        side_by_side(comm, messages)
    row["failures"] = {how: failing(comm, how, Messages(comm, 30)) for how in WAYS}
    with Messages(comm, 30) as messages:
        random_swaps(comm, messages)
    row["waiting"] = waits_asleep(comm)
    # One rank prints: the launcher may mix what several say.
    for said in comm.gather(row) or ():
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
