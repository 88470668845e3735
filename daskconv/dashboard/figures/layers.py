"""Layers: where the time of a step goes, a layer at a time."""

from __future__ import annotations

from collections import defaultdict

from bokeh.models import FactorRange

from daskconv.dashboard.figures.style import STAGES, add_hover, add_legend, plot, source
from daskconv.dashboard.record import Record

# More bars than this nobody reads: the shortest ones become one.
_MOST = 22


class Layers:
    """Stacked bars of a step's time, the mean of all workers."""

    def __init__(self) -> None:
        more = ("layer", "method", "total", "share")
        self.source = source("layers", *more, *STAGES, *(f"{stage}_end" for stage in STAGES))
        self.plot = made = plot(
            "Where a step's time goes",
            x_axis_label="ms of a step",
            y_range=FactorRange(factors=[]),
            tools="reset,save",
        )
        made.ygrid.grid_line_color = None
        made.x_range.start = 0
        bars, before = [], None
        for stage, (label, color) in STAGES.items():
            left = f"{before}_end" if before else 0
            bar = made.hbar(
                "layer",
                left=left,
                right=f"{stage}_end",
                height=0.75,
                source=self.source,
                fill_color=color,
                line_color=None,
            )
            numbers = [
                ("layer", "@layer"),
                (label, f"@{stage}{{0.00}} ms"),
                ("in all", "@total{0.00} ms, @share{0.0} %"),
                ("method, times as fast as lowering", "@method"),
            ]
            add_hover(made, numbers, [bar])
            bars.append((label, [bar]))
            before = stage
        add_legend(made, bars)
        self.root = made

    def update(self, record: Record) -> None:
        """Draw what the record holds now."""
        events = [event for event in record.steps_seen.values() if event.layers]
        sums: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(STAGES, 0.0))
        for event in events:
            for layer, _, stage, seconds in event.layers:
                sums[layer or stage][stage] += 1e3 * seconds / len(events)
        rows = _fewest(_in_order(sums, record))
        methods = _methods(record)
        whole = sum(sum(times.values()) for _, times in rows) or 1.0
        totals = [sum(times.values()) for _, times in rows]
        data: dict[str, list] = {
            "layer": [name for name, _ in rows],
            "method": [methods.get(name, "") for name, _ in rows],
            "total": totals,
            "share": [100 * total / whole for total in totals],
        }
        reached = [0.0] * len(rows)
        for stage in STAGES:
            data[stage] = [times[stage] for _, times in rows]
            reached = [a + b for a, b in zip(reached, data[stage], strict=True)]
            data[f"{stage}_end"] = reached
        factors = data["layer"][::-1]
        if self.plot.y_range.factors != factors:
            self.plot.y_range.factors = factors
        self.source.data = data
        if events:
            step = 1e3 * sum(sum(row[3] for row in event.layers) for event in events) / len(events)
            self.plot.title.text = f"Where the {step:,.1f} ms of a step go"


def _in_order(sums: dict[str, dict[str, float]], record: Record) -> list[tuple[str, dict[str, float]]]:
    """Return the layers as they lie in the network, what comes before and after them, and what is none at the end."""
    layers = [row["layer"] for row in record.began.layers] if record.began else []
    order = ["data", *(name for name in layers if name not in ("loss", "gradients")), "loss", "update"]
    places = {name: at for at, name in enumerate(order)}
    return sorted(
        sums.items(), key=lambda item: (places.get(item[0], len(order) + (item[0] == "idle")), item[0])
    )


def _fewest(rows: list[tuple[str, dict[str, float]]]) -> list[tuple[str, dict[str, float]]]:
    """Return the rows that take longest, in their order, and one of all others."""
    if len(rows) <= _MOST:
        return rows
    longest = sorted(rows, key=lambda row: -sum(row[1].values()))[: _MOST - 1]
    kept = {name for name, _ in longest}
    rest = [times for name, times in rows if name not in kept]
    other = {stage: sum(times[stage] for times in rest) for stage in STAGES}
    return [*(row for row in rows if row[0] in kept), (f"{len(rest)} others", other)]


def _methods(record: Record) -> dict[str, str]:
    rows = record.began.layers if record.began else ()
    return {row["layer"]: in_words(row.get("methods", {}), row.get("gains", {})) for row in rows}


def in_words(methods: dict[str, str], gains: dict[str, float] | None = None) -> str:
    """Return the method of all passes, or that of each where they differ, and how many times as fast as lowering.

    Examples
    --------
    >>> in_words({"forward": "fft", "weight_grad": "fft"}), in_words({"forward": "fft", "weight_grad": "direct"})
    ('fft', 'fft / direct')
    >>> in_words({"forward": "fft", "weight_grad": "fft"}, {"forward": 2.03})
    'fft 2.0x / fft'
    """
    words = [
        f"{method} {gains[pass_]:.1f}x" if gains and pass_ in gains else method
        for pass_, method in methods.items()
    ]
    return " / ".join(dict.fromkeys(words) if len(set(words)) < 2 else words)
