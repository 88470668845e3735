"""What does not fit is refused before anything is computed, in one sentence that names the values."""

import dask.array as da
import numpy as np
import pytest

import daskconv
from reference import refuse

X = np.zeros((2, 6, 5, 4))
W = np.zeros((3, 2, 4, 6))
DY = np.zeros((2, 4, 4, 6))


def lazy(array):
    return da.from_array(array, chunks=1)


def unchanged(array):
    return array


@pytest.mark.parametrize("kind", [unchanged, lazy], ids=["NumPy", "Dask"])
class TestEveryPassRefuses:
    def all_passes(self, kind, match, x=X, w=W, dy=DY, **options):
        x, w, dy = kind(x), kind(w), kind(dy)
        refuse(match, daskconv.conv2d, x, w, **options)
        refuse(match, daskconv.conv2d_input_grad, dy, w, x.shape, **options)
        refuse(match, daskconv.conv2d_weight_grad, x, dy, w.shape, **options)

    def test_a_kernel_larger_than_the_padded_image(self, kind):
        match = "The kernel spans 9 pixels of h but the padded image has 7"
        self.all_passes(kind, match, dilation=(4, 1), padding=((0, 1), (0, 0)))
        match = "The kernel spans 6 pixels of w but the padded image has 5"
        self.all_passes(kind, match, dilation=(1, 5))

    def test_an_image_without_pixels(self, kind):
        self.all_passes(kind, "h is 0: an image needs at least one pixel", x=np.zeros((2, 0, 5, 4)))
        self.all_passes(kind, "w is 0: an image needs at least one pixel", x=np.zeros((2, 6, 0, 4)))

    def test_groups_that_do_not_divide(self, kind):
        for groups in (0, -1, 3, 8, 2.0, "2"):
            match = f"groups is {groups!r}: it has to divide the 4 input and the 6 output channels"
            self.all_passes(kind, match, groups=groups)

    def test_channels_that_differ(self, kind):
        match = (
            "x has 4 channels but w reads 4 x 2 groups: w has shape (3, 2, 4, 6), it should be (r, s, 2, k)"
        )
        self.all_passes(kind, match, groups=2)
        self.all_passes(kind, "x has 5 channels but w reads 4 x 1 groups", x=np.zeros((2, 6, 5, 5)))

    def test_weights_without_filters(self, kind):
        self.all_passes(kind, "the 0 output channels", w=np.zeros((3, 2, 4, 0)))

    def test_weights_of_another_number_of_axes(self, kind):
        self.all_passes(kind, "w has shape (2, 4, 6): give (r, s, c / groups, k)", w=W[0])

    def test_a_kernel_without_taps(self, kind):
        self.all_passes(kind, "kernel is (0, 2)", w=np.zeros((0, 2, 4, 6)))

    @pytest.mark.parametrize("value", [0, -1, (1, 0), (1, 2, 3), 1.5, "1", None, ()])
    @pytest.mark.parametrize("option", ["stride", "dilation"])
    def test_a_stride_or_dilation_below_1(self, kind, option, value):
        self.all_passes(kind, f"{option} is {value!r}: give an int or a pair", **{option: value})

    @pytest.mark.parametrize(
        "padding", [-1, (0, -1), ((0, 0), (0, -2)), (1, 2, 3), "full", "11", 0.5, None, ((1, 2, 3), (0, 0))]
    )
    def test_a_padding_below_0_or_unknown(self, kind, padding):
        self.all_passes(kind, f"padding is {padding!r}: give an int", padding=padding)

    @pytest.mark.parametrize("method", ["Winograd", "", "Direct"])
    def test_an_unknown_method(self, kind, method):
        match = f"method is {method!r}: choose one of auto, direct, lowering, pipelined"
        self.all_passes(kind, match, method=method)

    @pytest.mark.parametrize("data_format", ["nhwc", "CHWN", None])
    def test_an_unknown_data_format(self, kind, data_format):
        match = f"data_format is {data_format!r}: choose NHWC or NCHW"
        self.all_passes(kind, match, data_format=data_format)

    def test_images_of_another_number_of_axes(self, kind):
        x, w, dy = kind(X), kind(W), kind(DY)
        match = "x has shape (6, 5, 4): give four axes, NHWC"
        refuse(match, daskconv.conv2d, x[0], w)
        refuse(match, daskconv.conv2d_weight_grad, x[0], dy, w.shape)
        match = "dy has shape (2, 4, 4, 6, 1): give four axes, NCHW"
        refuse(match, daskconv.conv2d_input_grad, dy[..., None], w, X.shape, data_format="NCHW")
        refuse("dy has shape (4, 4, 6)", daskconv.conv2d_weight_grad, x, dy[0], w.shape)
        refuse("x_shape is (6, 5, 4): give four sizes", daskconv.conv2d_input_grad, dy, w, X.shape[1:])

    def test_a_gradient_of_another_shape(self, kind):
        x, w = kind(X), kind(W)
        for shape in [(2, 4, 4, 5), (3, 4, 4, 6), (2, 4, 5, 6)]:
            match = f"dy has shape {shape} (NHWC): for these options it should be (2, 4, 4, 6)"
            refuse(match, daskconv.conv2d_input_grad, kind(np.zeros(shape)), w, x.shape)
            refuse(match, daskconv.conv2d_weight_grad, x, kind(np.zeros(shape)), w.shape)

    def test_a_bias_of_another_shape(self, kind):
        for shape in [(5,), (6, 1), ()]:
            match = f"bias has shape {shape}: give one value for each of the 6 filters"
            refuse(match, daskconv.conv2d, kind(X), kind(W), np.zeros(shape))

    def test_dtypes_that_differ(self, kind):
        single = np.float32
        refuse("(x float64, w float32)", daskconv.conv2d, kind(X), kind(W.astype(single)))
        match = "The dtypes differ (x float64, w float64, bias float32): convert to one of them"
        refuse(match, daskconv.conv2d, kind(X), kind(W), np.zeros(6, single))
        refuse(
            "(dy float32, w float64)", daskconv.conv2d_input_grad, kind(DY.astype(single)), kind(W), X.shape
        )
        refuse(
            "(x float64, dy float32)",
            daskconv.conv2d_weight_grad,
            kind(X),
            kind(DY.astype(single)),
            W.shape,
        )

    @pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "complex64", "bool", ">f4"])
    def test_dtypes_that_are_not_floats_of_this_machine(self, kind, dtype):
        match = f"{np.dtype(dtype)}: convert to float32 or float64 first"
        refuse(f"x is {match}", daskconv.conv2d, kind(X.astype(dtype)), kind(W))
        refuse(f"w is {match}", daskconv.conv2d_input_grad, kind(DY), kind(W.astype(dtype)), X.shape)
        refuse(f"dy is {match}", daskconv.conv2d_weight_grad, kind(X), kind(DY.astype(dtype)), W.shape)


def test_chunks_of_unknown_size_are_refused():
    known = lazy(X)
    unknown = known[known[:, 0, 0, 0] >= 0]
    assert np.isnan(unknown.shape[0])
    match = "has chunks of unknown size: call compute_chunk_sizes() first"
    refuse(f"x {match}", daskconv.conv2d, unknown, W)
    refuse(f"x {match}", daskconv.conv2d_weight_grad, unknown, DY, W.shape)
    gradient = lazy(DY)[lazy(DY)[:, 0, 0, 0] >= 0]
    refuse(f"dy {match}", daskconv.conv2d_input_grad, gradient, W, X.shape)
    refuse(f"dy {match}", daskconv.conv2d_weight_grad, X, gradient, W.shape)
    assert daskconv.conv2d(unknown.compute_chunk_sizes(), W).compute().shape == DY.shape


def test_what_is_accepted_beside_the_refusals():
    y = daskconv.conv2d(X, W, stride=np.int64(2), dilation=[1, 1], padding=[[1, 0], [2, 3]])
    assert y.shape == (2, 3, 5, 6)
    assert daskconv.conv2d(X.tolist(), W).shape == DY.shape
