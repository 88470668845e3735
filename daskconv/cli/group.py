"""What all commands share: one sentence for what the user can mend, exit codes, and options from a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from daskconv.cli.config import config_option
from daskconv.errors import DaskconvError

EXIT_CODES = {
    "0": "Done.",
    "1": "An error that daskconv did not foresee; its traceback is printed.",
    "2": "Input or options that cannot be used; one sentence says which, and what to do.",
    "128 + N": "Stopped by signal N (130: Ctrl-C, 138: SIGUSR1, 143: SIGTERM); what was trained is saved, and the line "
    "that goes on is printed.",
}
_GRACE = 1.0  # seconds that the rank which speaks gets to do so


class Command(click.Command):
    """A command whose options may stand in a file: ``--config FILE.yaml``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if any(isinstance(parameter, click.Option) for parameter in self.params):
            self.params.append(config_option())


class Commands(click.Group):
    """The group of all commands."""

    command_class = Command

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, context_settings={"help_option_names": ["-h", "--help"]}, **options)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the group's own options."""
        with _one_voice():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that is named."""
        with _one_voice():
            return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the exit codes below the commands."""
        with formatter.section("Exit codes"):
            formatter.write_dl(list(EXIT_CODES.items()))


class _Refusal(click.ClickException):
    exit_code = 2


@contextmanager
def _one_voice() -> Iterator[None]:
    """Say an error in one sentence, and once: every rank of an MPI job reads the same line."""
    from daskconv.run.launcher import launcher_rank, launcher_ranks

    try:
        yield
    except (DaskconvError, click.UsageError) as error:
        # The script's rank speaks; the first where there are too few for one.
        ranks = launcher_ranks()
        if ranks > 1 and launcher_rank() not in (None, 1 if ranks > 2 else 0):
            # This rank's end would end the launcher's job before the one that speaks has spoken.
            time.sleep(_GRACE)
            sys.exit(2)
        if isinstance(error, click.UsageError):
            raise
        raise _Refusal(str(error)) from None
