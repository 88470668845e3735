"""A trained model gets a new head, and the rest of it is frozen or goes on learning."""

from pathlib import Path

import numpy as np
import pytest

import daskconv
from daskconv import (
    Add,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    GlobalAvgPool2D,
    Model,
    Network,
    Node,
    Outputs,
    ReLU,
    Reshape,
    Sequential,
    Softmax,
    zoo,
)
from train.small import TINY, X, Y, bits, fit, refuse, trainer

FEW = (Y < 4).nonzero()[0]
SMALL = {"cifar10_quick": (32, 32, 3), "resnet20": (32, 32, 3), "resnet56": (32, 32, 3), "unet": (16, 16, 1)}
SMALL |= {"lenet": (8, 8, 1), "mnist_cnn": (8, 8, 1)}


def model_of(net, shape, **options):
    return Model(net, net.init(0, shape), net.init_statistics(shape), input_shape=shape, **options)


def unchanged(one, other, but):
    """All arrays but those of a head are the same ones."""
    assert one.params.keys() == other.params.keys() and one.state.keys() == other.state.keys()
    own = {name for name in one.params if name.rpartition(".")[0] in but}
    for name in one.params.keys() - own:
        assert one.params[name] is other.params[name]
    assert own and all(one.params[name].shape != other.params[name].shape for name in own)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_network_of_the_zoo_gets_a_head_as_if_built_with_it(name):
    """The new weights are those of a network that starts with so many classes and the same seed."""
    shape = SMALL.get(name, (64, 64, 3))
    before = zoo.unet(2, width=4, depth=2) if name == "unet" else zoo.build(name, 10)
    after = zoo.unet(3, width=4, depth=2) if name == "unet" else zoo.build(name, 3)
    shapes = before.weight_shapes(shape)
    model = Model(before, {n: np.zeros(size, np.float32) for n, size in shapes.items()}, input_shape=shape)
    tuned = model.with_head(3, seed=5)
    assert tuned.network == after and tuned.class_names == ()
    unchanged(tuned, model, tuned.heads)
    if name not in ("alexnet", "vgg11", "vgg16", "vgg19"):  # large ones take seconds
        want = after.init(5, shape)
        for weight in tuned.params:
            if weight.rpartition(".")[0] in tuned.heads:
                np.testing.assert_array_equal(tuned.params[weight], want[weight])


def test_fine_tuning_a_frozen_network():
    trained = fit(trainer(TINY, class_names=list("0123456789")), epochs=10).model
    model = trained.with_head(class_names=list("0123"), seed=1)
    tuner = trainer(model, preprocess=None, trainable=[f"{name}.*" for name in model.heads])
    history = fit(tuner, X[FEW], Y[FEW], epochs=10, batch_size=20)
    after = tuner.model
    assert history.history["accuracy"][-1] > 0.95 and after.class_names == tuple("0123")
    assert after.predict(X[:3]).shape == (3, 4) and trained.predict(X[:3]).shape == (3, 10)
    same = {name for name in bits(trained) if bits(trained)[name] == bits(after)[name]}
    assert same == set(trained.params) - {"dense1.weight", "dense1.bias"}
    assert after.preprocess is trained.preprocess


def test_all_layers_go_on_learning_where_none_is_frozen():
    trained = fit(trainer(TINY)).model
    before = bits(trained)
    after = bits(fit(trainer(trained.with_head(4), preprocess=None), X[FEW], Y[FEW], batch_size=20))
    assert before == bits(trained) and all(before[name] != after[name] for name in before)


def test_a_softmax_is_left_out_and_reshapes_follow():
    nodes = [("conv", Conv2D(6, 1)), GlobalAvgPool2D(keepdims=True), Reshape((6,)), Softmax(), ReLU()]
    model = model_of(Sequential(nodes), (4, 4, 2))
    tuned = model.with_head(3)
    kinds = [type(node.layer).__name__ for node in tuned.network.nodes]
    assert kinds == ["Conv2D", "GlobalAvgPool2D", "Reshape", "ReLU"] and tuned.heads == ("conv",)
    assert tuned.network.output_shape((4, 4, 2)) == (3,)


def test_each_of_several_outputs_gets_a_head():
    net = Network(
        (
            Node("flat", Flatten()),
            Node("one", Dense(5), ("flat",)),
            Node("other", Dense(5), ("flat",)),
            Node("all", Outputs(), ("one", "other")),
        )
    )
    tuned = model_of(net, (2, 2, 1)).with_head(2)
    assert tuned.heads == ("one", "other") and tuned.network.output_shape((2, 2, 1)) == ((2,), (2,))
    assert [y.shape for y in tuned.predict(np.zeros((3, 2, 2, 1)))] == [(3, 2), (3, 2)]


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        (
            [Conv2D(4, 1), BatchNorm(), ReLU()],
            "has no head to replace: its output 'relu1' comes from 'batchnorm1', a",
        ),
        ([Conv2D(4, 3), ReLU(), GlobalAvgPool2D()], "comes from 'conv1', a Conv2D, and not from a Dense"),
        ([ReLU(), Flatten()], "its output 'flatten1' comes from the images themselves"),
    ],
)
def test_networks_without_a_head(layers, match):
    refuse(match, model_of(Sequential(layers), (5, 5, 2)).with_head, 3)


def test_a_residual_sum_is_no_head():
    nodes = (Node("a", Conv2D(2, 1)), Node("b", Conv2D(2, 1)), Node("sum", Add(), ("a", "b")))
    refuse("'sum' comes from 'sum', a Add", model_of(Network(nodes), (4, 4, 2)).with_head, 3)


def test_classes_and_names_that_contradict():
    model = model_of(TINY, (8, 8, 1))
    refuse("classes is 3 but there are 2 class_names", model.with_head, 3, class_names=["a", "b"])
    refuse("classes", model.with_head)
    refuse("classes", model.with_head, 0)
    refuse("seed is -1", model.with_head, 3, seed=-1)


def onnx_of(*nodes, **weights):
    """An ONNX model of images (n, 2, 4, 4)."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: no heads of ONNX models (extra: onnx)")
    helper = onnx.helper
    made = [helper.make_node(kind, read.split(), [out], name=out, **more) for kind, read, out, more in nodes]
    arrays = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    entries = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2, 4, 4])]
    ends = [helper.make_tensor_value_info(nodes[-1][2], onnx.TensorProto.FLOAT, [None])]
    graph = helper.make_graph(made, "g", entries, ends, arrays)
    opsets = [helper.make_opsetid("", 17)]
    return daskconv.load_onnx(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )


def ramp(*shape):
    return np.linspace(-1, 1, np.prod(shape), dtype=np.float32).reshape(shape)


HEADS = {
    "gemm": (
        [("Flatten", "x", "f", {}), ("Gemm", "f w b", "y", {"transB": 1})],
        {"w": ramp(6, 32), "b": ramp(6)},
    ),
    "matmul and add": (
        [
            ("Flatten", "x", "f", {}),
            ("MatMul", "f w", "m", {}),
            ("Add", "m b", "a", {}),
            ("Softmax", "a", "y", {}),
        ],
        {"w": ramp(32, 6), "b": ramp(6)},
    ),
    "convolution": (
        [
            *(("Conv", "x w", "c", {}), ("Relu", "c", "r", {}), ("GlobalAveragePool", "r", "p", {})),
            *(("Reshape", "p s", "f", {}), ("Softmax", "f", "y", {"axis": 1})),
        ],
        {"w": ramp(6, 2, 1, 1), "s": np.array([0, 6], np.int64)},
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_models_from_onnx(name):
    nodes, weights = HEADS[name]
    model = onnx_of(*nodes, **weights)
    tuned = model.with_head(class_names=["a", "b", "c"])
    x = np.random.default_rng(0).standard_normal((5, 4, 4, 2)).astype(np.float32)
    assert tuned.predict(x).shape == (5, 3) and model.predict(x).shape == (5, 6)
    assert not any(isinstance(node.layer, Softmax) for node in tuned.network.nodes)
    after = fit(trainer(tuned, preprocess=None), x, np.array([0, 1, 2, 0, 1]), batch_size=5).model
    assert after.predict(x).shape == (5, 3)


def test_the_example_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model_of(zoo.lenet(), (8, 8, 1)).save("digits.safetensors")
    section = (Path(__file__).parents[2] / "README.md").read_text().partition("### Fine-tuning")[2]
    block = section.partition("```python\n")[2].partition("```")[0]
    names = {"daskconv": daskconv, "data": daskconv.datasets.load("digits")}
    exec(block, names)
    assert names["few"].heads == ("dense2",) and names["trainer"].history["accuracy"][-1] > 0.7
