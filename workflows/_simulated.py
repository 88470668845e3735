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
    columns = min(len(panels), 4)
    lines = -(-len(panels) // columns)
    figure, axes = plot.subplots(lines, columns, figsize=(3.6 * columns, 3.2 * lines), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (title, rows) in zip(axes.flat, panels.items(), strict=False):
        for name in dict.fromkeys(row[by] for row in rows):
            some = [row for row in rows if row[by] == name]
            axis.plot([row["nodes"] for row in some], [row["images/s"] for row in some], ".-", label=name)
        first = min(rows, key=lambda row: row["nodes"])
        ends = [first["nodes"], max(row["nodes"] for row in rows)]
        axis.plot(ends, [first["images/s"] * end / ends[0] for end in ends], "k:", label="linear")
        axis.set_title(title, fontsize=9)
        axis.set(xlabel="nodes", xscale="log", yscale="log")
        axis.legend(fontsize=6)
    axes[0][0].set(ylabel="images a second, simulated")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
