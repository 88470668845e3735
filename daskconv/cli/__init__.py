"""The ``daskconv`` command, which is ``dask conv`` too. The same lines run under mpiexec."""

from __future__ import annotations

import warnings
from typing import Any

import click

from daskconv import __version__
from daskconv.cli.bench import bench
from daskconv.cli.doctor import doctor
from daskconv.cli.group import Commands
from daskconv.cli.info import info
from daskconv.cli.plan import plan
from daskconv.cli.prediction import evaluate, predict
from daskconv.cli.report import report
from daskconv.cli.simulation import calibrate, simulate
from daskconv.cli.training import train
from daskconv.cli.tuning import tune


@click.group("conv", cls=Commands)
@click.version_option(__version__, prog_name="daskconv")
def commands() -> None:
    """Train and run convolutional neural networks on CPU clusters, from Dask arrays.

    \b
    daskconv train --data digits --epochs 10 --save digits.safetensors
    daskconv evaluate digits.safetensors digits
    mpiexec -n 4 daskconv train --data digits --epochs 10

    Each command's --help has examples. Dask's configuration daskconv.* holds for all of them.
    """  # noqa: D301 - click keeps lines after a backspace as they are


for command in (train, evaluate, predict, tune, plan, calibrate, simulate, bench, report, info, doctor):
    commands.add_command(command)


def _one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    return f"Warning: {message}\n"


def main() -> None:
    """Run the command."""
    warnings.formatwarning = _one_line
    commands(prog_name="daskconv")
