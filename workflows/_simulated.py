"""Simulated scaling: what the workflows about machines that nobody here has share."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from _measure import machine, show, show_machine, write_csv, write_json

SHOWN = (
    "net",
    "plan",
    "nodes",
    "batch",
    "ms_a_step",
    "images/s",
    "efficiency_%",
    "exchange_ms",
    "straggler_ms",
)
NOTE = "Simulated, not measured. efficiency: over one node's speed, with the same batch in strong scaling."


def shown(
    title: str, rows: Sequence[dict[str, Any]], notes: Iterable[str] = (), more: Sequence[str] = ()
) -> None:
    """Print the columns of scaling that matter most."""
    some = [{name: row[name] for name in (*SHOWN, *more) if name in row} for row in rows]
    show(f"Simulated: {title}", some, [NOTE, *notes])


def kept(args: Any, name: str, rows: Sequence[dict[str, Any]], **others: Any) -> None:
    """Print the facts of this machine, and write the figures where they were asked for."""
    facts = machine(1)
    show_machine(facts)
    write_json(args.json, {"machine": facts, name: list(rows), **others})
    write_csv(args.csv, rows)


def options(parser: Any) -> None:
    """Add the options of files."""
    parser.add_argument("--csv", type=Path, metavar="FILE")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the speed by nodes")


def draw(plot: Any, path: Path, panels: dict[str, Sequence[dict[str, Any]]], by: str = "plan") -> None:
    """Draw images a second by nodes, a panel for each group of rows, beside what would be linear."""
    figure, axes = plot.subplots(1, len(panels), figsize=(4.4 * len(panels), 3.8), squeeze=False)
    for axis, (title, rows) in zip(axes[0], panels.items(), strict=True):
        for name in dict.fromkeys(row[by] for row in rows):
            some = [row for row in rows if row[by] == name]
            axis.plot([row["nodes"] for row in some], [row["images/s"] for row in some], ".-", label=name)
        first = min(rows, key=lambda row: row["nodes"])
        ends = [first["nodes"], max(row["nodes"] for row in rows)]
        axis.plot(ends, [first["images/s"] * end / ends[0] for end in ends], "k:", label="linear")
        axis.set(title=title, xlabel="nodes", xscale="log", yscale="log")
    axes[0][0].set(ylabel="images a second, simulated")
    axes[0][-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
