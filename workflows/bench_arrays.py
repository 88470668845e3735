"""Whole arrays beside what their users run today: speed and peak memory, in alternating runs.

``convolve``: daskconv.convolve on a Dask array beside dask_image.ndfilters.convolve, which is scipy.ndimage.convolve
under map_overlap, with the same chunks; and on a NumPy array.

    python workflows/bench_arrays.py --threads 2
    python workflows/bench_arrays.py convolve --kernels 3 7 --chunk 1024
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import dask
import dask.array as da
import numpy as np
from _measure import alternate, arguments, interval, machine, show, show_machine, write_json

import daskconv
from daskconv.graph.threads import available_threads

try:
    from dask_image import ndfilters
except ImportError:
    raise SystemExit("bench_arrays.py compares with dask-image: pip install 'daskconv[bench]'.") from None

# Such kernels take the other side half a minute: fewer rounds, without a call that only warms up.
SLOW = 15


def parse() -> argparse.Namespace:
    parser = arguments("Time filters of whole arrays beside dask-image.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"of: {' '.join(PARTS)}; all of them")
    parser.add_argument("--threads", type=int, default=available_threads(), help="of both libraries")
    parser.add_argument("--size", type=int, help="rows and columns of the image; 8192, or 600 with --quick")
    parser.add_argument("--chunk", type=int, help="rows and columns of a chunk; half the image")
    parser.add_argument("--kernels", type=int, nargs="+", default=[3, 7, 31], help="their rows and columns")
    parser.add_argument("--rounds", type=int, help="paired runs; 7, or 2 with --quick and for large kernels")
    args = parser.parse_args()
    args.size = args.size or (600 if args.quick else 8192)
    args.chunk = args.chunk or args.size // 2
    args.rounds = args.rounds or (2 if args.quick else 7)
    return args


def main() -> None:
    args = parse()
    dask.config.set({"scheduler": "threads", "num_workers": args.threads, "daskconv.threads": args.threads})
    rows = {part: PARTS[part](args) for part in args.parts or PARTS}
    facts = machine(args.threads) | {"rounds": args.rounds}
    show_machine(facts)
    write_json(args.json, {"machine": facts, **rows})


def convolve(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Print and return a row for each kernel."""
    image = image_of(args.size)
    rows = [measure_filter(image, size, args) for size in args.kernels]
    notes = [
        "ratio: the time of dask-image over that of daskconv, both from the same Dask array to its filtered chunks "
        "in memory, round by round; low, high: the 95 % interval of its median.",
        "NumPy: daskconv on the NumPy array, without Dask.",
        "peak MB: growth of resident memory in a process of its own, of which the result is "
        f"{image.nbytes / 1e6:.0f}.",
    ]
    show(
        f"Filters of a {args.size} x {args.size} float32 image in chunks of {args.chunk}, {args.threads} threads; "
        "millions of pixels a second",
        rows,
        notes,
    )
    return rows


def image_of(size: int) -> np.ndarray:
    return np.random.default_rng(0).random((size, size), dtype=np.float32)


def kernel_of(size: int) -> np.ndarray:
    """A kernel that is no product of two smaller ones."""
    return np.random.default_rng(size).random((size, size))


def measure_filter(image: np.ndarray, size: int, args: argparse.Namespace) -> dict[str, Any]:
    kernel, chunks = kernel_of(size), da.from_array(image, chunks=args.chunk)
    check_same(image, kernel)
    runs: dict[str, Callable[[], Any]] = {name: partial(run, chunks, kernel) for name, run in FILTERS.items()}
    runs["NumPy"] = partial(daskconv.convolve, image, kernel)
    slow = size >= SLOW and not args.quick
    times = alternate(runs, min(args.rounds, 2) if slow else args.rounds, warm_up=not slow)
    paired = [peer / own for peer, own in zip(times["dask-image"], times["daskconv"], strict=True)]
    low, high = interval(paired)
    speeds = {name: image.size / median(seconds) / 1e6 for name, seconds in times.items()}
    peaks = {f"{name}_peak_MB": peak(name, size, args) for name in FILTERS}
    return {"kernel": f"{size}x{size}", **speeds, "ratio": median(paired), "low": low, "high": high, **peaks}


def run_daskconv(image: da.Array, kernel: np.ndarray) -> da.Array:
    return daskconv.convolve(image, kernel).persist()


def run_dask_image(image: da.Array, kernel: np.ndarray) -> da.Array:
    return ndfilters.convolve(image, kernel).persist()


FILTERS = {"daskconv": run_daskconv, "dask-image": run_dask_image}


def check_same(image: np.ndarray, kernel: np.ndarray) -> None:
    """End where the libraries' results differ: they would not do the same."""
    part = da.from_array(image[:300, :300], chunks=200)
    ours, theirs = (np.asarray(run(part, kernel)) for run in FILTERS.values())
    error = abs(ours - theirs).max() / abs(theirs).max()
    if not error < 1e-5:
        raise SystemExit(f"daskconv and dask-image differ by {error:.1e} of the largest pixel.")


def peak(name: str, size: int, args: argparse.Namespace) -> float:
    """Return the growth of resident memory, in MB, while one filter runs in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(growth, name, size, args.size, args.chunk, args.threads).result()


def growth(name: str, size: int, image_size: int, chunk: int, threads: int) -> float:
    dask.config.set({"scheduler": "threads", "num_workers": threads})
    image, kernel = da.from_array(image_of(image_size), chunks=chunk), kernel_of(size)
    FILTERS[name](image[:300, :300], kernel)  # compiles
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    FILTERS[name](image, kernel)
    return (resident("VmHWM") - before) / 1e6


def resident(what: str) -> int:
    """Return bytes that Linux says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))


PARTS = {"convolve": convolve}


if __name__ == "__main__":
    main()
