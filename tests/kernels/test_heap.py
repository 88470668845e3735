"""What the process keeps of the memory that it frees, and gives back in the end."""

import os
import subprocess
import sys

import pytest

STEPS = """
import resource

import numpy as np

from daskconv.kernels import heap

COUNT, SIZE = 400, 64 << 10


def faults() -> int:
    # As much as a step takes, in arrays that the C library gives back as soon as they are the last ones of its heap.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(SIZE, np.uint8) for _ in range(COUNT)]
    del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


faults()
print(min(faults() for _ in range(3)))
heap.keep()
faults()
kept = resident()
print(max(faults() for _ in range(3)))
heap.release()
print(kept - resident())
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the heap of other C libraries is left alone"
)
def test_memory_that_a_step_frees_is_there_for_the_next_one() -> None:
    """Dask tells its workers' C library to trim the heap early, as here; pages come anew unless they are kept."""
    environ = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    run = subprocess.run(
        [sys.executable, "-c", STEPS], env=environ, capture_output=True, text=True, check=True
    )
    trimmed, kept, released = map(int, run.stdout.split())
    if trimmed < 1000:
        pytest.skip("this C library does not trim its heap")
    assert kept < trimmed / 100
    assert released > 400 * (64 << 10) / 2
