"""A segmentation net, freshly trained, over a scene larger than memory: a mosaic of real handwritten digits.

Each pixel is one of ten digits or the ground. The net learns from the training digits; the scene holds the other ones,
in a Dask array that is made block by block, and its map goes to Zarr.

    python workflows/predict_scene.py --out map.zarr --png predict_scene.png
    python workflows/predict_scene.py --size 30000 --workers 2 --resume
"""

import argparse
from pathlib import Path
from time import perf_counter
from typing import Any

import dask.array as da
import numpy as np
from _measure import arguments, machine, pyplot, show, show_machine, write_json

import daskconv
from daskconv.graph.threads import available_threads

CELL, DIGIT = 24, 16  # pixels of a cell of the mosaic, and of the digit in it
GROUND = 10
BLOCK = 40 * CELL
PART = 6 * CELL  # of the picture


def parse() -> argparse.Namespace:
    parser = arguments("Train a small U-Net on digits and map a large mosaic of others.")
    parser.add_argument("--size", type=int, help="rows and columns; 7680, or 480 with --quick")
    parser.add_argument("--epochs", type=int, help="6, or 1 with --quick")
    parser.add_argument("--tile", type=int, help="rows and columns of a tile; by memory where not given")
    parser.add_argument(
        "--workers", type=int, help="processes of a local cluster; this one's threads if not given"
    )
    parser.add_argument("--out", type=Path, default=Path("map.zarr"), help="the map, a Zarr store")
    parser.add_argument("--resume", action="store_true", help="go on with a map that was begun")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw a part of the scene and of its map")
    args = parser.parse_args()
    args.size = args.size or (480 if args.quick else 7680)
    args.epochs = args.epochs or (1 if args.quick else 6)
    return args


def main() -> None:
    args = parse()
    plot = pyplot() if args.png else None
    with daskconv.start("dask" if args.workers else "local", workers=args.workers):
        model = train(args.epochs, 200 if args.quick else 4000)
        scene, classes = scene_of(args.size)
        started = perf_counter()
        tile = {"tile": args.tile} if args.tile else {}
        scores = daskconv.store(
            model.predict(scene, **tile), args.out, resume=args.resume, overwrite=not args.resume
        )
        seconds = perf_counter() - started
        row = measure(scores, classes, seconds) | {"seam": f"{seam(model, scene, scores):.1e}"}
    show(
        f"A mosaic of {args.size} x {args.size} pixels",
        [row],
        [
            "right: pixels of digits with the right class, and all pixels; seam: the largest difference to a part "
            "predicted as one image, as a share of the largest output.",
        ],
    )
    facts = machine(available_threads())
    show_machine(facts)
    write_json(args.json, {"machine": facts, "scene": row})
    if plot:
        draw(plot, args.png, model, scene, scores)


def cells(
    x: np.ndarray, y: np.ndarray, seed: list[int], down: int, across: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a mosaic (h, w, 1) of digits, drawn at random and each at its own place in its cell, and its classes."""
    rng = np.random.default_rng(seed)
    image = np.zeros((down * CELL, across * CELL, 1), np.uint8)
    classes = np.full(image.shape[:2], GROUND, np.int64)
    for i, j in np.ndindex(down, across):
        which = rng.integers(len(x))
        down_by, right_by = rng.integers(0, CELL - DIGIT, 2)
        top, left = i * CELL + down_by, j * CELL + right_by
        digit = np.kron(x[which, ..., 0], np.ones((DIGIT // 8, DIGIT // 8), np.uint8))
        place = slice(top, top + DIGIT), slice(left, left + DIGIT)
        image[place][..., 0] = digit
        classes[place][digit > 4] = y[which]
    return image, classes


def train(epochs: int, count: int) -> daskconv.Model:
    digits = daskconv.datasets.load("digits")
    pairs = [cells(digits.x_train, digits.y_train, [0, i], 3, 3) for i in range(count)]
    x, y = (np.stack(parts) for parts in zip(*pairs, strict=True))
    trainer = daskconv.Trainer(
        daskconv.zoo.unet(11, width=8, depth=3),
        optimizer=daskconv.Adam(3e-3),
        transport="local",
        preprocess="standardize",
        class_names=[*map(str, range(10)), "ground"],
    )
    trainer.fit(x, y, epochs=epochs, batch_size=20)
    return trainer.model


def scene_of(size: int) -> tuple[da.Array, da.Array]:
    """Return the scene (h, w, 1) and its classes (h, w), whose blocks are made when they are read."""
    blocks = -(-size // BLOCK)
    chunks = ((BLOCK,) * blocks,) * 2
    places = da.map_blocks(
        number_of, chunks=((1,) * blocks,) * 2, dtype=np.int64, meta=np.empty((0, 0), np.int64)
    )
    scene = da.map_blocks(
        scene_block,
        places,
        0,
        chunks=(*chunks, (1,)),
        new_axis=2,
        dtype=np.uint8,
        meta=np.empty((0, 0, 0), np.uint8),
    )
    classes = da.map_blocks(
        scene_block, places, 1, chunks=chunks, dtype=np.int64, meta=np.empty((0, 0), np.int64)
    )
    return scene[:size, :size], classes[:size, :size]


def number_of(block_id: tuple[int, int] = (0, 0)) -> np.ndarray:
    return np.full((1, 1), 100_000 * block_id[0] + block_id[1])


def scene_block(place: np.ndarray, which: int) -> np.ndarray:
    digits = daskconv.datasets.load("digits")
    return cells(digits.x_test, digits.y_test, [1, int(place[0, 0])], BLOCK // CELL, BLOCK // CELL)[which]


def measure(scores: da.Array, classes: da.Array, seconds: float) -> dict[str, Any]:
    right = scores.argmax(-1) == classes
    digits, everything = da.compute(
        (right & (classes != GROUND)).sum() / (classes != GROUND).sum(), right.mean()
    )
    return {
        "seconds": seconds,
        "Mpixels_a_second": classes.size / seconds / 1e6,
        "right_digits_%": 100 * float(digits),
        "right_%": 100 * float(everything),
    }


def seam(model: daskconv.Model, scene: da.Array, scores: da.Array) -> float:
    """Return how far the map is from a prediction without tiles, around the corner of four chunks."""
    part, inner = around(scores), slice(64, -64)
    whole = model.predict(scene[part].compute()[None])[0]
    found = scores[part].compute()
    return float(abs(found - whole)[inner, inner].max() / abs(whole).max())


def around(scores: da.Array) -> tuple[slice, slice]:
    """Return a part of the scene with the first corner of chunks in its middle."""
    sides = []
    for size, chunks in zip(scores.shape[:2], scores.chunks, strict=False):
        half = min(size // 2, 240) // 8 * 8
        middle = min(max(chunks[0] // 8 * 8, half), size - half)
        sides.append(slice(middle - half, middle + half))
    return sides[0], sides[1]


def draw(plot: Any, path: Path, model: daskconv.Model, scene: da.Array, scores: da.Array) -> None:
    """Draw a part of the scene, its map, and what tiles of the same size would say without looking over their edges."""
    rows, columns = around(scores)
    middle = [(side.start + side.stop) // 2 for side in (rows, columns)]
    part = tuple(slice(at - PART // 2, at + PART // 2) for at in middle)
    image, own = scene[part].compute()[..., 0], scores[part].compute().argmax(-1)
    half = PART // 2
    alone = np.block(
        [
            [model.predict(image[None, i : i + half, j : j + half, None])[0].argmax(-1) for j in (0, half)]
            for i in (0, half)
        ]
    )
    figure, panels = plot.subplots(1, 3, figsize=(12, 4.4))
    for panel, title, picture in zip(
        panels,
        ("a part of the scene", "its map", "tiles that do not look over their edges"),
        (image, own, alone),
        strict=True,
    ):
        if picture is image:
            panel.imshow(image, cmap="gray_r")
        else:
            panel.imshow(np.where(picture == GROUND, np.nan, picture), cmap="tab10", vmin=-0.5, vmax=9.5)
            for line in (panel.axhline, panel.axvline):
                line(half - 0.5, color="0.6", linewidth=0.6)
        panel.set_title(title)
        panel.set_xticks([])
        panel.set_yticks([])
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
