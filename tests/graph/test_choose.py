"""The rule that picks a method."""

import pytest

from daskconv.geometry import Window
from daskconv.graph.choose import ConvShape, check_method, choose, choose_all
from reference import METHODS, refuse


@pytest.mark.parametrize(
    ("groups", "c", "k", "method"),
    [
        (1, 64, 64, "implicit"),
        (1, 1, 1, "implicit"),
        (64, 64, 64, "implicit"),
        (32, 64, 64, "direct"),
        (2, 64, 64, "implicit"),
        (4, 8, 64, "direct"),
        (2, 6, 64, "direct"),
        (2, 64, 6, "direct"),
        (2, 8, 8, "implicit"),
    ],
)
def test_auto_takes_direct_for_narrow_groups_only(groups, c, k, method):
    assert choose("auto", square(3, groups, c, k, stride=2)) == method


def square(kernel, groups=1, c=64, k=64, **options):
    return ConvShape(Window.of(kernel, (14, 14), groups=groups, **options), (14, 14), c, k)


@pytest.mark.parametrize(("c", "k"), [(64, 64), (480, 192), (64, 22), (21, 64)])
def test_auto_takes_implicit_for_every_pass_of_1x1_kernels(c, k):
    assert set(choose_all("auto", square(1, c=c, k=k)).values()) == {"implicit"}


@pytest.mark.parametrize(
    ("kernel", "c", "k", "method"),
    [(3, 64, 64, "winograd"), (5, 16, 48, "winograd"), (3, 3, 16, "implicit"), (3, 8, 8, "implicit"),
     (7, 64, 64, "implicit"), (5, 1, 32, "implicit")],
)  # fmt: skip
def test_auto_takes_winograd_where_channels_repay_its_transforms(kernel, c, k, method):
    assert choose("auto", square(kernel, c=c, k=k, padding=kernel // 2)) == method


def test_auto_counts_the_taps_inside_the_image():
    tiny = ConvShape(Window.of(3, (1, 1), padding=1), (1, 1), 256, 256)
    assert choose("auto", tiny) == "implicit"


@pytest.mark.parametrize("method", (*METHODS, "winograd"))
def test_a_named_method_is_taken(method):
    assert check_method(method) == method
    assert choose_all(method, square(3, 64)) == {
        "forward": method,
        "input_grad": method,
        "weight_grad": method,
    }


@pytest.mark.parametrize("method", ["Winograd", "", None, "Direct"])
def test_an_unknown_method_is_refused_with_the_known_ones(method):
    sentence = refuse(f"method is {method!r}", choose, method, square(3))
    assert all(known in sentence for known in (*METHODS, "winograd", "auto"))
