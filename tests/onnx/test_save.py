"""Models that are written to ONNX: onnxruntime computes the same, and they come back."""

import subprocess
import sys

import numpy as np
import pytest

import daskconv
from daskconv import (
    ELU,
    LRN,
    Add,
    AvgPool2D,
    BatchNorm,
    ChannelShuffle,
    Clip,
    Concat,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Divide,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    LogSoftmax,
    LpPool2D,
    MatMul,
    MaxPool2D,
    Mean,
    Model,
    Multiply,
    Network,
    Node,
    Normalize,
    Outputs,
    Pad,
    Parameter,
    PReLU,
    ReLU,
    Reshape,
    Resize,
    Sequential,
    Sigmoid,
    Slice,
    Softmax,
    Subtract,
    Tanh,
    Transpose,
    Upsample,
    zoo,
)
from daskconv.nn.specs import kinds_of
from reference import refuse

onnx = pytest.importorskip("onnx", reason="onnx is not installed: nothing is written (extra: onnx)")
runtime = pytest.importorskip(
    "onnxruntime", reason="onnxruntime is not installed: files are not run elsewhere"
)

SHAPE = (8, 7, 6)


def model_of(network, shape=SHAPE, preprocess=None, seed=0):
    rng = np.random.default_rng(seed)
    params = network.init(seed, shape)
    for name, array in params.items():
        if not name.endswith("weight"):
            array += rng.normal(0, 0.3, array.shape).astype(np.float32)
    state = {
        name: rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
        for name, array in network.init_statistics(shape).items()
    }
    return Model(network, params, state, preprocess, (), shape)


def elsewhere(content, x):
    """What onnxruntime computes, with images channels last again."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 2
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    results = session.run(None, {"images": np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32)})
    return [y.transpose(0, 2, 3, 1) if y.ndim == 4 else y for y in results]


def check(model, images=3, tolerance=1e-5):
    """The file computes in onnxruntime, and loaded again, what the model does."""
    content = daskconv.save_onnx(model)
    x = np.random.default_rng(1).uniform(0, 1, (images, *model.input_shape)).astype(np.float32)
    want = model.predict(x, precision="exact")
    scale = abs(want).max()
    (got,) = elsewhere(content, x)
    assert got.shape == want.shape and scale > 0
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale)
    again = daskconv.load_onnx(content)
    assert again.input_shape == model.input_shape
    np.testing.assert_allclose(again.predict(x, precision="exact"), want, rtol=0, atol=tolerance * scale)


def branches(*layers, join=None):
    """A network whose layers all read the input and are joined."""
    nodes = [Node(f"branch{i}", layer) for i, layer in enumerate(layers)]
    return Network((*nodes, Node("join", join or Add(), tuple(node.name for node in nodes))))


ALONE = [
    *(ReLU(), LeakyReLU(0.2), PReLU(), ELU(0.5), Sigmoid(), HardSigmoid(), HardSigmoid(0.2, 0.4)),
    *(HardSwish(), Tanh(), Clip(0.2, 0.7), Clip(high=0.5), Softmax(), Softmax(0), LogSoftmax(1)),
    *(
        Dropout(0.5),
        Flatten(),
        Reshape((14, 24)),
        Reshape((4, 2, 42)),
        Transpose((1, 2, 0)),
        ChannelShuffle(3),
    ),
    *(
        Pad(((1, 2), (0, 3), (0, 0)), value=2.0),
        Pad(((1, 2), (2, 3), (0, 0)), "reflect"),
        Pad(((-1, 2), (2, 0), (1, 0))),
    ),
    Pad(((1, 2), (2, 3), (0, 0)), "edge"),
    Slice((1, None, None), (None, -1, None), (2, 1, -1)),
    *(
        Conv2D(5, 3),
        Conv2D(4, (2, 3), (2, 1), ((1, 0), (0, 2)), (1, 2), 2, bias=False),
        Conv2D(6, 3, groups=6),
    ),
    *(ConvTranspose2D(4, 3), ConvTranspose2D(4, (3, 2), (2, 3), ((1, 0), (0, 1)), (1, 2), groups=2)),
    *(MaxPool2D(3, 2, 1, ceil_mode=True), MaxPool2D(2, dilation=2), AvgPool2D(3, 2, 1)),
    *(AvgPool2D(3, 2, 1, count_include_pad=False), LpPool2D(2), LpPool2D(3, 2, 1, p=3.0)),
    *(GlobalAvgPool2D(), GlobalAvgPool2D(keepdims=True), GlobalMaxPool2D(), GlobalMaxPool2D(keepdims=True)),
    *(
        Mean((0, 1)),
        Mean((2,)),
        Mean((-1, 0), keepdims=True),
        LRN(3, 0.5),
        LRN(5, 2.0),
        BatchNorm(),
        BatchNorm(scale=False),
    ),
    *(
        Upsample(2),
        Upsample(3, "linear"),
        Resize((5, 9), mode="cubic"),
        Resize((5, 9), mode="linear", coordinates="align_corners"),
    ),
    Resize((4, 5), mode="linear", antialias=True),
]


@pytest.mark.parametrize("layer", ALONE, ids=lambda layer: str(layer)[:60])
def test_each_layer(layer):
    check(model_of(Sequential([Conv2D(6, 1), layer, Clip()])))


JOINED = [
    branches(Conv2D(4, 1), Conv2D(4, 1), Conv2D(4, 1)),
    branches(Conv2D(4, 1), Conv2D(4, 1), join=Subtract()),
    branches(Conv2D(4, 1), Conv2D(4, 1), join=Multiply()),
    branches(Conv2D(4, 1), Conv2D(3, 1), join=Concat()),
    branches(Conv2D(4, 1), Conv2D(4, 1), join=Concat(0)),
    branches(Conv2D(6, 1), GlobalAvgPool2D()),
    branches(Conv2D(6, 1), Parameter((6,), daskconv.Normal(1.0)), Parameter((8, 1, 6), daskconv.Normal(1.0))),
    branches(Reshape((8, 42)), Reshape((42, 8)), join=MatMul()),
    branches(Reshape((8, 42)), Parameter((42, 5), daskconv.Normal(1.0)), join=MatMul()),
]


@pytest.mark.parametrize("network", JOINED, ids=range(len(JOINED)))
def test_layers_that_join(network):
    check(model_of(network))


def test_division():
    net = Network(
        (
            Node("a", Conv2D(4, 1)),
            Node("b", Conv2D(4, 1)),
            Node("c", Sigmoid(), ("b",)),
            Node("d", Divide(), ("a", "c")),
        )
    )
    check(model_of(net))


def test_every_layer_is_written():
    written = {type(layer) for layer in ALONE}
    written |= {type(node.layer) for network in JOINED for node in network.nodes}
    written |= {Dense, Divide, Outputs}
    kinds = [kind for kind in kinds_of(Layer).values() if kind.__module__.startswith("daskconv.nn.layers")]
    # What shards run of a layer is in no network that anybody saves.
    ours = {kind for kind in kinds if not kind.__name__.startswith("_") and "shards" not in kind.__module__}
    assert ours - {Layer} == written


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet", (8, 8, 1)),
        ("mnist_cnn", (9, 8, 1)),
        ("cifar10_quick", (32, 32, 3)),
        ("resnet20", (32, 32, 3)),
        ("squeezenet", (64, 64, 3)),
        ("googlenet", (64, 64, 3)),
        ("resnet18", (64, 64, 3)),
        pytest.param("resnet50", (64, 64, 3), marks=pytest.mark.slow),
        pytest.param("alexnet", (96, 96, 3), marks=pytest.mark.slow),
    ],
)
def test_networks_of_the_zoo(name, shape):
    mean, scale = np.array([0.4, 0.5, 0.3][: shape[2]], np.float32), np.array([2.0], np.float32)
    check(model_of(zoo.build(name, 7), shape, Normalize(mean, scale)), images=2)


def test_unet_and_a_mean_image():
    mean = np.random.default_rng(0).random((16, 24, 2)).astype(np.float32)
    check(model_of(zoo.unet(3, width=4, depth=2), (16, 24, 2), Normalize(mean, np.ones(1, np.float32))))


def test_several_outputs():
    net = Network(
        (Node("a", Conv2D(4, 3)), Node("b", GlobalAvgPool2D(), ("a",)), Node("both", Outputs(), ("b", "a")))
    )
    model = model_of(net)
    x = np.random.default_rng(1).random((2, *SHAPE)).astype(np.float32)
    want = model.predict(x)
    assert isinstance(want, tuple) and [y.shape for y in want] == [(2, 4), (2, 6, 5, 4)]
    content = daskconv.save_onnx(model)
    for results in (elsewhere(content, x), daskconv.load_onnx(content).predict(x)):
        for got, y in zip(results, want):
            np.testing.assert_allclose(got, y, rtol=1e-5, atol=1e-6)


def test_a_trained_model_goes_away_and_comes_back(tmp_path):
    data = daskconv.datasets.load("digits")
    trainer = daskconv.Trainer(
        "mnist_cnn", optimizer=daskconv.SGD(0.03, momentum=0.9), preprocess="standardize", transport="local"
    )
    trainer.fit(data.x_train, data.y_train, epochs=1, progress=False)
    daskconv.save_onnx(trainer.model, tmp_path / "digits.onnx")
    (scores,) = elsewhere((tmp_path / "digits.onnx").read_bytes(), data.x_test.astype(np.float32))
    own = trainer.model.predict(data.x_test, precision="exact")
    np.testing.assert_allclose(scores, own, rtol=0, atol=1e-5 * abs(own).max())
    loaded = daskconv.load_onnx(tmp_path / "digits.onnx")
    tuned = daskconv.Trainer(loaded, optimizer=daskconv.SGD(0.01), transport="local")
    tuned.fit(data.x_train, data.y_train, epochs=1, progress=False)
    assert tuned.evaluate(data.x_test, data.y_test)["accuracy"] > 0.9


def test_a_fresh_process_predicts_the_same_bits(tmp_path):
    model = model_of(zoo.resnet20(), (32, 32, 3))
    x = np.random.default_rng(2).random((3, 32, 32, 3)).astype(np.float32)
    daskconv.load_onnx(daskconv.save_onnx(model)).save(tmp_path / "m.safetensors")
    np.savez(tmp_path / "x.npz", x=x, y=daskconv.load(tmp_path / "m.safetensors").predict(x))
    code = (
        "import sys, numpy as np, daskconv; d = np.load(sys.argv[2]);"
        "assert (daskconv.load(sys.argv[1]).predict(d['x']) == d['y']).all()"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "m.safetensors", tmp_path / "x.npz"], check=True)


def test_what_cannot_be_written_is_refused(tmp_path):
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Own(Layer):
        def forward(self, params, x, context):
            return x, None

    refuse("Layer 'own1' is a Own, which is not written", daskconv.save_onnx, model_of(Sequential([Own()])))
    model = model_of(Sequential([Conv2D(2, 1)]))
    model.input_shape = ()
    refuse("does not know the shape", daskconv.save_onnx, model)
    model.input_shape = SHAPE
    refuse(
        "cannot be written", daskconv.save_onnx, model, tmp_path / "no" / "f", error=daskconv.errors.DataError
    )
