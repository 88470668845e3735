"""Networks: names, shapes, initial weights, methods and trainable parameters."""

from dataclasses import dataclass

import numpy as np
import pytest

import daskconv
from daskconv import (
    Add,
    AvgPool2D,
    Concat,
    Constant,
    Context,
    Conv2D,
    Dense,
    GlorotUniform,
    HeNormal,
    Initializer,
    MaxPool2D,
    Network,
    Node,
    Normal,
    ReLU,
    Sequential,
    zoo,
)
from daskconv.kernels import jit
from reference import EXACT, refuse

LENET = zoo.lenet()
SHAPE = (8, 8, 1)


def test_sequential_names_layers_by_kind_and_count():
    net = Sequential([Conv2D(2, 1), ReLU(), ("mine", Conv2D(2, 1)), Conv2D(2, 1), MaxPool2D(2), AvgPool2D(2)])
    assert [node.name for node in net.nodes] == ["conv1", "relu1", "mine", "conv2", "maxpool1", "avgpool1"]
    assert [node.inputs for node in net.nodes[:3]] == [("input",), ("conv1",), ("relu1",)]


def test_shapes_of_each_node():
    assert LENET.shapes(SHAPE) == {
        "input": (8, 8, 1),
        "conv1": (8, 8, 20),
        "maxpool1": (4, 4, 20),
        "conv2": (4, 4, 50),
        "maxpool2": (2, 2, 50),
        "flatten1": (200,),
        "dense1": (500,),
        "relu1": (500,),
        "dense2": (10,),
    }
    assert LENET.output_shape(SHAPE) == (10,)


def test_a_node_sees_what_it_reads():
    net = Network(
        (
            Node("a", Conv2D(3, 1)),
            Node("b", Concat(), ("a", "input", "a")),
            Node("c", Add(), ("b", "b")),
        )
    )
    assert net.shapes((4, 4, 2)) == {"input": (4, 4, 2), "a": (4, 4, 3), "b": (4, 4, 8), "c": (4, 4, 8)}
    params = net.init(0, (4, 4, 2), np.float64)
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 2))
    y, _ = net.forward(params, x, Context(), net.choose_methods((4, 4, 2), "auto"))
    a = x @ params["a.weight"][0, 0]
    np.testing.assert_allclose(y, 2 * np.concatenate([a, x, a], -1), rtol=1e-12)


def test_initial_weights_depend_on_the_seed_and_the_position_only():
    first, again, other = LENET.init(0, SHAPE), LENET.init(0, SHAPE), LENET.init(1, SHAPE)
    assert list(first) == list(LENET.weight_shapes(SHAPE))
    for name, array in first.items():
        assert array.dtype == np.float32 and array.shape == LENET.weight_shapes(SHAPE)[name]
        np.testing.assert_array_equal(array, again[name])
        assert name.endswith("bias") or (array != other[name]).all()
    assert not (first["dense2.weight"][:200] == first["dense1.weight"][:, :10]).any()
    renamed = Network(
        tuple(
            Node(f"x{n.name}", n.layer, tuple(f"x{i}" if i != "input" else i for i in n.inputs))
            for n in LENET.nodes
        )
    )
    for (_, array), (_, same) in zip(first.items(), renamed.init(0, SHAPE).items(), strict=True):
        np.testing.assert_array_equal(array, same)


def test_equal_layers_start_with_other_weights():
    alike = Dense(3, weight_init=Normal(1.0), bias_init=Normal(1.0))
    params = Sequential([alike, alike]).init(0, (3,))
    draws = [array.ravel()[:3] for array in params.values()]
    assert len({draw.tobytes() for draw in draws}) == 4


def test_double_precision_weights_are_the_same_numbers():
    single, double = LENET.init(3, SHAPE), LENET.init(3, SHAPE, np.float64)
    for name, array in double.items():
        assert array.dtype == np.float64
        np.testing.assert_array_equal(array.astype(np.float32), single[name])


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [
        (Normal(0.3), 0.09),
        (HeNormal(), 2 / (3 * 3 * 40)),
        (GlorotUniform(), 2 / (9 * (40 + 60))),
        (Constant(2.0), 0.0),
    ],
)
def test_initial_weights_have_the_variance_of_their_recipe(initializer, variance):
    draws = initializer.draw(np.random.default_rng(0), (3, 3, 40, 60))
    assert draws.shape == (3, 3, 40, 60)
    assert draws.mean() == pytest.approx(2.0 if isinstance(initializer, Constant) else 0, abs=0.02)
    assert draws.var() == pytest.approx(variance, rel=0.03)
    if isinstance(initializer, GlorotUniform):
        assert abs(draws).max() <= np.sqrt(6 / (9 * 100))


def test_a_custom_initializer_is_used():
    @dataclass(frozen=True)
    class Ramp(Initializer):
        def draw(self, generator, shape):
            return np.arange(float(np.prod(shape))).reshape(shape)

    params = Sequential([Dense(2, weight_init=Ramp(), bias_init=Constant(7))]).init(0, (3,))
    assert params["dense1.weight"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert params["dense1.bias"].tolist() == [7, 7]
    with pytest.raises(NotImplementedError):
        Initializer().draw(np.random.default_rng(0), (2,))


NAMES = tuple(
    f"{layer}.{kind}" for layer in ("conv1", "conv2", "dense1", "dense2") for kind in ("weight", "bias")
)


@pytest.mark.parametrize(
    ("trainable", "names"),
    [
        (None, NAMES),
        ("*", NAMES),
        ("dense*", NAMES[4:]),
        (["*.bias"], NAMES[1::2]),
        (["dense2.bias", "conv1.*"], (*NAMES[:2], NAMES[-1])),
        (["conv?.weight", "*"], NAMES),
        ([], ()),
    ],
)
def test_patterns_pick_parameters_in_the_order_of_the_network(trainable, names):
    assert LENET.trainable_names(SHAPE, trainable) == names


@pytest.mark.parametrize("pattern", ["dense3*", "Dense*", "conv1", ""])
def test_a_pattern_that_matches_nothing_is_refused(pattern):
    sentence = refuse(
        f"trainable={pattern!r} matches no parameter", LENET.trainable_names, SHAPE, ["*", pattern]
    )
    assert "conv1.weight" in sentence


def test_methods_are_chosen_by_layer():
    everywhere = LENET.choose_methods(SHAPE, "pipelined")
    assert everywhere == dict.fromkeys(
        ("conv1", "conv2"), dict.fromkeys(("forward", "input_grad", "weight_grad"), "pipelined")
    )
    mixed = LENET.choose_methods(SHAPE, {"conv2": "pipelined"})
    rule = "implicit" if jit.enabled() else "lowering"
    assert set(mixed["conv2"].values()) == {"pipelined"} and set(mixed["conv1"].values()) == {rule}


@pytest.mark.parametrize(
    ("method", "match"),
    [
        ("Winograd", "method is 'Winograd': choose one of auto, direct, lowering, pipelined"),
        ({"conv1": "fourier"}, "method is 'fourier': choose one of"),
        (
            {"conv9": "lowering", "conv1": "lowering"},
            "method names the layers ['conv9'], but the network has ['conv1'",
        ),
        ({"dense1": "lowering"}, "method names ['dense1'], which are no convolutions: leave them out"),
    ],
)
def test_methods_that_do_not_exist_are_refused(method, match):
    refuse(match, LENET.choose_methods, SHAPE, method)


def test_every_method_gives_the_same_scores():
    params = LENET.init(0, SHAPE, np.float64)
    x = np.random.default_rng(0).standard_normal((3, *SHAPE))
    scores = [
        LENET.forward(params, x, Context(threads=2), LENET.choose_methods(SHAPE, method))[0]
        for method in (*EXACT, {"conv2": EXACT[0]})
    ]
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], rtol=1e-11)


@pytest.mark.parametrize(
    ("nodes", "match"),
    [
        ((), "The network has no layers: give at least one"),
        ((Node("a", ReLU()), Node("a", ReLU(), ("a",))), "Two nodes are called 'a': give each its own name"),
        ((Node("input", ReLU()),), "Two nodes are called 'input'"),
        (
            (Node("a", ReLU(), ("b",)), Node("b", ReLU())),
            "Node 'a' reads ['b'], but only ['input'] come before it",
        ),
        ((Node("a", ReLU(), ("a",)),), "Node 'a' reads ['a']"),
        ((Node("a", ReLU(), ()),), "Node 'a' reads []"),
        (
            (Node("a", ReLU()), Node("b", Add(), ("a", "c"))),
            "Node 'b' reads ['a', 'c'], but only ['a', 'input']",
        ),
    ],
)
def test_a_network_that_is_no_graph_is_refused(nodes, match):
    refuse(match, Network, nodes)


def test_a_layer_that_does_not_fit_is_named():
    net = Sequential([Conv2D(4, 3), ("head", Dense(2))])
    refuse("Layer 'head': Dense gets an input of shape (3, 3, 4): put a Flatten()", net.shapes, (5, 5, 1))
    refuse("Layer 'conv1': The kernel spans 3 pixels of h but", net.init, 0, (2, 2, 1))
    for method in (net.output_shape, net.weight_shapes, net.flops, net.summary):
        refuse("Layer 'conv1': Conv2D gets an input of shape (5,)", method, (5,))


def test_the_summary_has_a_row_a_layer_and_a_total():
    summary = zoo.cifar10_quick().summary((32, 32, 3))
    lines = summary.splitlines()
    assert lines[0].split() == ["cifar10_quick", "input", "(32,", "32,", "3)"]
    assert lines[1].split() == ["layer", "kind", "output", "params", "MFLOP"]
    assert [line.split()[0] for line in lines[2:-1]] == [node.name for node in zoo.cifar10_quick().nodes]
    assert lines[2].split() == ["conv1", "Conv2D", "(32,", "32,", "32)", "2,432", "4.915"]
    assert lines[-1].split() == ["total", "145,578", "24.708"]
    assert len({len(line) for line in lines[1:]}) == 1, "columns are aligned"


def test_cifar10_quick_is_caffes_net():
    net = zoo.cifar10_quick()
    assert sum(array.size for array in net.init(0, (32, 32, 3)).values()) == 145_578
    shapes = net.shapes((32, 32, 3))
    assert [shapes[name] for name in ("conv1", "maxpool1", "conv2", "avgpool1", "conv3", "avgpool2")] == [
        (32, 32, 32),
        (16, 16, 32),
        (16, 16, 32),
        (8, 8, 32),
        (8, 8, 64),
        (4, 4, 64),
    ]
    assert net.weight_shapes((32, 32, 3)) == {
        "conv1.weight": (5, 5, 3, 32),
        "conv1.bias": (32,),
        "conv2.weight": (5, 5, 32, 32),
        "conv2.bias": (32,),
        "conv3.weight": (5, 5, 32, 64),
        "conv3.bias": (64,),
        "dense1.weight": (1024, 64),
        "dense1.bias": (64,),
        "dense2.weight": (64, 10),
        "dense2.bias": (10,),
    }
    kinds = [type(node.layer).__name__ for node in net.nodes]
    order = "Conv2D MaxPool2D ReLU Conv2D ReLU AvgPool2D Conv2D ReLU AvgPool2D Flatten Dense Dense"
    assert kinds == order.split()
    params = net.init(0, (32, 32, 3))
    for name, std in {"conv1": 1e-4, "conv2": 1e-2, "conv3": 1e-2, "dense1": 1e-1, "dense2": 1e-1}.items():
        assert params[f"{name}.weight"].std() == pytest.approx(std, rel=0.1)
        assert not params[f"{name}.bias"].any()


def test_mnist_cnn_is_the_net_of_the_examples():
    net = zoo.mnist_cnn()
    shapes = net.shapes((28, 28, 1))
    assert [shapes[name] for name in ("conv1", "conv2", "maxpool1", "flatten1", "dense1", "dense2")] == [
        (28, 28, 32),
        (28, 28, 64),
        (14, 14, 64),
        (12_544,),
        (128,),
        (10,),
    ]
    assert sum(array.size for array in net.init(0, (28, 28, 1)).values()) == 1_625_866


def test_a_block_of_images_gives_the_scores_of_each_image():
    net = zoo.cifar10_quick()
    params = net.init(0, (32, 32, 3), np.float64)
    x = np.random.default_rng(0).standard_normal((3, 32, 32, 3))
    methods = net.choose_methods((32, 32, 3), "auto")
    together, _ = net.forward(params, x, Context(), methods)
    for i in range(3):
        alone, _ = net.forward(params, x[i : i + 1], Context(), methods)
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-10, atol=1e-15)


def test_public_names_are_there():
    assert daskconv.Sequential is Sequential and daskconv.zoo.build is zoo.build
