"""``daskconv report``, and the folder of a run that ``daskconv train`` writes for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from daskconv.cli.callbacks import beside
from daskconv.cli.group import Command
from daskconv.cli.launcher import refuse_launcher
from daskconv.errors import InputError

_PERFORMANCE = "performance.html"


@click.command(cls=Command, short_help="Draw runs into one HTML file.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(), metavar="RUN [RUN ...]")
@click.option("--out", type=click.Path(), help="The file.  [default: report.html in the run's folder; of several runs, "
              "comparison.html]")  # fmt: skip
def report(runs: tuple[str, ...], out: str | None) -> None:
    """Draw RUN, a folder that train wrote, into one HTML file; several ones beside each other.

    \b
    daskconv report digits-run
    daskconv report small-run large-run --out comparison.html

    The file needs no network and no server. It has loss, accuracy and speed; of runs that were trained with --report or
    with a page also where the time of a step goes, and the plan. What is damaged in a run's metrics.jsonl is left
    out, and named.
    """  # noqa: D301 - click keeps lines after a backspace as they are
    refuse_launcher("report")
    from daskconv.dashboard.metrics import read_run
    from daskconv.dashboard.report import REPORT, write_report

    found = [read_run(path) for path in runs]
    target = out or (str(found[0].path / REPORT) if len(found) == 1 else "comparison.html")
    write_report(found, target)
    for run in found:
        for sentence in run.damage:
            click.echo(f"{run.path}: {sentence}", err=True)
    click.echo(f"wrote {target}")


def run_options(command: Any) -> Any:
    """Give a command the options of a run's folder."""
    options = (
        click.option("--run", type=click.Path(), help="Folder of this run's metrics.jsonl and reports.  [default: "
                     "NAME-run beside --save; without it, none]"),
        click.option("--report", is_flag=True, help="Also write report.html there, plots, plan and machine in it."),
        click.option("--performance-report", is_flag=True, help=f"Also write Dask's own report there, {_PERFORMANCE}."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def recorded(options: dict[str, Any], target: str | None) -> Iterator[None]:
    """Write what is trained while the context is open to the folder of its run; ``target`` is the model's file."""
    folder = options["run"] or (str(_beside(target)) if target else None)
    if folder is None:
        if options["report"] or options["performance_report"]:
            raise InputError(
                "--report and --performance-report write into the run's folder: give --save, or --run."
            )
        yield
        return
    _check(folder)
    from daskconv.dashboard.report import REPORT, recording

    page = Path(folder) / REPORT
    with _performance(Path(folder) / _PERFORMANCE) if options["performance_report"] else nullcontext():
        try:
            with recording(folder, report=options["report"], resumed=bool(options["resume"])) as written:
                yield
        finally:
            if options["report"] and written.begun and page.is_file():
                click.echo(f"wrote {page}")


def _beside(target: str) -> Path:
    return beside(target, "run").with_suffix("")


def _check(folder: str) -> None:
    """Raise InputError where a folder cannot be made or written to."""
    from daskconv.train.files import check_writable

    if Path(folder).exists() and not Path(folder).is_dir():
        raise InputError(f"{folder} is a file: give a folder as --run.")
    check_writable(str(Path(folder) / "metrics.jsonl") if Path(folder).is_dir() else folder)


@contextmanager
def _performance(path: Path) -> Iterator[None]:
    from daskconv.run.select import active_client

    if active_client() is None:
        raise InputError("--performance-report is of Dask's workers: give --workers, or start with mpiexec.")
    from distributed import performance_report

    path.parent.mkdir(parents=True, exist_ok=True)
    with performance_report(filename=str(path), mode="inline"):
        yield
    click.echo(f"wrote {path}")
