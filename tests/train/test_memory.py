"""Memory of a step: predicted from shapes, and refused where it cannot fit, before anything runs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import daskconv
from daskconv import plans
from daskconv.scene import memory
from reference import refuse

MEASURED = """
import sys, numpy, daskconv
from daskconv.train.memory import predicted

def kilobytes(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])

def trainer(net):
    return daskconv.Trainer(net, transport="local", threads=2, optimizer=daskconv.SGD(1e-4, momentum=0.9))

net, shape, batch = sys.argv[1], eval(sys.argv[2]), int(sys.argv[3])
trainer("lenet").fit(numpy.zeros((8, 12, 12, 1)), numpy.arange(8), batch_size=8, progress=False)
x = numpy.zeros((2 * batch, *shape), "uint8")
before, trained = kilobytes("VmRSS"), trainer(net)
trained.fit(x, numpy.arange(2 * batch) % 10, batch_size=batch, progress=False)
grew = 1024 * (kilobytes("VmHWM") - before)
print(predicted(trained.program(shape, batch), trained._state, 1, 2, local=True) / grew)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "shape", "batch"), [("vgg11", (32, 32, 3), 128), ("alexnet", (224, 224, 3), 32)]
)
def test_what_is_predicted_is_what_it_takes(net, shape, batch):
    out = subprocess.run(
        [sys.executable, "-c", MEASURED, net, str(shape), str(batch)],
        capture_output=True,
        text=True,
        timeout=250,
        cwd=Path(__file__).parents[2],
    )
    assert out.returncode == 0, out.stderr
    assert 0.85 < float(out.stdout.split()[-1]) < 1.2


@pytest.mark.parametrize("plan", ["data", plans.hybrid(4)])
def test_a_step_that_cannot_fit_is_refused_with_what_to_do(monkeypatch, plan):
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 10**9)
    trainer = daskconv.Trainer("alexnet", transport="local", preprocess="unit", plan=plan)
    x, y = np.zeros((64, 224, 224, 3), "uint8"), np.arange(64) % 10
    sentence = refuse(
        "A step of alexnet with batch_size 64 (16 images a shard)", trainer.fit, x, y, batch_size=64
    )
    assert "this process has 300 MB" in sentence and "smaller batch_size" in sentence


def test_a_small_step_fits_the_same_memory(monkeypatch):
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", memory.PROCESS * 3)
    data = daskconv.datasets.load("digits")
    trainer = daskconv.Trainer("lenet", transport="local", preprocess="unit")
    trainer.fit(data.x_train[:100], data.y_train[:100], batch_size=50, progress=False)
