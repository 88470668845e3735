"""Inference of whole networks beside onnxruntime, which runs what daskconv has written, and PyTorch.

python workflows/bench_inference.py --threads 2
python workflows/bench_inference.py --nets resnet50 --batch 1
"""

import argparse
from collections.abc import Callable
from statistics import geometric_mean, median
from typing import Any

import numpy as np
from _measure import alternate, arguments, machine, ratios, show, show_machine, write_json
from _torch import TorchNetwork, torch

import daskconv
from daskconv.graph.threads import available_threads

try:
    import onnxruntime
except ImportError:
    raise SystemExit(
        "bench_inference.py compares with onnxruntime: pip install 'daskconv[bench,onnx]'."
    ) from None

NETS = ("resnet50", "vgg16", "googlenet")
SHAPE = (224, 224, 3)


def parse() -> argparse.Namespace:
    parser = arguments("Time inference of daskconv, onnxruntime and PyTorch.")
    parser.add_argument("--threads", type=int, nargs="+", default=[available_threads()], help="such as: 1 2")
    parser.add_argument("--nets", nargs="+", choices=sorted(daskconv.zoo.ZOO), default=list(NETS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", choices=["fast", "exact"], default="fast")
    parser.add_argument("--rounds", type=int, help="runs in turns; 9, or 3 with --quick")
    args = parser.parse_args()
    args.rounds = args.rounds or (3 if args.quick else 9)
    args.nets = args.nets[-1:] if args.quick else args.nets
    return args


def main() -> None:
    args = parse()
    rows = [measure(name, threads, args) for threads in args.threads for name in args.nets]
    means = [
        f"{threads} thread(s): over onnxruntime {geometric_mean(found):.2f} in geometric mean"
        for threads in args.threads
        if (found := [row["over_onnxruntime"] for row in rows if row["threads"] == threads])
    ]
    show(
        f"Inference, batch {args.batch}, {args.precision}; milliseconds and speed over the others",
        rows,
        means,
    )
    facts = machine(" and ".join(map(str, args.threads))) | {"rounds": args.rounds}
    show_machine(facts | {"onnxruntime": onnxruntime.__version__})
    write_json(args.json, {"machine": facts, "rows": rows})


def measure(name: str, threads: int, args: argparse.Namespace) -> dict[str, Any]:
    x = np.random.default_rng(0).standard_normal((args.batch, *SHAPE)).astype(np.float32)
    sides = contestants(name, x, threads, args.precision)
    check_same(sides)
    times = alternate(sides, args.rounds)
    row: dict[str, Any] = {"net": name, "threads": threads}
    row |= {f"{side}_ms": 1000 * median(seconds) for side, seconds in times.items()}
    for peer in ("onnxruntime", "PyTorch"):
        ratio = ratios(times[peer], times["daskconv"])
        row |= {
            f"over_{peer}": ratio["median"],
            f"{peer}_quartiles": f"{ratio['low']:.2f} to {ratio['high']:.2f}",
        }
    return row


def contestants(
    name: str, x: np.ndarray, threads: int, precision: str
) -> dict[str, Callable[[], np.ndarray]]:
    """Return a function for each side; images lie as each of them wants them."""
    import dask

    torch.set_num_threads(threads)
    network = daskconv.zoo.ZOO[name]()
    model = daskconv.Model(network, network.init(0, SHAPE), network.init_statistics(SHAPE), input_shape=SHAPE)
    predictor = model.predictor(SHAPE, precision=precision)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(
        daskconv.save_onnx(model), options, providers=["CPUExecutionProvider"]
    )
    first = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    module = TorchNetwork(network, SHAPE).eval().to(memory_format=torch.channels_last)
    images = torch.from_numpy(first).contiguous(memory_format=torch.channels_last)

    def ours() -> np.ndarray:
        with dask.config.set({"daskconv.threads": threads}):
            return predictor.predict(x)

    def theirs() -> np.ndarray:
        with torch.inference_mode():
            return module(images).numpy()

    return {
        "daskconv": ours,
        "onnxruntime": lambda: session.run(None, {"images": first})[0],
        "PyTorch": theirs,
    }


def check_same(sides: dict[str, Callable[[], np.ndarray]]) -> None:
    """End where the libraries' results differ: they would not run one net."""
    results = {name: side() for name, side in sides.items()}
    want = results.pop("onnxruntime")
    for name, y in results.items():
        error = abs(y - want).max() / abs(want).max()
        if not error < 1e-3:
            raise SystemExit(f"{name} and onnxruntime differ by {error:.1e} of the largest output.")


if __name__ == "__main__":
    main()
