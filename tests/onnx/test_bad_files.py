"""Files that cannot be loaded: one sentence each, before anything runs."""

import numpy as np
import pytest

import daskconv
from daskconv import onnx_backend
from daskconv.errors import DataError, InputError
from reference import refuse

onnx = pytest.importorskip("onnx", reason="onnx is not installed: nothing is loaded (extra: onnx)")
FLOAT = onnx.TensorProto.FLOAT


def model(*nodes, shape=("n", 3, 8, 8), weights=(), opset=17, inputs=(), outputs=("y",), **options):
    """A model from x to y, of nodes (operator, inputs, outputs, attributes)."""
    helper = onnx.helper
    made = [
        helper.make_node(kind, list(read), list(out), name=f"node_{out[0]}", **more)
        for kind, read, out, more in nodes
    ]
    arrays = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in dict(weights).items()]
    entries = [helper.make_tensor_value_info("x", FLOAT, shape), *inputs]
    results = [helper.make_tensor_value_info(name, FLOAT, [None]) for name in outputs]
    graph = helper.make_graph(made, "test", entries, results, arrays)
    opsets = [
        helper.make_opsetid("", opset),
        *(helper.make_opsetid(d, 1) for d in options.pop("domains", ())),
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def conv(weight=None, **attributes):
    weight = np.ones((2, 3, 3, 3), np.float32) if weight is None else weight
    return model(("Conv", ["x", "w"], ["y"], attributes), weights={"w": weight})


RELU = ("Relu", ["x"], ["y"], {})


def test_what_is_right_loads():
    assert daskconv.load_onnx(conv()).predict(np.ones((2, 8, 8, 3), np.float32)).shape == (2, 6, 6, 2)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "damaged or no ONNX model"),
        (b"not a model at all, but some text", "damaged or no ONNX model"),
        (conv()[:-40], "damaged or no"),
        (conv(np.full((2, 3, 3, 3), np.nan, np.float32)), "node_y.weight holds values that are not finite"),
    ],
    ids=["empty", "text", "truncated", "nan"],
)
def test_damaged_content(content, match):
    refuse(match, daskconv.load_onnx, content, error=DataError)


def test_files_that_are_not_there(tmp_path):
    refuse("is no file", daskconv.load_onnx, tmp_path / "none.onnx", error=DataError)
    (tmp_path / "text.onnx").write_text("hello")
    refuse(
        "text.onnx is damaged or no ONNX model", daskconv.load_onnx, tmp_path / "text.onnx", error=DataError
    )


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (
            model(("Einsum", ["x"], ["y"], {"equation": "nchw->nhcw"})),
            "operator Einsum (node 'node_y') is not supported",
        ),
        (
            model(("Mine", ["x"], ["y"], {"domain": "org.me"}), domains=["org.me"]),
            "operator org.me.Mine (node 'node_y')",
        ),
        (model(RELU, opset=6), "opset 6: versions 7 to"),
        (
            model(
                ("Pad", ["x", "p"], ["y"], {"mode": "wrap"}), weights={"p": np.zeros(8, np.int64)}, opset=19
            ),
            "mode is 'wrap'",
        ),
        (conv(np.ones((2, 3, 3, 3, 3), np.float32)), "its weights have 3 dimensions, not 1 or 2"),
        (conv(auto_pad="MIDDLE"), "auto_pad is 'MIDDLE'"),
        (conv(np.ones((2, 5, 3, 3), np.float32)), "has a weight of shape (3, 3, 5, 2)"),
        (conv(np.ones((2, 3, 9, 9), np.float32)), "The kernel spans 9 pixels"),
        (
            model(("Reshape", ["x", "s"], ["y"], {}), weights={"s": np.array([-1, 64], np.int64)}),
            "mixes images",
        ),
        (model(("Transpose", ["x"], ["y"], {"perm": [1, 0, 2, 3]})), "mixes images"),
        (model(("Softmax", ["x"], ["y"], {"axis": 0})), "operator Softmax (node 'node_y') mixes images"),
        (model(("Reshape", ["x", "s"], ["y"], {}), weights={"s": np.array([0, 7], np.int64)}), "node_y"),
        (model(RELU, shape=("n", 3, "h", "w")), "leaves its images' size open"),
        (model(RELU, shape=("n", 5)), "has 2 axes: images (n, c, h, w)"),
        (
            model(
                ("Add", ["x", "z"], ["y"], {}),
                inputs=[onnx.helper.make_tensor_value_info("z", FLOAT, ["n", 3, 8, 8])],
            ),
            "has the inputs ['x', 'z']: one input",
        ),
        (model(("Shape", ["x"], ["y"], {})), "number of images"),
        (
            model(("MaxPool", ["x"], ["y", "at"], {"kernel_shape": [2, 2]}), outputs=["y", "at"]),
            "its output 'at'",
        ),
        (model(("Dropout", ["x", "", "t"], ["y"], {}), weights={"t": np.array(True)}), "numbers of its own"),
        (model(("Conv", ["x", "x"], ["y"], {})), "its input 1 is computed, but has to be a constant"),
    ],
)
def test_what_is_not_supported(content, match):
    try:
        refuse(match, daskconv.load_onnx, content)
    except DataError as error:  # onnx's own check may be the first to see it
        assert "no valid ONNX model" in str(error)


def test_input_shapes_that_contradict():
    dynamic = model(RELU, shape=("n", 3, "h", "w"))
    assert daskconv.load_onnx(dynamic, input_shape=(5, 6, 3)).input_shape == (5, 6, 3)
    refuse("is for images of (0, 0, 3) but", daskconv.load_onnx, dynamic, input_shape=(5, 6, 4))
    refuse("give input_shape=(h, w, c)", daskconv.load_onnx, dynamic, input_shape=(5, 6))


def external(folder, location):
    """A model whose weights are in another file."""
    content = onnx.load_model_from_string(conv())
    tensor = content.graph.initializer[0]
    raw = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(raw)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    (folder / "model.onnx").write_bytes(content.SerializeToString())
    return folder / "model.onnx", raw


def test_external_data_beside_the_model(tmp_path):
    path, raw = external(tmp_path, "weights.bin")
    refuse("'weights.bin', which is missing", daskconv.load_onnx, path, error=DataError)
    (tmp_path / "weights.bin").write_bytes(raw)
    x = np.ones((1, 8, 8, 3), np.float32)
    np.testing.assert_array_equal(daskconv.load_onnx(path).predict(x), daskconv.load_onnx(conv()).predict(x))
    refuse("give the model's path, not bytes", daskconv.load_onnx, path.read_bytes(), error=DataError)
    (tmp_path / "weights.bin").write_bytes(raw[:10])
    with pytest.raises((DataError, InputError)):
        daskconv.load_onnx(path)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "a/../../secret.bin"])
def test_external_data_outside_of_the_folder(tmp_path, location):
    (tmp_path / "in").mkdir()
    path, raw = external(tmp_path / "in", location)
    (tmp_path / "secret.bin").write_bytes(raw)
    refuse("outside of its folder", daskconv.load_onnx, path, error=DataError)


def test_the_backend_says_what_it_can():
    good = onnx.load_model_from_string(conv())
    assert onnx_backend.is_compatible(good) and onnx_backend.supports_device("CPU:0")
    assert not onnx_backend.supports_device("CUDA")
    refuse("device is 'CUDA'", onnx_backend.prepare, good, "CUDA")
    old = onnx.load_model_from_string(model(RELU, opset=6))
    assert not onnx_backend.is_compatible(old)
    (y,) = onnx_backend.prepare(good).run([np.ones((2, 3, 8, 8), np.float32)])
    assert y.shape == (2, 2, 6, 6) and (y == 27).all()
