"""The tuning table: which method was fastest for a pass, and on what processor and kernels that holds."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from math import isfinite, log2
from pathlib import Path
from typing import Any

import numpy as np

from daskconv.errors import InputError
from daskconv.geometry import Window
from daskconv.graph.choose import PASSES, PRECISIONS, TUNABLE, ConvShape
from daskconv.kernels.jit import importable

_DTYPES = ("float32", "float64")

_Pass = tuple[ConvShape, str, str, str]
"""(shape, pass, dtype, precision)."""


@dataclass(frozen=True)
class Case:
    """What a measurement holds for: one pass of a convolution over a block of about ``images`` images.

    Attributes
    ----------
    shape : ConvShape
    pass_ : {"forward", "input_grad", "weight_grad"}
    dtype : {"float32", "float64"}
    images : int
        A power of two.
    precision : {"fast", "exact"}
        What the method was picked among.
    """

    shape: ConvShape
    pass_: str
    dtype: str
    images: int
    precision: str


@dataclass(frozen=True)
class Table:
    """The fastest method of each case that was measured; plain data that compares and pickles.

    Attributes
    ----------
    rows : tuple of (Case, method)
    gains : tuple of (Case, float)
        How many times as fast as plain lowering it was. They choose nothing: the hash knows nothing of them.

    Examples
    --------
    >>> shape = ConvShape(Window.of(3, (8, 8)), (8, 8), 4, 16)
    >>> table = Table.of({Case(shape, "forward", "float32", 8, "fast"): "lowering"})
    >>> table.at("float32", 10).method(shape, "forward", "fast"), table.hash == Table.of(table.methods).hash
    ('lowering', True)
    """

    rows: tuple[tuple[Case, str], ...] = ()
    gains: tuple[tuple[Case, float], ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, methods: Mapping[Case, str], gains: Mapping[Case, float] | None = None) -> Table:
        """Return the table of mappings; the order in which they were filled does not show."""
        rows = tuple(sorted(methods.items(), key=lambda row: json.dumps(_plain_row(*row))))
        return cls(rows, tuple((case, gains[case]) for case, _ in rows if case in gains) if gains else ())

    @property
    def methods(self) -> dict[Case, str]:
        """The method of each case."""
        return dict(self.rows)

    @cached_property
    def hash(self) -> str:
        """Twelve digits that stand for all rows, "" without any."""
        return _digest([_plain_row(*row) for row in self.rows])[:12] if self.rows else ""

    def merged(self, newer: Table) -> Table:
        """Return the rows of both tables; the newer one's hold where both know a case."""
        known = {case: gain for case, gain in self.gains if case not in newer.methods}
        return Table.of(self.methods | newer.methods, known | dict(newer.gains))

    def at(self, dtype: str, images: int) -> Tuned:
        """Return the table as blocks of some dtype and number of images see it."""
        return Tuned(self, dtype, images)

    def to_plain(self) -> list[dict[str, Any]]:
        """Return the rows as dicts for JSON."""
        gains = dict(self.gains)
        return [
            _plain_row(case, method) | ({"gain": gains[case]} if case in gains else {})
            for case, method in self.rows
        ]

    @classmethod
    def from_plain(cls, plain: Any) -> Table:
        """Return the table of rows from JSON; raise InputError, KeyError or TypeError where they are none."""
        rows = [(_row_of(row), row.get("gain")) for row in plain]
        gains = {case: _gain(gain) for (case, _), gain in rows if gain is not None}
        return cls.of(dict(row for row, _ in rows), gains)

    @cached_property
    def _by_images(self) -> dict[_Pass, dict[int, Case]]:
        index: dict[_Pass, dict[int, Case]] = {}
        for case, _ in self.rows:
            key = (case.shape, case.pass_, case.dtype, case.precision)
            index.setdefault(key, {})[case.images] = case
        return index

    @cached_property
    def _known(self) -> dict[Case, tuple[str, float | None]]:
        gains = dict(self.gains)
        return {case: (method, gains.get(case)) for case, method in self.rows}


@dataclass(frozen=True)
class Tuned:
    """A table as blocks of one dtype and number of images see it."""

    table: Table
    dtype: str
    images: int

    def method(self, shape: ConvShape, pass_: str, precision: str) -> str | None:
        """Return the method measured at the nearest number of images, None where there is none."""
        case = self._nearest(shape, pass_, precision)
        return self.table._known[case][0] if case else None

    def gain(self, shape: ConvShape, pass_: str, method: str) -> float | None:
        """Return how many times as fast as lowering a method was, None where it is not the one that was chosen."""
        cases = [self._nearest(shape, pass_, precision) for precision in PRECISIONS]
        known = [self.table._known[case] for case in cases if case]
        return next((gain for chosen, gain in known if chosen == method), None)

    def _nearest(self, shape: ConvShape, pass_: str, precision: str) -> Case | None:
        found = self.table._by_images.get((shape, pass_, self.dtype, precision))
        if not found:
            return None
        here = log2(about(self.images))
        return found[min(found, key=lambda images: (abs(log2(images) - here), images))]


def about(images: int) -> int:
    """Return the power of two that stands for a number of images.

    Examples
    --------
    >>> [about(images) for images in (1, 3, 9, 100)]
    [1, 4, 8, 128]
    """
    return 1 << round(log2(max(images, 1)))


@cache
def made_for() -> dict[str, str]:
    """Return what a measurement holds for: the kernels' sources, the processor, and the versions that compile."""
    facts = {"kernels": _sources(), "processor": processor_name(), "numpy": np.__version__, "numba": "off"}
    if importable():
        import llvmlite.binding as llvm
        import numba
        from llvmlite import __version__ as llvmlite

        facts |= {"numba": numba.__version__, "llvmlite": llvmlite}
        facts |= {"target": llvm.get_host_cpu_name(), "features": llvm.get_host_cpu_features().flatten()}
    return facts


@cache
def table_name() -> str:
    """Return the name of the file in which this machine's table is kept."""
    return f"methods-{_digest(made_for())[:16]}.json"


def processor_name() -> str:
    """Return the name that the processor gives itself."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"


def _sources() -> str:
    """Return a hash of everything between a method's name and its arithmetic."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in [*sorted((package / "kernels").glob("*.py")), package / "graph" / "conv.py"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _plain_row(case: Case, method: str) -> dict[str, Any]:
    return asdict(case) | {"method": method}


def _row_of(plain: Mapping[str, Any]) -> tuple[Case, str]:
    """Return a row of a file, which anybody may have edited."""
    shape = plain["shape"]
    window = Window(**{name: _tuples(value) for name, value in shape["window"].items()})
    case = Case(
        ConvShape(window, _tuples(shape["image"]), shape["c"], shape["k"]),
        *(plain[name] for name in ("pass_", "dtype", "images", "precision")),
    )
    known = (
        (case.pass_, PASSES),
        (case.dtype, _DTYPES),
        (case.precision, PRECISIONS),
        (plain["method"], TUNABLE),
    )
    wrong = [value for value, values in known if value not in values]
    if wrong or type(case.images) is not int or case.images != about(case.images):
        raise InputError(f"A row holds {wrong or case.images!r}, which is nothing that was measured.")
    hash(case)
    return case, plain["method"]


def _gain(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (isfinite(value) and value > 0):
        raise InputError(f"A row holds {value!r}, which is no gain that was measured.")
    return float(value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value
