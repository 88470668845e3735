"""Windows: sizes, paddings, the correlations they stand for, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskconv.geometry import Window, as_pair, forward_correlation, input_grad_correlations, resolve_padding
from reference import Case, cases, extent_of, pad, pads_of, pairs, refuse, taps_of

drawn = settings(deadline=None, derandomize=True, max_examples=60)


def window_of(case: Case) -> Window:
    return Window.of(
        case.kernel,
        case.image,
        stride=case.stride,
        padding=case.padding,
        dilation=case.dilation,
        groups=case.groups,
    )


@drawn
@given(case=cases())
def test_a_window_has_the_sizes_of_its_definition(case):
    window = window_of(case)
    assert window.padding == case.pads
    assert window.extent == extent_of(case.kernel, case.dilation)
    assert window.output_size(*case.image) == case.y_shape[1:3]
    assert window.taps == case.kernel[0] * case.kernel[1]
    products = np.prod(case.y_shape) * window.taps * case.channels
    assert window.flops(case.n, *case.image, case.x_shape[3], case.w_shape[3]) == 2 * products


@drawn
@given(case=cases(), size=pairs(1, 12))
def test_same_padding_gives_size_over_stride_rounded_up(case, size):
    kernel, stride, _, dilation = case.window
    window = Window.of(kernel, size, stride=stride, padding="same", dilation=dilation)
    assert window.output_size(*size) == tuple(-(-s // step) for s, step in zip(size, stride))
    for before, after in window.padding:
        assert after - before in (0, 1)


@pytest.mark.parametrize(
    ("padding", "resolved"),
    [
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
        (((1, 2), 3), ((1, 2), (3, 3))),
        ([[0, 0], [5, 0]], ((0, 0), (5, 0))),
        ("valid", ((0, 0), (0, 0))),
        ("same", ((1, 1), (0, 1))),
        (np.int64(1), ((1, 1), (1, 1))),
    ],
)
def test_every_form_of_padding(padding, resolved):
    assert resolve_padding(padding, (5, 5), (3, 2), (1, 1)) == resolved


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "floor", "ceil"),
    [
        (32, 3, 2, 0, 15, 16),
        (16, 3, 2, 0, 7, 8),
        (5, 2, 2, 0, 2, 3),
        (6, 2, 2, 0, 3, 3),
        (6, 3, 2, 1, 3, 4),
        (7, 1, 3, 0, 3, 3),
        (4, 1, 3, 0, 2, 2),
        (5, 1, 3, 0, 2, 2),  # the last window would start past the image
        (3, 2, 2, (0, 1), 2, 2),
        (2, 2, 2, (0, 1), 1, 1),
        (224, 3, 2, 0, 111, 112),
    ],
)
def test_floor_and_ceil_mode_count_as_pytorch_and_caffe_do(size, kernel, stride, padding, floor, ceil):
    for ceil_mode, outputs in ((False, floor), (True, ceil)):
        pads = (padding, padding)
        window = Window.of(kernel, (size, size), stride=stride, padding=pads, ceil_mode=ceil_mode)
        assert window.output_size(size, size) == (outputs, outputs)


@drawn
@given(case=cases())
def test_a_ceil_mode_window_starts_in_the_image_or_its_left_padding(case):
    kernel, stride, pads, dilation = case.window
    floor = Window(kernel, stride, pads, dilation).output_size(*case.image)
    ceil = Window(kernel, stride, pads, dilation, ceil_mode=True).output_size(*case.image)
    for axis, extent in enumerate(extent_of(kernel, dilation)):
        if pads[axis][1] >= extent:  # then whole windows lie in the padding
            continue
        assert ceil[axis] - floor[axis] in (0, 1)
        if ceil[axis] > floor[axis]:
            last = (ceil[axis] - 1) * stride[axis] - pads[axis][0]
            assert last < case.image[axis]
            span = (ceil[axis] - 1) * stride[axis] + extent
            assert span > case.image[axis] + sum(pads[axis]), "it was added because the rounding left pixels"


@drawn
@given(case=cases())
def test_the_forward_correlation_reads_the_pixels_of_the_window(case):
    correlation = forward_correlation(window_of(case), *case.image)
    x = np.arange(1.0, np.prod(case.image) + 1).reshape(1, *case.image, 1)
    kernel, stride, pads, dilation = case.window
    for i, j, pixels in taps_of(pad(x, pads), kernel, stride, dilation):
        row, col = correlation.rows[i], correlation.cols[j]
        assert (correlation.kernel_rows[i], correlation.kernel_cols[j]) == (i, j)
        for p in range(correlation.size[0]):
            for q in range(correlation.size[1]):
                y, z = p * correlation.step[0] + row, q * correlation.step[1] + col
                inside = 0 <= y < case.image[0] and 0 <= z < case.image[1]
                assert pixels[0, p, q, 0] == (x[0, y, z, 0] if inside else 0)


@drawn
@given(case=cases())
def test_the_phases_of_an_input_gradient_write_each_pixel_once(case):
    writes = np.zeros(case.image, int)
    for correlation in input_grad_correlations(window_of(case), *case.image):
        (a, b), (dh, dw) = correlation.phase, correlation.spacing
        view = writes[a::dh, b::dw]
        assert view.shape == correlation.size
        view += 1
    assert (writes == 1).all()


@drawn
@given(case=cases())
def test_the_phases_of_an_input_gradient_skip_no_tap_and_repeat_none(case):
    """Each (input pixel, output pixel, tap) of the forward pass appears once in the phases."""
    window = window_of(case)
    forward = forward_correlation(window, *case.image)
    for axis, (rows, size) in enumerate(zip((forward.rows, forward.cols), forward.size)):
        reads = set()
        for out in range(size):
            for tap, offset in enumerate(rows):
                pixel = out * forward.step[axis] + offset
                if 0 <= pixel < case.image[axis]:
                    reads.add((pixel, out, tap))
        written = []
        phases = {c.phase[axis]: c for c in input_grad_correlations(window, *case.image)}
        for phase, c in phases.items():
            offsets, taps = ((c.rows, c.kernel_rows), (c.cols, c.kernel_cols))[axis]
            assert list(offsets) == sorted(offsets)
            for i in range(c.size[axis]):
                for offset, tap in zip(offsets, taps):
                    if 0 <= i + offset < size:
                        written.append((phase + c.spacing[axis] * i, i + offset, tap))
        assert len(written) == len(set(written)) and set(written) == reads


@pytest.mark.parametrize("value", [0, -3, (2, 0), (1,), (1, 2, 3), "33", 2.5, None, (1.5, 2), [], {}])
def test_pairs_are_ints_of_at_least_1(value):
    match = f"kernel is {value!r}: give an int or a pair (rows, columns), each at least 1"
    refuse(match, as_pair, value, "kernel")
    refuse(match, Window.of, value, (8, 8))
    refuse(f"stride is {value!r}", Window.of, 1, (8, 8), stride=value)
    refuse(f"dilation is {value!r}", Window.of, 1, (8, 8), dilation=value)


@pytest.mark.parametrize("value", [(2, 3), [2, 3], (np.int32(2), np.uint8(3))])
def test_pairs_come_in_any_sequence_of_integers(value):
    assert as_pair(value, "kernel") == (2, 3)
    assert type(as_pair(value, "kernel")[0]) is int


@pytest.mark.parametrize(
    "padding", [-1, (1, -1), "SAME", "", 1.0, None, (1, 2, 3), ((1, 2), (3,)), ("1", "2")]
)
def test_paddings_are_ints_of_at_least_0_or_a_known_word(padding):
    sentence = refuse(f"padding is {padding!r}", Window.of, 2, (8, 8), padding=padding)
    assert '"same" or "valid"' in sentence


@drawn
@given(image=pairs(1, 8), pads=st.tuples(pairs(0, 2), pairs(0, 2)), kernel=pairs(1, 6), dilation=pairs(1, 3))
def test_a_window_is_refused_exactly_where_it_is_larger_than_the_padded_image(image, pads, kernel, dilation):
    extent = extent_of(kernel, dilation)
    padded = [size + sum(sides) for size, sides in zip(image, pads)]
    options = {"padding": pads, "dilation": dilation}
    wrong = [axis for axis in (0, 1) if extent[axis] > padded[axis]]
    if wrong:
        axis = wrong[0]
        match = (
            f"The kernel spans {extent[axis]} pixels of {'hw'[axis]} but the padded image has {padded[axis]}"
        )
        refuse(match, Window.of, kernel, image, **options)
    else:
        assert min(Window.of(kernel, image, **options).output_size(*image)) >= 1


@drawn
@given(size=st.integers(1, 8), pads=pairs(0, 2), kernel=st.integers(1, 9), stride=st.integers(1, 4))
def test_ceil_mode_allows_a_window_less_than_a_stride_too_large(size, pads, kernel, stride):
    options = {"stride": stride, "padding": (pads, pads), "ceil_mode": True}
    if kernel - size - sum(pads) >= stride:
        refuse(f"The kernel spans {kernel} pixels of h", Window.of, kernel, (size, size), **options)
    else:
        outputs = Window.of(kernel, (size, size), **options).output_size(size, size)
        assert min(outputs) >= 1
        if kernel > size + sum(pads):
            assert outputs == (1, 1)


def test_same_padding_fits_any_image():
    for size in range(1, 9):
        assert (
            pads_of("same", (size, size), (5, 5), 1, 1) == Window.of(5, (size, size), padding="same").padding
        )


def test_windows_are_values():
    one, other = (Window.of(3, (8, 8), stride=2, padding=1) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    assert one != Window.of(3, (8, 8), stride=2, padding=1, ceil_mode=True)
