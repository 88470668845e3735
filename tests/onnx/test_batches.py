"""Graphs that speak of the number of images: right for any other number, as onnxruntime has it, or refused."""

from itertools import product

import numpy as np
import pytest

import daskconv
from reference import refuse

onnx = pytest.importorskip("onnx", reason="onnx is not installed: nothing is loaded (extra: onnx)")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: nothing to compare with")
helper = onnx.helper

C, H, W = 2, 3, 4
KEEP = np.linspace(0.5, 1.5, C * H * W, dtype=np.float32)


def graph(batch, *nodes, opset=17, **weights):
    """A model from x (batch, 2, 3, 4) to the last node's output, of nodes (operator, inputs, output, attributes)."""
    made = [
        helper.make_node(kind, read.split(), [out], name=f"n_{out}", **more)
        for kind, read, out, more in nodes
    ]
    arrays = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    entry = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, C, H, W])
    end = helper.make_tensor_value_info(nodes[-1][2], onnx.TensorProto.FLOAT, [None])
    made = helper.make_graph(made, "g", [entry], [end], arrays)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def elsewhere(model, x):
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def check(model, batch, tolerance=1e-5):
    """For 1, 2 and 5 images the outputs are onnxruntime's, which gets as many at once as the graph is for."""
    loaded = daskconv.load_onnx(model.SerializeToString())
    for n in (1, 2, 5):
        x = np.random.default_rng(n).uniform(0.1, 1, (n, C, H, W)).astype(np.float32)
        at_once = batch or n
        calls = -(-n // at_once)
        parts = np.split(np.resize(x, (calls * at_once, C, H, W)), calls)
        want = np.concatenate([elsewhere(model, part) for part in parts])[:n]
        got = loaded.predict(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), precision="exact")
        got = got.transpose(0, 3, 1, 2) if got.ndim == 4 else got
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=tolerance * abs(want).max(), rtol=0)


def ints(*numbers):
    return np.array(numbers, np.int64)


RIGHT = {
    "to rows": lambda b: (
        [("Reshape", "x s", "y", {}), ("Mul", "y k", "z", {})],
        {"s": ints(b, -1), "k": KEEP},
    ),
    "to sizes": lambda b: ([("Reshape", "x s", "y", {})], {"s": ints(b, 4, 1, 6)}),
    "allowzero": lambda b: ([("Reshape", "x s", "y", {"allowzero": 1})], {"s": ints(b, 6, 4)}),
    "shuffle": lambda b: (
        [
            ("Reshape", "x s", "a", {}),
            ("Transpose", "a", "t", {"perm": [0, 2, 1, 3]}),
            ("Reshape", "t e", "y", {}),
        ],
        {"s": ints(b, 2, 3, 4), "e": ints(b, -1)},
    ),
    "slice of all": lambda b: ([("Slice", "x s e a", "y", {})], {"s": ints(0), "e": ints(b), "a": ints(0)}),
    "one constant for all": lambda b: (
        [("Concat", "x k", "y", {"axis": 1})],
        {"k": np.repeat(np.arange(12, dtype=np.float32).reshape(1, 1, H, W), b, 0)},
    ),
    "expanded": lambda b: (
        [("Expand", "k s", "e", {}), ("Add", "x e", "y", {})],
        {"k": np.arange(4, dtype=np.float32), "s": ints(b, C, H, W)},
    ),
    "zeros": lambda b: (
        [("ConstantOfShape", "s", "e", {}), ("Concat", "x e", "y", {"axis": 1})],
        {"s": ints(b, 1, H, W)},
    ),
    "resized": lambda b: (
        [("Resize", "x r r s", "y", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"})],
        {"s": ints(b, C, 5, 8), "r": np.zeros(0, np.float32)},
    ),
    "flatten": lambda b: ([("Flatten", "x", "f", {}), ("Gemm", "f w", "y", {})], {"w": KEEP.reshape(24, 1)}),
}


@pytest.mark.parametrize(("name", "batch"), [*product(RIGHT, (1, 2, 5))])
def test_an_export_for_some_images_is_one_for_any(name, batch):
    nodes, weights = RIGHT[name](batch)
    check(graph(batch, *nodes, **weights), batch)


COUNTED = {
    "flattened by its shape": (
        [
            *(("Shape", "x", "s", {}), ("Gather", "s zero", "n", {}), ("Concat", "n rest", "t", {"axis": 0})),
            *(("Reshape", "x t", "f", {}), ("Mul", "f k", "y", {})),
        ],
        {"zero": ints(0), "rest": ints(-1), "k": KEEP},
    ),
    "resized by its shape": (
        [
            *(
                ("Shape", "x", "s", {}),
                ("Slice", "s zero two", "n", {}),
                ("Concat", "n size", "t", {"axis": 0}),
            ),
            ("Resize", "x r r t", "y", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}),
        ],
        {"zero": ints(0), "two": ints(2), "size": ints(5, 8), "r": np.zeros(0, np.float32)},
    ),
}


@pytest.mark.parametrize(("name", "batch"), [*product(COUNTED, ("n", 1, 5))])
def test_shapes_that_the_graph_works_out(name, batch):
    nodes, weights = COUNTED[name]
    check(graph(batch, *nodes, **weights), 0 if batch == "n" else batch)


NUMBER = [("Shape", "x", "s", {}), ("Gather", "s zero", "n", {})]
REFUSED = {
    "for one image": (
        "n",
        "Reshape (node 'n_y') mixes images: It makes (1, 24 n) of (n, 2, 3, 4)",
        [("Reshape", "x t", "y", {})],
        {"t": ints(1, -1)},
    ),
    "for one image, in sizes": (
        "n",
        "Reshape (node 'n_y') mixes images",
        [("Reshape", "x t", "y", {})],
        {"t": ints(1, 24)},
    ),
    "for other images": (
        2,
        "Reshape (node 'n_y') mixes images",
        [("Reshape", "x t", "y", {})],
        {"t": ints(3, -1)},
    ),
    "images and channels": (
        2,
        "Reshape (node 'n_y') mixes images",
        [("Reshape", "x t", "y", {})],
        {"t": ints(4, 1, 3, 4)},
    ),
    "a constant for each": (
        2,
        "Add (node 'n_y') mixes images: It joins values of shapes (n, 2, 3, 4) and (2, 1, 1, 1)",
        [("Add", "x k", "y", {})],
        {"k": np.arange(2, dtype=np.float32).reshape(2, 1, 1, 1)},
    ),
    "the number is a factor": (
        "n",
        "node 'constant' computes with the number of images",
        [*NUMBER, ("Cast", "n", "f", {"to": onnx.TensorProto.FLOAT}), ("Mul", "x f", "y", {})],
        {"zero": ints(0)},
    ),
    "the number is a limit": (
        "n",
        "Slice (node 'n_y') mixes images: It cuts at the number of images",
        [*NUMBER, ("Slice", "x zero n three", "y", {})],
        {"zero": ints(0), "three": ints(3)},
    ),
    "half the number is a limit": (
        "n",
        "node 'n_y' computes with the number of images",
        [*NUMBER, ("Div", "n two", "half", {}), ("Slice", "x zero half three", "y", {})],
        {"zero": ints(0), "two": ints(2), "three": ints(3)},
    ),
    "a constant as long as the images": (
        "n",
        "ConstantOfShape (node 'n_e') mixes images",
        [("Shape", "x", "s", {}), ("ConstantOfShape", "s", "e", {}), ("Add", "x e", "y", {})],
        {},
    ),
    "an expansion to all images": (
        "n",
        "Expand (node 'n_e') mixes images",
        [("Shape", "x", "s", {}), ("Expand", "k s", "e", {}), ("Add", "x e", "y", {})],
        {"k": np.ones((1, 1, 1, 1), np.float32)},
    ),
    "channels that become one": (
        1,
        "Resize (node 'n_y') is not supported as it is used: it resizes axis 1",
        [("Resize", "x r r s", "y", {})],
        {"s": ints(1, 1, H, W), "r": np.zeros(0, np.float32)},
    ),
    "all axes of size 1": (
        1,
        "Squeeze (node 'n_y') mixes images: It takes axis 0 away",
        [("GlobalAveragePool", "x", "p", {}), ("Squeeze", "p", "y", {})],
        {},
    ),
    "a part of the images": (
        5,
        "Slice (node 'n_y') mixes images",
        [("Slice", "x s e a", "y", {})],
        {"s": ints(0), "e": ints(3), "a": ints(0)},
    ),
    "a kernel that does not fit": (
        "n",
        "MaxPool (node 'n_y') is not supported as it is used: The kernel spans 9 pixels",
        [("MaxPool", "x", "y", {"kernel_shape": [9, 9]})],
        {},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_depends_on_the_number_of_images_is_refused(name):
    batch, sentence, nodes, weights = REFUSED[name]
    refuse(sentence, daskconv.load_onnx, graph(batch, *nodes, **weights).SerializeToString())


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize(("axes", "size"), [([2, 3], (5, 5)), ([3, 2], (9, 2)), ([3], (7,)), ([2], (1,))])
def test_resizing_in_proportion(policy, axes, size):
    options = {"axes": axes, "keep_aspect_ratio_policy": policy, "mode": "linear", "antialias": 1}
    nodes = [("Resize", "x r r s", "y", options)]
    check(graph("n", *nodes, opset=18, s=ints(*size), r=np.zeros(0, np.float32)), 0)


@pytest.mark.parametrize("scales", [(0.7, 0.6), (2.0, 1.5), (1.0, 0.5)])
def test_the_nearest_pixel_before_opset_11(scales):
    scales = np.array([1, 1, *scales], np.float32)
    check(graph("n", ("Resize", "x k", "y", {"mode": "nearest"}), opset=10, k=scales), 0)
