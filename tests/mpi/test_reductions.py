"""Sums over shards among ranks, under a real mpiexec: the bits of one process, the messages that are predicted."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import daskconv
from daskconv.plan import buckets

SCRIPT = Path(__file__).with_name("reductions.py")


@pytest.fixture(scope="module")
def rows(mpiexec):
    job = subprocess.run(
        [mpiexec, "-n", "4", sys.executable, str(SCRIPT)],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert job.returncode == 0, job.stderr
    found = [json.loads(line) for line in job.stdout.splitlines()]
    return {row["rank"]: row["rows"] for row in found}


def test_every_rank_has_the_bits_of_one_process_and_sends_what_is_predicted(rows):
    """The script compares, for ten layouts, small messages whole and cut, batch statistics, two threads."""
    assert {rank: len(found) for rank, found in rows.items()} == {0: 40, 1: 36, 2: 32, 3: 24}
    assert {height for _, height in rows[0]} == {0, 1, 2}
    assert min(count for count, _ in rows[0]) > 5


def across(program, hosts):
    sent = buckets.traffic(program, hosts)
    return sum(nbytes for (a, b), (_, nbytes) in sent.items() if hosts[a] != hosts[b])


def test_fewer_bytes_pass_between_hosts_where_each_adds_up_first():
    program = daskconv.Trainer(daskconv.zoo.cifar10_quick()).program((32, 32, 3), 100)
    together = across(program, [0, 0, 1, 1])
    gradients = program.elements * 4
    assert 2 * gradients <= together < 2.01 * gradients
    # Without hosts of equal size every rank sends to every other one.
    apart = buckets.traffic(program, [0, 1, 2, 3])
    assert sum(nbytes for (a, b), (_, nbytes) in apart.items() if a // 2 != b // 2) > 1.9 * together


@pytest.mark.parametrize("net", ["cifar10_quick", "resnet20", "vgg11"])
def test_buckets_cut_the_vector_from_its_end(net):
    program = daskconv.Trainer(daskconv.zoo.build(net, 10)).program((64, 64, 3), 100)
    found = buckets.buckets(program)
    assert found[0][1] == program.elements and found[-1][0] == 0
    assert all(later[1] == earlier[0] for earlier, later in pairwise(found))
    sizes = [4 * (stop - start) for start, stop in found]
    assert max(sizes) < buckets.SMALLEST + buckets.LARGEST
    assert min(sizes[:-1], default=buckets.SMALLEST) >= buckets.SMALLEST
