"""Workers that are not alike are told of while setting up."""

import warnings

import pytest

from daskconv.errors import InputError
from daskconv.run.alike import compare, facts

HERE = facts() | {"compiled": "True"}


def test_workers_like_this_process_are_nothing_to_speak_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(HERE, {"a": HERE, "b": dict(HERE)})
        # What the driver computes on does not matter, so long as the workers have one kind.
        compare(HERE, {"a": HERE | {"processor": "another"}})


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"processor": "EPYC"},
            r"Workers differ in processor \(.*EPYC.*\): the same seed may give other bits",
        ),
        ({"numpy": "1.0"}, r"Workers differ in numpy \(1.0 and .*\)"),
        ({"numpy": "1.0", "python": "3.99"}, r"Workers differ in numpy \(.*\), python \(.* and 3.99\)"),
    ],
)
def test_other_versions_and_processors_are_warned_of(changed, sentence):
    with pytest.warns(RuntimeWarning, match=sentence):
        compare(HERE, {"a": HERE, "b": HERE | changed})


def test_workers_without_compiled_kernels_are_refused_unless_this_process_has_none_either():
    without = HERE | {"compiled": "False"}
    with pytest.raises(InputError, match=r"1 of 2 workers \(b ...\) have no compiled kernels: install Numba"):
        compare(HERE, {"a": HERE, "b": without})
    compare(without, {"a": HERE, "b": without})
