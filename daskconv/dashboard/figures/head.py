"""Head: what runs, how far it is, and the newest figures, in words."""

from __future__ import annotations

from html import escape

from bokeh.models.widgets import Div

from daskconv.dashboard.figures.style import BLUE, EMPTY, FAINT, FONT, GREEN, INK, RED
from daskconv.dashboard.record import Record

_WAITING = "Nothing has been trained yet: figures come as soon as a run begins."


class Head:
    """A line about the run, and cards with its newest figures."""

    def __init__(self) -> None:
        wide = ":host > * { width: 100%; }"
        self.root = Div(name="head", sizing_mode="stretch_width", margin=(8, 12, 4, 12), stylesheets=[wide])
        self.root.text = _page(_WAITING, [], 0.0, EMPTY)

    def update(self, record: Record) -> None:
        """Say what the record holds now."""
        began, newest, scene = record.began, record.newest, record.scene
        if began is None and scene is None:
            return
        cards, share = [], 0.0
        if began is not None:
            of = f"{began.workers} worker{_s(began.workers)} × {began.threads} thread{_s(began.threads)}"
            line = f"<b>{escape(began.network)}</b> · {of} · "
            line += f"transport {escape(began.transport)} · plan {escape(began.plan)}"
            if newest is not None:
                done, total = newest.epoch * newest.steps + newest.step + 1, began.epochs * newest.steps
                share = done / max(total, 1)
                cards += [
                    ("epoch", f"{newest.epoch + 1:,} of {began.epochs:,}"),
                    ("step", f"{done:,} of {total:,}"),
                ]
                cards += [(name.replace("_", " "), f"{value:.4g}") for name, value in newest.figures.items()][
                    :3
                ]
                cards += _pace(record, done, total)
        elif scene is not None:
            total = 1
            for count in scene.blocks:
                total *= count
            share = len(scene.done) / total
            line = f"<b>{escape(scene.name)}</b>"
            cards += [("chunks done", f"{len(scene.done):,} of {total:,}")]
        color, state = _state(record)
        self.root.text = _page(
            f"{line} · <span style='color:{color}'>{escape(state)}</span>", cards, share, color
        )


def _pace(record: Record, done: int, total: int) -> list[tuple[str, str]]:
    cards = []
    if record.speed.points:
        cards.append(("images/s", f"{record.speed.points[-1].figures['total']:,.0f}"))
    assert record.newest is not None
    seconds = record.newest.time - record.started
    cards.append(("time", _clock(seconds)))
    if done < total and record.ended is None and done:
        cards.append(("left, about", _clock(seconds / done * (total - done))))
    return cards


def _state(record: Record) -> tuple[str, str]:
    if record.ended is None:
        return BLUE, "running"
    return (GREEN, "done") if record.ended.how == "done" else (RED, record.ended.how)


def _clock(seconds: float) -> str:
    """Return a time as people say it.

    Examples
    --------
    >>> _clock(7.4), _clock(75), _clock(3700)
    ('7 s', '1 min 15 s', '1 h 1 min')
    """
    whole = round(max(seconds, 0))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _page(line: str, cards: list[tuple[str, str]], share: float, color: str) -> str:
    """Return HTML; all text in it is escaped already or the library's own."""
    boxes = "".join(
        f"<div style='min-width:84px'><div style='color:{FAINT};font-size:11px'>{escape(name)}</div>"
        f"<div style='font-size:19px;font-weight:600'>{escape(value)}</div></div>"
        for name, value in cards
    )
    bar = (
        f"<div style='background:{EMPTY};border-radius:3px;height:6px;margin-top:8px'>"
        f"<div style='background:{color};border-radius:3px;height:6px;width:{100 * min(share, 1):.1f}%'></div></div>"
    )
    return (
        f"<div style='font-family:{FONT};color:{INK};width:100%'><div style='font-size:14px'>{line}</div>"
        f"<div style='display:flex;flex-wrap:wrap;gap:8px 28px;margin-top:8px'>{boxes}</div>{bar}</div>"
    )
