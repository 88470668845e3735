"""The nine light models that come with onnx: the shipped outputs, and onnxruntime's with random weights."""

from pathlib import Path

import numpy as np
import pytest

import daskconv

onnx = pytest.importorskip("onnx", reason="onnx is not installed: its models are not loaded (extra: onnx)")

FOLDER = Path(onnx.__file__).parent / "backend/test/data/light"
MODELS = [
    *("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50"),
    *("shufflenet", "squeezenet", "vgg19", "zfnet512"),
]


def read(name):
    path = FOLDER / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip(f"this version of onnx does not bring {path.name}")
    return path


def test_there_are_nine():
    assert {path.stem.removeprefix("light_") for path in FOLDER.glob("*.onnx")} <= set(MODELS) and len(
        MODELS
    ) == 9


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_outputs(name):
    """The light models have constant weights; they were made for an image of ones, or any other, of this size."""
    model = daskconv.load_onnx(read(name))
    tensor = onnx.TensorProto()
    tensor.ParseFromString((FOLDER / f"light_{name}_output_0.pb").read_bytes())
    want = onnx.numpy_helper.to_array(tensor)
    assert model.input_shape == (224, 224, 3)
    got = model.predict(np.ones((2, 224, 224, 3), np.float32), precision="exact")
    got = got.transpose(0, 3, 1, 2) if got.ndim == 4 else got
    for image in got:
        np.testing.assert_allclose(image[None], want, rtol=1e-3, atol=1e-7)


def with_random_weights(path):
    """The model with He-normal weights in place of its constants, and batch norms that normalise."""
    model = onnx.load(path)
    rng = np.random.default_rng(0)
    shapes = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    constants = {node.output[0]: node for node in model.graph.node if node.op_type == "ConstantOfShape"}
    scales, variances = set(), set()
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            scales.add(node.input[1])
            variances.add(node.input[4])
    made = []
    for name, node in constants.items():
        shape = tuple(shapes[node.input[0]])
        if name in variances:
            array = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            array = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            array = rng.standard_normal(shape) * 0.1 + (name in scales)
        made.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    kept = [node for node in model.graph.node if node.op_type != "ConstantOfShape"]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(made)
    model.ir_version = 8  # from 4 on, constants need not be inputs too
    return model.SerializeToString()


LARGE = ("vgg19", "zfnet512")  # half a gigabyte of random weights


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in MODELS]
)
def test_random_weights_as_in_onnxruntime(name):
    runtime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is not installed: nothing to compare with"
    )
    content = with_random_weights(read(name))
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 2, 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((1, 224, 224, 3)).astype(np.float32)
    data = next(entry.name for entry in session.get_inputs())
    (want,) = session.run(None, {data: np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
    got = daskconv.load_onnx(content).predict(x, precision="exact")
    assert want.std() > 0
    np.testing.assert_allclose(got.reshape(want.shape), want, rtol=0, atol=1e-4 * abs(want).max())
