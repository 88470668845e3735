"""The ``daskconv`` command: train, evaluate, predict, tune, info. The same lines run under mpiexec."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import click

from daskconv import __version__
from daskconv.cli.prediction import evaluate, predict
from daskconv.cli.training import train
from daskconv.cli.tuning import info, tune
from daskconv.errors import DaskconvError

_GRACE = 1.0  # seconds that the rank which speaks gets to do so


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="daskconv")
def main_group() -> None:
    """Train and run convolutional neural networks on CPU clusters, from Dask arrays."""


for command in (train, evaluate, predict, tune, info):
    main_group.add_command(command)


def _one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    return f"Warning: {message}\n"


def main() -> None:
    """Run the command; one sentence and exit code 2 for what the user can mend."""
    from daskconv.run.launcher import launcher_rank, launcher_ranks

    # Every rank reads the same line: one of them complains, the first where there are too few for a script's rank.
    ranks = launcher_ranks()
    warnings.formatwarning = _one_line
    silent = ranks > 1 and launcher_rank() not in (None, 1 if ranks > 2 else 0)
    if silent:
        click.exceptions.UsageError.show = lambda self, file=None: None  # type: ignore[method-assign]
    try:
        main_group(prog_name="daskconv")
    except DaskconvError as error:
        if silent:
            # Its own end would end the launcher's job before the rank that speaks has spoken.
            time.sleep(_GRACE)
        else:
            print(f"Error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
