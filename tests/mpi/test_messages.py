"""Messages between ranks, under a real mpiexec: what is sent comes, failures are everybody's, waiting is sleeping."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("messages.py")


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
    assert job.stderr == ""
    found = [json.loads(line) for line in job.stdout.splitlines()]
    assert sorted(row["rank"] for row in found) == [0, 1, 2, 3]
    return found


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("alone", r"Worker 2 of 4 failed: RuntimeError: rank 2 gave up \(swaps.py, line \d+\)"),
        # Either may hear of the other's before it fails itself.
        ("two", r"Worker ([12]) of 4 failed: RuntimeError: rank \1 gave up \(swaps.py, line \d+\)"),
        ("late", r"Worker 2 of 4 failed: RuntimeError: rank 2 gave up \(swaps.py, line \d+\)"),
        ("in an exchange", r"Worker 2 of 4 failed: ValueError: no sum today \(swaps.py, line \d+\)"),
    ],
)
def test_one_ranks_failure_ends_all_with_its_sentence_and_leaves_nothing_behind(rows, how, sentence):
    """The script swaps again afterwards, on the same communicator and with the same tags."""
    (said,) = {row["failures"][how] for row in rows}
    assert re.fullmatch(sentence, said)


def test_waiting_for_a_late_message_is_sleeping(rows):
    early = [row["waiting"] for row in rows if row["rank"] % 2 == 0]
    assert max(early) < 0.2, "half a second of spinning would take half a second"
