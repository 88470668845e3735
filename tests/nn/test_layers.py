"""What the layers compute and what they refuse."""

import numpy as np
import pytest

from daskconv import (
    LRN,
    Add,
    AvgPool2D,
    ChannelShuffle,
    Concat,
    Context,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LpPool2D,
    MatMul,
    MaxPool2D,
    Mean,
    Multiply,
    Pad,
    Parameter,
    PReLU,
    ReLU,
    Reshape,
    Resize,
    Slice,
    Softmax,
    conv2d,
)
from daskconv.nn.layers import resize
from reference import refuse

INFERENCE, TRAINING = Context(), Context(training=True)


def forward(layer, x, context=INFERENCE, **params):
    return layer.forward(params, x, context)[0]


def test_a_conv2d_layer_is_conv2d_with_its_options():
    layer = Conv2D(6, (3, 2), stride=2, padding="same", dilation=(1, 2), groups=2)
    rng = np.random.default_rng(0)
    x, w, bias = (rng.standard_normal(shape) for shape in [(2, 7, 6, 4), (3, 2, 2, 6), (6,)])
    y = forward(layer, x, weight=w, bias=bias)
    options = {"stride": 2, "padding": "same", "dilation": (1, 2), "groups": 2, "method": "lowering"}
    np.testing.assert_array_equal(y, conv2d(x, w, bias, **options))
    assert y.shape[1:] == layer.output_shape((7, 6, 4))
    sizes = {name: shape for name, (shape, _) in layer.weights((7, 6, 4)).items()}
    assert sizes == {"weight": w.shape, "bias": bias.shape}
    assert layer.flops((7, 6, 4)) == 2 * 4 * 3 * 6 * (3 * 2 * 2)
    assert set(Conv2D(6, 3, bias=False).weights((7, 6, 4))) == {"weight"}


def test_dense_is_a_product_plus_bias():
    x, w = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0, 3.0], [0.0, 1.0, 4.0]])
    assert forward(Dense(3), x, weight=w, bias=np.array([5.0, 6.0, 7.0])).tolist() == [[6, 8, 18]]
    assert forward(Dense(3, bias=False), x, weight=w).tolist() == [[1, 2, 11]]
    assert Dense(3).flops((2,)) == 12 and Dense(3).output_shape((2,)) == (3,)


def test_relu_keeps_what_is_positive_and_nan():
    y = forward(ReLU(), np.array([[-1.0, 0.0, 2.0, np.nan, -np.inf]]))
    np.testing.assert_array_equal(y, [[0, 0, 2, np.nan, 0]])


def test_shapes_go_through():
    assert ReLU().output_shape((3, 4, 5)) == (3, 4, 5) and Dropout(0.1).output_shape((7,)) == (7,)
    assert Flatten().output_shape((3, 4, 5)) == (60,)
    assert Add().output_shape(((3, 4), (3, 4), (3, 4))) == (3, 4)
    assert Concat().output_shape(((3, 4, 1), (3, 4, 6))) == (3, 4, 7)


def test_flatten_keeps_channels_last():
    x = np.arange(12.0).reshape(1, 2, 2, 3)
    assert forward(Flatten(), x).tolist() == [list(range(12))]


def test_add_and_concat_leave_their_inputs_alone():
    inputs = tuple(np.full((1, 2, 2, c), float(c)) for c in (2, 2, 2))
    assert (forward(Add(), inputs) == 6).all()
    assert forward(Concat(), inputs).shape == (1, 2, 2, 6)
    assert all((x == 2).all() for x in inputs)


class TestPoolingAsElsewhere:
    """Figures of PyTorch's max_pool2d and avg_pool2d, whose ceil_mode is Caffe's rounding."""

    x = np.arange(1.0, 17.0).reshape(1, 4, 4, 1)

    def pooled(self, layer):
        return forward(layer, self.x)[0, :, :, 0].round(4).tolist()

    def test_max(self):
        assert self.pooled(MaxPool2D(2)) == [[6, 8], [14, 16]]
        assert self.pooled(MaxPool2D(3, stride=2)) == [[11]]
        assert self.pooled(MaxPool2D(3, stride=2, ceil_mode=True)) == [[11, 12], [15, 16]]
        padded = MaxPool2D(3, stride=2, padding=1, ceil_mode=True)
        assert self.pooled(padded) == [[6, 8, 8], [14, 16, 16], [14, 16, 16]]

    def test_average(self):
        assert self.pooled(AvgPool2D(2)) == [[3.5, 5.5], [11.5, 13.5]]
        assert self.pooled(AvgPool2D(3, stride=2, ceil_mode=True)) == [[6, 7.5], [12, 13.5]]
        options = {"stride": 2, "padding": 1, "ceil_mode": True}
        padded = [[1.5556, 3.3333, 2], [6.3333, 11, 6], [4.5, 7.5, 4]]
        assert self.pooled(AvgPool2D(3, **options)) == padded
        real = [[3.5, 5, 6], [9.5, 11, 12], [13.5, 15, 16]]
        assert self.pooled(AvgPool2D(3, **options, count_include_pad=False)) == real

    def test_a_window_larger_than_the_image(self):
        small = self.x[:, :2, :2]
        for kind, figure in ((MaxPool2D, 6), (AvgPool2D, 3.5)):
            assert forward(kind(3, stride=2, ceil_mode=True), small).tolist() == [[[[figure]]]]
            refuse("spans 3 pixels of h but", kind(3, stride=2).output_shape, (2, 2, 1))
            refuse("spans 3 pixels of h but", kind(3, stride=1, ceil_mode=True).output_shape, (2, 2, 1))

    @pytest.mark.parametrize(
        ("size", "floor", "ceil"), [(32, 15, 16), (16, 7, 8), (8, 3, 4), (7, 3, 3), (4, 1, 2), (3, 1, 1)]
    )
    def test_sizes_of_a_3x3_window_with_stride_2(self, size, floor, ceil):
        for kind in (MaxPool2D, AvgPool2D):
            assert kind(3, stride=2).output_shape((size, size, 5)) == (floor, floor, 5)
            assert kind(3, stride=2, ceil_mode=True).output_shape((size, size, 5)) == (ceil, ceil, 5)

    def test_the_stride_is_the_kernel_when_not_given(self):
        assert MaxPool2D((2, 3)).output_shape((6, 6, 1)) == (3, 2, 1)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_nan_pixel_is_seen(self, dtype):
        x = self.x.astype(dtype)
        x[0, 1, 1] = np.nan
        for layer in (MaxPool2D(2), AvgPool2D(2)):
            y = forward(layer, x)[0, :, :, 0]
            assert y.dtype == dtype and np.isnan(y).tolist() == [[True, False], [False, False]]


class TestDropout:
    layer = Dropout(0.3)
    shape = (6, 5, 4)

    def masks(self, images, layer=0, seed=7, epoch=2, rate=0.3, dtype="float64"):
        """The factors of ones, by image."""
        context = Context(training=True, images=np.array(images), seed=seed, epoch=epoch, layer=layer)
        return forward(Dropout(rate), np.ones((len(images), *self.shape), dtype), context)

    def test_an_image_meets_the_same_mask_in_any_block(self):
        whole = self.masks(range(12))
        for blocks in ([[0, 1, 2], [3], range(4, 12)], [[11, 4, 0], [1, 2, 3, 5, 10], [6, 9, 8, 7]]):
            for block in blocks:
                np.testing.assert_array_equal(self.masks(block), whole[list(block)])

    def test_another_image_epoch_seed_or_layer_meets_another_mask(self):
        base = self.masks([5])
        for other in (
            self.masks([6]),
            self.masks([5], epoch=3),
            self.masks([5], seed=8),
            self.masks([5], layer=1),
            self.masks([5], seed=2, epoch=7),
        ):
            assert 0.2 < (base != other).mean() < 0.7

    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
    def test_the_share_dropped_is_near_the_rate_and_the_mean_stays(self, rate):
        masks = self.masks(range(100), rate=rate)
        dropped = (masks == 0).mean()
        spread = np.sqrt(rate * (1 - rate) / masks.size)
        assert abs(dropped - rate) < 5 * spread
        assert np.unique(masks).tolist() == pytest.approx([0, 1 / (1 - rate)])
        assert abs(masks.mean() - 1) < 5 * spread / (1 - rate)

    def test_no_pixel_is_favoured(self):
        share = (self.masks(range(400)) == 0).mean(0)
        assert abs(share - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 400)

    def test_inference_and_rate_0_change_nothing(self):
        x = np.random.default_rng(0).standard_normal((3, *self.shape))
        np.testing.assert_array_equal(forward(self.layer, x), x)
        np.testing.assert_array_equal(forward(Dropout(0.0), x, TRAINING), x)

    def test_the_gradient_meets_the_same_mask(self):
        x = np.random.default_rng(0).standard_normal((3, *self.shape))
        y, saved = self.layer.forward({}, x, TRAINING)
        dx, _ = self.layer.backward({}, saved, x, TRAINING)
        np.testing.assert_array_equal(dx, y)
        _, saved = self.layer.forward({}, x, INFERENCE)
        np.testing.assert_array_equal(self.layer.backward({}, saved, x, INFERENCE)[0], x)

    def test_the_dtype_stays_and_its_mask_is_the_same(self):
        single, double = self.masks([1, 2], dtype="float32"), self.masks([1, 2])
        assert single.dtype == np.float32
        np.testing.assert_array_equal(single == 0, double == 0)


@pytest.mark.parametrize(
    ("layer", "shape", "match"),
    [
        (Conv2D(4, 3), (36,), "Conv2D gets an input of shape (36,): it needs images (h, w, c)"),
        (MaxPool2D(3), (36,), "MaxPool2D gets an input of shape (36,): it needs images (h, w, c)"),
        (AvgPool2D(3), (6, 6), "AvgPool2D gets an input of shape (6, 6): it needs images (h, w, c)"),
        (Conv2D(4, 7), (6, 6, 1), "The kernel spans 7 pixels of h but the padded image has 6"),
        (MaxPool2D((2, 9)), (6, 6, 1), "The kernel spans 9 pixels of w but the padded image has 6"),
        (Conv2D(4, 3, dilation=3), (6, 6, 1), "The kernel spans 7 pixels of h"),
        (Conv2D(4, 3, groups=2), (6, 6, 3), "groups is 2: it has to divide the 3 input and the 4 output"),
        (Conv2D(5, 3, groups=2), (6, 6, 4), "groups is 2: it has to divide the 4 input and the 5 output"),
        (Conv2D(0, 3), (6, 6, 4), "the 0 output channels"),
        (Conv2D(4, 3, groups=0), (6, 6, 4), "groups is 0"),
        (Conv2D(4, 0), (6, 6, 1), "kernel is 0"),
        (Conv2D(4, 3, stride=(1, 0)), (6, 6, 1), "stride is (1, 0)"),
        (Conv2D(4, 3, padding="full"), (6, 6, 1), "padding is 'full'"),
        (AvgPool2D(2, stride=0), (6, 6, 1), "stride is 0"),
        (AvgPool2D(2, padding=-1), (6, 6, 1), "padding is -1"),
        (Conv2D(4, 1), (0, 6, 1), "h is 0: an image needs at least one pixel"),
        (Dense(3), (6, 6, 1), "Dense gets an input of shape (6, 6, 1): put a Flatten() before it"),
        (Dense(0), (6,), "units is 0: give an int of at least 1"),
        (Dropout(1.0), (6,), "Dropout has rate 1.0: give a share of at least 0 and below 1"),
        (Dropout(-0.1), (6,), "Dropout has rate -0.1"),
        (Dropout(float("nan")), (6,), "Dropout has rate nan"),
        (Add(), (6, 6, 1), "Add gets an input of shape (6, 6, 1): it needs at least two inputs"),
        (Add(), ((6, 3), (6, 2)), "Add gets inputs of shapes ((6, 3), (6, 2))"),
        (
            Concat(),
            ((5, 6, 1), (6, 6, 2)),
            "Concat gets inputs of shapes ((5, 6, 1), (6, 6, 2)): all axes but number 2",
        ),
        (Concat(), ((36,), (6, 6, 2)), "Concat gets inputs of shapes ((36,), (6, 6, 2))"),
        (Concat(), (6, 6, 2), "Concat gets inputs of shapes (6, 6, 2)"),
        (Multiply(), ((6,), (6,), (6,)), "Multiply gets 3 inputs: it needs two"),
        (MatMul(), ((4, 2, 3), (5, 3, 2)), "MatMul gets inputs of shapes ((4, 2, 3), (5, 3, 2))"),
        (PReLU(), (), "PReLU gets an input of shape ()"),
        (Softmax(1.0), (6, 6, 2), "Softmax has axis 1.0"),
        (LRN(2.5), (6, 6, 2), "LRN has size 2.5"),
        (LpPool2D(2, p=float("inf")), (6, 6, 2), "LpPool2D has p inf"),
        (LpPool2D(2, p="two"), (6, 6, 2), "LpPool2D has p 'two'"),
        (
            Mean((0, -3)),
            (6, 6, 2),
            "Mean has axes (0, -3) for an input of shape (6, 6, 2): name each of them once",
        ),
        (Mean(0), (6, 6, 2), "Mean has axes 0"),
        (Reshape(72), (6, 6, 2), "Reshape has shape 72: give a tuple of ints"),
        (Reshape((36.0, 2)), (6, 6, 2), "Reshape has shape (36.0, 2)"),
        (Slice((0.5,), (2,), (1,)), (6,), "Slice has starts (0.5,)"),
        (Slice(0, 2, 1), (6,), "Slice has starts 0"),
        (ChannelShuffle(0), (6, 6, 2), "groups is 0"),
        (ChannelShuffle(3), (6, 6, 2), "ChannelShuffle has 3 groups"),
        (Parameter((-1, 2)), (6,), "Parameter has shape (-1, 2)"),
        (Pad(1), (6, 6, 2), "Pad has padding 1"),
        (Pad(((1, 1), (1, 1))), (6, 6, 2), "Pad has padding ((1, 1), (1, 1))"),
        (Pad(((0.5, 0),)), (6,), "Pad has padding ((0.5, 0),)"),
        (Pad(((-7, 9),)), (6,), "which leaves nothing of an input of shape (6,)"),
        (Pad(((-4, 4), (-3, -3)), "edge"), (6, 6), "which leaves nothing of an input of shape (6, 6)"),
        (ConvTranspose2D(2, 3, 2, output_padding=2), (6, 6, 2), "ConvTranspose2D has output_padding 2"),
        (ConvTranspose2D(2, 3, 2, output_padding=0.5), (6, 6, 2), "ConvTranspose2D has output_padding 0.5"),
        (ConvTranspose2D(2, 3, 2, output_padding=(1, 1, 1)), (6, 6, 2), "has output_padding (1, 1, 1)"),
        (Resize(scale=float("nan")), (6, 6, 2), "Resize has scale nan"),
        (Resize(scale=float("inf")), (6, 6, 2), "Resize has scale inf"),
        (Resize(scale=(1, 2, 3)), (6, 6, 2), "Resize has scale (1, 2, 3)"),
        (Resize(3), (6, 6, 2), "Resize has size 3"),
        (Resize((2.5, 3)), (6, 6, 2), "Resize has size (2.5, 3)"),
        (Resize((3, 3), roi=(0, 1)), (6, 6, 2), "Resize has roi (0, 1)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_layer_refuses_what_does_not_fit(layer, shape, match):
    refuse(match, layer.output_shape, shape)


def test_the_bare_layer_has_no_passes():
    assert Layer().output_shape((3,)) == (3,) and Layer().weights((3,)) == {} and Layer().flops((3,)) == 0
    with pytest.raises(NotImplementedError):
        Layer().forward({}, np.ones(3), INFERENCE)
    with pytest.raises(NotImplementedError):
        Layer().backward({}, None, np.ones(3), INFERENCE)


def test_layers_are_values():
    assert Conv2D(4, 3) == Conv2D(4, 3) != Conv2D(4, 3, padding=1)
    assert len({Dense(3), Dense(3), MaxPool2D(3), AvgPool2D(3)}) == 3


def test_lists_are_as_good_as_tuples_in_a_spec():
    assert Conv2D(2, [3, 3], padding=[[1, 0], [0, 1]]).output_shape((5, 5, 1)) == (4, 4, 2)
    assert hash(Conv2D(2, [3, 3])) == hash(Conv2D(2, (3, 3)))


def test_a_window_of_more_than_65536_taps_sends_its_gradient_to_the_winner():
    pool, x = MaxPool2D((1, 70000)), np.zeros((1, 1, 70000, 1))
    x[0, 0, 69999, 0] = 1
    _, saved = pool.forward({}, x, Context())
    dx, _ = pool.backward({}, saved, np.ones((1, 1, 1, 1)), Context())
    assert np.flatnonzero(dx).tolist() == [69999]


@pytest.mark.parametrize(("mode", "reach"), [("nearest", 2), ("linear", 3), ("cubic", 5)])
def test_a_nan_pixel_reaches_the_outputs_that_read_it_and_no_other(mode, reach):
    """Half-pixel places at twice the size: outputs 0 .. reach - 1 are sums with pixel 0."""
    x = np.zeros((1, 8, 8, 2))
    x[0, 0, 0, 1] = np.nan
    want = np.zeros((1, 16, 16, 2), bool)
    want[0, :reach, :reach, 1] = True
    np.testing.assert_array_equal(np.isnan(forward(Resize(scale=2.0, mode=mode), x)), want)


def test_a_resize_of_a_large_image_has_a_small_table():
    layer = Resize(scale=0.5, mode="linear")
    assert layer.output_shape((6000, 4000, 3)) == (3000, 2000, 3)
    table = resize._table(layer, 0, 6000)
    assert table.index.shape == table.weight.shape == (3000, 2)
    assert table.back_index.shape == table.back_weight.shape == (6000, 1)
    assert (table.weight.sum(1) == 1).all() and (table.back_weight == 0.5).all()
