"""Report: one HTML file about a run, or about several beside each other, that needs no network and no server."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

from daskconv.dashboard.metrics import MetricsFile, Run, read_run
from daskconv.errors import InputError
from daskconv.events import Event, RunEnded, listening

REPORT = "report.html"
_CUT_OFF = "no end is written: it was killed, or still runs"


@contextmanager
def recording(
    folder: str | PathLike[str], *, report: bool = False, resumed: bool = False
) -> Iterator[MetricsFile]:
    """Write what is trained while the context is open to ``metrics.jsonl`` of a folder, and ``report.html`` at its end.

    Parameters
    ----------
    folder : path
        Made when training begins; the metrics of another run in it are kept, as ``metrics-1.jsonl``.
    report : bool
        Also collect where the time of steps goes, and draw the report: however training ends.
    resumed : bool
        Go on in the file that is there.

    Examples
    --------
    >>> import daskconv, tempfile
    >>> digits = daskconv.datasets.load("digits")
    >>> with tempfile.TemporaryDirectory() as folder, daskconv.recording(folder):
    ...     trainer = daskconv.Trainer("lenet", transport="local")
    ...     history = trainer.fit(digits.x_train, digits.y_train, progress=False)
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['metrics.jsonl']
    """
    import dask

    file = MetricsFile(folder, resumed)
    try:
        with listening(file, Event), dask.config.set({"daskconv.dashboard.enabled": True} if report else {}):
            yield file
    finally:
        file.close()
        if report and file.begun:
            _draw(Path(folder))


def _draw(folder: Path) -> None:
    """Write the report; that it cannot be written must not hide how training ended."""
    try:
        write_report([read_run(folder)], folder / REPORT)
    except InputError as error:
        warnings.warn(f"There is no report of this run: {error}", RuntimeWarning, stacklevel=4)


def write_report(runs: Sequence[Run], path: str | PathLike[str]) -> None:
    """Draw a run, or several beside each other, into one HTML file.

    Parameters
    ----------
    runs : sequence of Run
        As :func:`read_run` returns them.
    path : path
        The file, which is replaced.
    """
    models, body = (_one(runs[0]) if len(runs) == 1 else _several(runs)) if runs else ({}, "")
    title = f"daskconv: {', '.join(run.name for run in runs)}"
    text = _page(title, models, body)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}): give another file.") from None


def _one(run: Run) -> tuple[dict[str, Any], str]:
    """Return the figures of a run, and the HTML around them."""
    from daskconv.dashboard.figures import FIGURES, ROWS

    if run.record.ended is None:
        run.record.ended = RunEnded(_CUT_OFF)
    damage, models = list(run.damage), dict[str, Any]()
    for name in _drawn(run):
        figure = FIGURES[name]()
        try:
            figure.update(run.record)
        except Exception as error:  # a damaged event has as many forms as there are bytes
            damage.append(f"The figure {name} cannot be drawn ({type(error).__name__}).")
            continue
        models[name] = figure.root
    rows = "".join(_row(names, models) for names in ROWS)
    note = (
        ""
        if run.record.workers
        else _note("Where the time of steps goes was not collected: train with --report.")
    )
    return models, _damage(damage) + rows + note + _about(run)


def _drawn(run: Run) -> list[str]:
    """Return the figures that there is something to show of."""
    from daskconv.dashboard.figures import FIGURES

    record = run.record
    there = {
        "scene": record.scene is not None,
        "plan": record.began is not None and bool(record.began.layers),
        "accuracy": any(name != "loss" for name in record.training.names),
    }
    there |= dict.fromkeys(("layers", "timeline", "stragglers", "memory"), bool(record.workers))
    return [name for name in FIGURES if there.get(name, True)]


def _several(runs: Sequence[Run]) -> tuple[dict[str, Any], str]:
    """Return plots with a line a run, and the HTML around them."""
    from daskconv.dashboard.figures.compare import compared, summary

    models = compared(runs)
    damage = [f"{run.path}: {sentence}" for run in runs for sentence in run.damage]
    names = list(models)
    rows = "".join(_row(names[at : at + 2], models) for at in range(0, len(names), 2))
    abouts = "".join(_about(run, run.name) for run in runs)
    return models, _damage(damage) + _table(summary(runs)) + rows + abouts


def _row(names: Sequence[str], models: dict[str, Any]) -> str:
    cells = "".join(f"<div class='cell'>{{{name}}}</div>" for name in names if name in models)
    return f"<div class='row'>{cells}</div>" if cells else ""


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return f"<table><thead><tr>{head}</tr></thead>{''.join(f'<tr>{row}</tr>' for row in rest)}</table>"


def _about(run: Run, title: str = "") -> str:
    began = run.record.began
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.record.started)) if began else ""
    rows = {"folder": str(run.path), "begun": when, **run.about}
    cells = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in rows.items() if v)
    return f"<h2>{escape(title) or 'Run and machine'}</h2><table>{cells}</table>"


def _damage(sentences: Sequence[str]) -> str:
    return "".join(_note(sentence, "damage") for sentence in sentences)


def _note(sentence: str, kind: str = "note") -> str:
    return f"<p class='{kind}'>{escape(sentence)}</p>"


_STYLE = """
body { font-family: Helvetica, Arial, sans-serif; color: #334155; margin: 16px 24px 48px; }
h1 { font-size: 20px; } h2 { font-size: 15px; margin-top: 28px; }
.row { display: flex; flex-wrap: wrap; gap: 12px; margin-bottom: 12px; }
.cell { flex: 1 1 380px; min-width: 0; }
table { border-collapse: collapse; font-size: 12px; margin: 8px 0 16px; }
td { padding: 4px 14px 4px 0; border-bottom: 1px solid #E2E8F0; vertical-align: top; overflow-wrap: anywhere; }
thead td { color: #94A3B8; }
.note { color: #94A3B8; font-size: 13px; } .damage { color: #D55E00; font-size: 13px; }
"""


def _page(title: str, models: dict[str, Any], body: str) -> str:
    """Return the whole document, Bokeh's own code in it; ``body`` has the places of the models in braces."""
    from bokeh.embed import components
    from bokeh.resources import Resources

    script, places = components(models) if models else ("", {})
    code = Resources(mode="inline", components=["bokeh", "bokeh-widgets", "bokeh-tables"]).render()
    for name, place in places.items():
        body = body.replace(f"<div class='cell'>{{{name}}}</div>", f"<div class='cell'>{place}</div>")
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style>{code}</head>"
        f"<body><h1>{escape(title)}</h1>{body}{script}</body></html>\n"
    )
