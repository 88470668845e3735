"""The cases of onnx's own backend test suite, for every operator that daskconv has, run by daskconv."""

import re
import warnings
from functools import cache

import pytest

pytest.importorskip("onnx", reason="onnx is not installed: its test suite does not run (extra: onnx)")

from onnx.backend.test import BackendTest
from onnx.backend.test.case.node import collect_testcases

from daskconv import onnx_backend

OPERATORS = [
    *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"),
    *("BatchNormalization", "LRN", "Gemm", "MatMul", "Relu", "LeakyRelu", "PRelu"),
    *("Elu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Clip", "Softmax"),
    *("LogSoftmax", "Concat", "Add", "Sum", "Mul", "Sub", "Div"),
    *("Pad", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice"),
    *("Split", "Shape", "Dropout", "ReduceMean", "Resize", "Upsample", "Identity"),
    *("Constant", "ConstantOfShape", "Cast"),
]

# What is left out: a pattern of the whole name, and why. Each has to leave something out.
EXCLUDED = {
    r"(averagepool|maxpool|lppool)_3d_.*": "three dimensions",
    r"convtranspose_3d": "three dimensions",
    r"(add|sub|mul|div)_u?int(8|16|32|64)(_trunc)?": "integers are not computed by a network",
    r"div_int32_trunc": "integers are not computed by a network",
    r"clip_default_int8_.*": "integers are not computed by a network",
    r"maxpool_2d_uint8": "integers are not computed by a network",
    r"cast(like)?_.*": "other types than float32 on one side at least",
    r"identity_(sequence|opt)": "sequences and optional values are no arrays",
    r"maxpool_with_argmax_.*": "the places of maxima are not an output",
    r"dropout_default_mask(_ratio)?": "the mask is not an output",
    r"training_dropout.*": "drops by another random number generator, or has the mask as an output",
    r"batchnorm_.*_training_mode": "running statistics are no outputs of a network that predicts",
    r"(reshape_allowzero_reordered|slice_start_out_of_bounds|split_zero_size_.*)": "arrays without elements",
    r"wrap_pad": "padding that wraps around",
    r"constantofshape_int_shape_zero": "arrays without elements",
}
EXPECTED = 265
"""How many cases of onnx 1.17 or newer run at least."""


def cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    for case in found:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in OPERATORS:
            yield case


CASES = {case.name.removeprefix("test_"): case for case in cases()}


def reason(name):
    return next((why for pattern, why in EXCLUDED.items() if re.fullmatch(pattern, name)), None)


RUN = {name: case for name, case in CASES.items() if reason(name) is None}


@cache
def suite():
    return BackendTest(onnx_backend, __name__).test_cases["OnnxBackendNodeModelTest"]


@pytest.mark.parametrize("name", RUN)
def test_case(name):
    getattr(suite()(f"test_{name}_cpu"), f"test_{name}_cpu")()


def test_what_ran_and_what_did_not(capsys):
    left_out = {name: why for name in CASES if (why := reason(name)) is not None}
    with capsys.disabled():
        print(f"\n{len(RUN)} cases of onnx's suite run, {len(left_out)} are left out:")
        for why in dict.fromkeys(EXCLUDED.values()):
            print(f"  {why}: {', '.join(name for name, other in left_out.items() if other == why)}")
    assert len(RUN) >= EXPECTED
    kinds = {case.model.graph.node[0].op_type for case in RUN.values()}
    assert set(OPERATORS) - kinds == {"Cast"}
    useless = [p for p in EXCLUDED if not any(re.fullmatch(p, name) for name in CASES)]
    assert not useless, f"nothing is left out by {useless}"
