"""Which method a convolution pass uses: a rule by shape, never a measurement in the middle of a run."""

from __future__ import annotations

from collections.abc import Mapping

from daskconv.errors import InputError
from daskconv.geometry import Window

METHODS = ("direct", "lowering", "pipelined", "implicit", "fft")
PASSES = ("forward", "input_grad", "weight_grad")


def check_method(method: str) -> str:
    """Return the method, or raise InputError that names the known ones."""
    if method not in (*METHODS, "auto"):
        raise InputError(f"method is {method!r}: choose one of auto, {', '.join(METHODS)}.")
    return method


def choose(method: str, window: Window, c: int, k: int) -> str:
    """Return the method of a pass with c input and k output channels; "auto" becomes a real one.

    A product whose group has only a few channels to reduce or to write leaves most of a vector register
    empty, and the lowered copy costs more than it saves: there the simple loops win.
    """
    if check_method(method) != "auto":
        return method
    narrow = min(c, k) // window.groups < 4 and window.groups > 1
    if narrow:
        return "direct"
    # A 1x1 kernel has nothing to lower, and plain products of BLAS are faster there (workflows/bench_layers.py).
    return "lowering" if window.taps == 1 else "implicit"


def choose_all(method: str, window: Window, c: int, k: int) -> Mapping[str, str]:
    """Return the method of each of the three passes."""
    return {name: choose(method, window, c, k) for name in PASSES}
