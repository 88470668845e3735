"""Whole arrays beside what their users run today: speed and peak memory, in alternating runs.

``convolve``: daskconv.convolve on a Dask array beside dask_image.ndfilters.convolve, which is scipy.ndimage.convolve
under map_overlap, with the same chunks; and on a NumPy array.
``predict``: a network of ten convolutions over a scene beside the same network in PyTorch under map_overlap, in tiles
of the same size, each tile on one thread.

    python workflows/bench_arrays.py --threads 2
    python workflows/bench_arrays.py convolve --kernels 3 7 --chunk 1024
"""

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import dask
import dask.array as da
import numpy as np
from _measure import alternate, arguments, grown, interval, machine, show, show_machine, write_json

import daskconv
from daskconv.graph.threads import available_threads

try:
    from dask_image import ndfilters
except ImportError:
    raise SystemExit("bench_arrays.py compares with dask-image: pip install 'daskconv[bench]'.") from None

# Such kernels take the other side half a minute: fewer rounds, without a call that only warms up.
SLOW = 15


def parse() -> argparse.Namespace:
    parser = arguments("Time whole arrays beside what their users run today.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"of: {' '.join(PARTS)}; all of them")
    parser.add_argument("--threads", type=int, default=available_threads(), help="of both libraries")
    parser.add_argument("--size", type=int, help="rows and columns of the image; 8192, or 600 with --quick")
    parser.add_argument("--chunk", type=int, help="rows and columns of a chunk; half the image")
    parser.add_argument("--kernels", type=int, nargs="+", default=[3, 7, 31], help="their rows and columns")
    parser.add_argument("--rounds", type=int, help="paired runs; 7, or 2 with --quick and for large kernels")
    parser.add_argument("--scene", type=int, help="rows and columns of the scene; 4096, or 200 with --quick")
    parser.add_argument("--tile", type=int, help="its tiles; 512, or 100 with --quick")
    parser.add_argument("--width", type=int, default=32, help="filters of the network's layers")
    args = parser.parse_args()
    args.size = args.size or (600 if args.quick else 8192)
    args.chunk = args.chunk or args.size // 2
    args.rounds = args.rounds or (2 if args.quick else 7)
    args.scene = args.scene or (200 if args.quick else 4096)
    args.tile = args.tile or (100 if args.quick else 512)
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
    job = size, args.size, args.chunk, args.threads
    peaks = {f"{name}_peak_MB": grown(filter_job, name, *job)[0] for name in FILTERS}
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


def filter_job(name: str, size: int, image_size: int, chunk: int, threads: int) -> Callable[[], Any]:
    dask.config.set({"scheduler": "threads", "num_workers": threads})
    image, kernel = da.from_array(image_of(image_size), chunks=chunk), kernel_of(size)
    FILTERS[name](image[:300, :300], kernel)  # compiles
    return partial(FILTERS[name], image, kernel)


def predict(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Print and return a row: a scene beside PyTorch under map_overlap."""
    job = args.scene, args.tile, args.width, args.threads
    runs = {name: predict_job(name, *job) for name in PREDICTORS}
    check_same_map(*(np.asarray(run()) for run in runs.values()))
    times = alternate(runs, args.rounds, warm_up=False)
    paired = [peer / own for peer, own in zip(times["PyTorch"], times["daskconv"], strict=True)]
    low, high = interval(paired)
    speeds = {name: args.scene**2 / median(seconds) / 1e6 for name, seconds in times.items()}
    peaks = {f"{name}_peak_MB": grown(predict_job, name, *job)[0] for name in PREDICTORS}
    row = {"tile": args.tile, **speeds, "ratio": median(paired), "low": low, "high": high, **peaks}
    notes = [
        "ratio: the time of PyTorch under map_overlap, in its better layout, over that of daskconv; low, high: the "
        "95 % interval of its median.",
        "peak MB: growth of resident memory in a process of its own, of which the map is "
        f"{args.scene**2 * 8 / 1e6:.0f}.",
    ]
    show(
        f"Ten convolutions of {args.width} filters over a {args.scene} x {args.scene} x 3 float32 scene, "
        f"{args.threads} threads; millions of pixels a second",
        [row],
        notes,
    )
    return [row]


def network(width: int) -> daskconv.Model:
    layers = [layer for _ in range(9) for layer in (daskconv.Conv2D(width, 3, padding=1), daskconv.ReLU())]
    net = daskconv.Sequential([*layers, daskconv.Conv2D(2, 1)])
    return daskconv.Model(net, net.init(0, (64, 64, 3)))


def predict_job(name: str, size: int, tile: int, width: int, threads: int) -> Callable[[], Any]:
    dask.config.set({"scheduler": "threads", "num_workers": threads})
    scene = np.random.default_rng(0).random((size, size, 3), dtype=np.float32)
    run = PREDICTORS[name](network(width), tile)
    run(da.from_array(scene[: 2 * tile, : 2 * tile], chunks=(tile, tile, 3)))  # compiles
    return partial(run, da.from_array(scene, chunks=(tile, tile, 3)))


def daskconv_predictor(model: daskconv.Model, tile: int) -> Callable[[da.Array], da.Array]:
    return lambda scene: model.predict(scene, tile=tile).persist()


def torch_predictor(model: daskconv.Model, tile: int) -> Callable[[da.Array], da.Array]:
    """What users write by hand; at a border without neighbours the layers pad, as on the whole scene."""
    import torch

    torch.set_num_threads(1)
    layers: list[Any] = []
    for node in model.network.nodes:
        if isinstance(node.layer, daskconv.ReLU):
            layers.append(torch.nn.ReLU(inplace=True))
            continue
        weight, bias = (torch.from_numpy(model.params[f"{node.name}.{part}"]) for part in ("weight", "bias"))
        conv = torch.nn.Conv2d(
            weight.shape[2], weight.shape[3], weight.shape[0], padding=weight.shape[0] // 2
        )
        conv.weight.data, conv.bias.data = weight.permute(3, 2, 0, 1).contiguous(), bias
        layers.append(conv)
    module = torch.nn.Sequential(*layers).eval()

    def run(block: np.ndarray, layout: Any) -> np.ndarray:
        with torch.inference_mode():
            x = (
                torch.from_numpy(np.ascontiguousarray(block))
                .permute(2, 0, 1)[None]
                .contiguous(memory_format=layout)
            )
            return module.to(memory_format=layout)(x)[0].permute(1, 2, 0).numpy()

    block = np.zeros((tile, tile, 3), np.float32)
    layouts = (torch.channels_last, torch.contiguous_format)
    times = alternate({str(layout): partial(run, block, layout) for layout in layouts}, 3)
    better = min(layouts, key=lambda layout: median(times[str(layout)]))
    module.to(memory_format=better)
    depth, meta = {0: 9, 1: 9, 2: 0}, np.empty((0, 0, 0), np.float32)
    return lambda scene: scene.map_overlap(
        run,
        depth=depth,
        boundary="none",
        layout=better,
        chunks=(*scene.chunks[:2], 2),
        meta=meta,
        dtype=np.float32,
    ).persist()


PREDICTORS = {"daskconv": daskconv_predictor, "PyTorch": torch_predictor}


def check_same_map(ours: np.ndarray, theirs: np.ndarray) -> None:
    error = abs(ours - theirs).max() / abs(theirs).max()
    if not error < 1e-4:
        raise SystemExit(f"daskconv and PyTorch differ by {error:.1e} of the largest output.")


PARTS = {"convolve": convolve, "predict": predict}


if __name__ == "__main__":
    main()
