"""The loops that write a whole output, whatever it held before."""

import numpy as np
from hypothesis import given, settings

from daskconv.geometry import Window
from daskconv.kernels import direct
from reference import cases


@settings(deadline=None, derandomize=True, max_examples=40)
@given(case=cases(dtypes=("float64",)))
def test_outputs_that_held_nan_are_overwritten_with_the_definition(case):
    x, w, bias, dy = case.arrays()
    kernel, stride, pads, dilation = case.window
    window = Window(kernel, stride, pads, dilation, case.groups)
    y, dx, dw = (np.full(shape, np.nan) for shape in (case.y_shape, case.x_shape, case.w_shape))
    direct.forward(x, w, bias, window, y)
    direct.input_grad(dy, w, window, dx)
    direct.weight_grad(x, dy, window, dw)
    close = {"rtol": 1e-11, "atol": 1e-11}
    np.testing.assert_allclose(y, case.forward(x, w, bias), **close)
    np.testing.assert_allclose(dx, case.input_grad(dy, w), **close)
    np.testing.assert_allclose(dw, case.weight_grad(x, dy), **close)
