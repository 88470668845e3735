"""The rule that picks a method."""

import pytest

from daskconv.geometry import Window
from daskconv.graph.choose import check_method, choose, choose_all
from reference import METHODS, refuse


@pytest.mark.parametrize(
    ("groups", "c", "k", "method"),
    [
        (1, 64, 64, "implicit"),
        (1, 1, 1, "implicit"),
        (64, 64, 64, "direct"),
        (2, 64, 64, "implicit"),
        (4, 8, 64, "direct"),
        (2, 6, 64, "direct"),
        (2, 64, 6, "direct"),
        (2, 8, 8, "implicit"),
    ],
)
def test_auto_takes_direct_for_narrow_groups_only(groups, c, k, method):
    assert choose("auto", Window((3, 3), groups=groups), c, k) == method


def test_auto_takes_products_of_blas_for_1x1_kernels():
    assert choose("auto", Window((1, 1)), 64, 64) == "lowering"


@pytest.mark.parametrize("method", METHODS)
def test_a_named_method_is_taken(method):
    assert check_method(method) == method
    assert choose_all(method, Window((3, 3), groups=64), 64, 64) == {
        "forward": method,
        "input_grad": method,
        "weight_grad": method,
    }


@pytest.mark.parametrize("method", ["winograd", "", None, "Direct"])
def test_an_unknown_method_is_refused_with_the_known_ones(method):
    sentence = refuse(f"method is {method!r}", choose, method, Window((3, 3)), 4, 4)
    assert all(known in sentence for known in (*METHODS, "auto"))
