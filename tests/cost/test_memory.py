"""Predicted memory against what a process really grows by."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import daskconv
from daskconv import plans
from daskconv.cost.machine import load_machine
from daskconv.cost.price import price
from daskconv.cost.trace import Case

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import daskconv

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

def train(net, images):
    x, y = np.zeros((images, 32, 32, 3), np.uint8), np.zeros(images, np.int64)
    trainer = daskconv.Trainer(net, plan=daskconv.plans.data(1), transport="local", threads=1)
    return trainer.fit, (x, y), {"batch_size": images, "epochs": 1, "progress": False}

fit, data, options = train('resnet20', 8)
fit(*data, **options)  # compiles, and leaves little memory to be used again
fit, data, options = train(sys.argv[1], int(sys.argv[2]))
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = status("VmRSS")
fit(*data, **options)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux says what a process's peak was")
@pytest.mark.parametrize(
    ("net", "batch"), [("resnet20", 256), pytest.param("vgg11", 128, marks=pytest.mark.slow)]
)
def test_a_step_grows_a_process_by_what_was_predicted(net: str, batch: int) -> None:
    command = [sys.executable, "-c", SCRIPT, net, str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    one = replace(load_machine("environment_a"), cores=1)
    cost = price(Case(daskconv.zoo.build(net, 10), (32, 32, 3), batch), plans.data(1), one, 1, "local")
    assert cost.memory == pytest.approx(int(done.stdout), rel=0.15)
