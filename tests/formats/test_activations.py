"""8-bit activations against bounds from the inputs alone, and against bitsandbytes and torch's own 8-bit floats."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlab.formats import activations, float8
from qlab.formats.activations import Activations

STATIC = Activations("int8", "tensor", torch.tensor([0.02]))
TORCH_DTYPES = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


@st.composite
def inputs(draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = (torch.float16, torch.bfloat16, torch.float32)) -> Any:
    dtype = draw(st.sampled_from(dtypes))
    tokens, columns = draw(st.integers(1, 6)), draw(st.sampled_from([1, 2, 7, 64, 129]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.randn(tokens, columns, generator=generator).clamp(-4, 4) / 4
    kind = draw(st.sampled_from(["normal", "constant", "zero row", "outlier", "zeros"]))
    if kind == "constant":
        x = torch.full_like(x, float(x[0, 0]))
    elif kind == "zero row":
        x[0] = 0
    elif kind == "outlier":
        x[-1, -1] = 50
        x /= 50
    elif kind == "zeros":
        x.zero_()
    limits = torch.finfo(dtype)
    x = (x * draw(st.sampled_from([1.0, 6.0, 8 * limits.smallest_normal * limits.eps, limits.max]))).to(dtype)
    return x.t().contiguous().t() if draw(st.booleans()) else x


# --- Integers -------------------------------------------------------------------------------------------------------


@given(x=inputs(), granularity=st.sampled_from(["token", "tensor"]))
def test_no_value_moves_by_more_than_half_a_step(x: torch.Tensor, granularity: str) -> None:
    before = x.clone()
    codes, scales = activations.quantize(x, Activations("int8", granularity))
    assert torch.equal(x, before)
    assert codes.dtype == torch.int8 and codes.shape == x.shape and codes.nbytes == x.numel()
    assert scales.dtype == torch.float32 and tuple(scales.shape) == ((len(x), 1) if granularity == "token" else (1, 1))
    assert int(codes.int().abs().max()) <= 127
    exact = x.double()
    largest = exact.abs().amax(1, keepdim=True) if granularity == "token" else exact.abs().amax().view(1, 1)
    # The step comes from the data. A largest value below 127 * 2^-126 gets the step 2^-126. A tie may go either way.
    half = (largest / 127).clamp(min=2.0**-126) / 2
    assert bool(((codes.double() * scales.double() - exact).abs() <= half * (1 + 2e-5)).all())
    normal = (largest > 127 * 2.0**-126).expand_as(x)
    reaches = (exact.abs() == largest) & normal
    assert bool((codes[reaches].int().abs() == 127).all()), "the largest value is on the grid's end"


def test_a_row_of_zeros_comes_back_as_zeros() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    codes, scales = activations.quantize(x, Activations())
    assert codes[0].tolist() == [0, 0] and scales[0] == 1
    codes, scales = activations.quantize(x[:1], Activations("int8", "tensor"))
    assert codes.tolist() == [[0, 0]] and scales.tolist() == [[1]]


@pytest.mark.parametrize("data_type", activations.LARGEST)
@pytest.mark.parametrize("granularity", ["token", "tensor"])
def test_no_tokens_give_no_codes(data_type: str, granularity: str) -> None:
    codes, scales = activations.quantize(torch.empty(0, 8), Activations(data_type, granularity))
    assert codes.shape == (0, 8) and tuple(scales.shape) == ((0, 1) if granularity == "token" else (1, 1))
    assert bool((scales == 1).all())


def test_each_token_has_its_own_step_and_a_tensor_has_one() -> None:
    x = torch.tensor([[1.27, -0.01], [127.0, 1.0]])
    codes, scales = activations.quantize(x, Activations())
    assert codes.tolist() == [[127, -1], [127, 1]] and scales.flatten().tolist() == pytest.approx([0.01, 1])
    codes, scales = activations.quantize(x, Activations("int8", "tensor"))
    assert codes.tolist() == [[1, 0], [127, 1]] and scales.tolist() == [[1]]


def test_a_static_scale_clips_what_lies_beyond_it() -> None:
    x = torch.tensor([[0.01, -0.031, 2.54, 2.56, -2.6, 1e30]])
    codes, scales = activations.quantize(x, STATIC)
    assert scales.tolist() == [[pytest.approx(0.02)]]
    assert codes.tolist() == [[0, -2, 127, 127, -127, 127]]  # 0.5 steps go to the even code
    calm, _ = activations.quantize(x[:, :2], STATIC)
    assert torch.equal(calm, codes[:, :2]), "a static scale does not depend on the other values"


def test_the_static_scale_of_calibration_data_clips_nothing_of_them() -> None:
    x = torch.randn(20, 33, generator=torch.Generator().manual_seed(0))
    for data_type, largest in activations.LARGEST.items():
        scale = activations.static_scale(float(x.abs().max()), data_type)
        assert scale.dtype == torch.float32 and scale.shape == (1,)
        codes, _ = activations.quantize(x, Activations(data_type, "tensor", scale))
        values = codes.float() if data_type == "int8" else float8.decode(codes, data_type)
        assert float(values.abs().max()) == largest
        outside, _ = activations.quantize(1.5 * x, Activations(data_type, "tensor", scale))
        values = outside.float() if data_type == "int8" else float8.decode(outside, data_type)
        assert float(values.abs().max()) == largest
    assert activations.static_scale(0.0).tolist() == [1]
    for wrong in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match="largest: got"):
            activations.static_scale(wrong)


@pytest.mark.parametrize("data_type", activations.LARGEST)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_reach_the_scale(data_type: str, bad: float) -> None:
    x = torch.ones(3, 4)
    x[1, 2] = bad
    _, scales = activations.quantize(x, Activations(data_type))
    assert scales.isnan().flatten().tolist() == [False, True, False]
    for scale in (None, torch.ones(1)):
        _, scales = activations.quantize(x, Activations(data_type, "tensor", scale))
        assert bool(scales.isnan().all())


def test_a_threshold_leaves_columns_to_the_caller() -> None:
    x = torch.tensor([[1.0, 6.0, 2.0], [3.0, 4.0, -1.0]])
    codes, scales = activations.quantize(x, Activations(threshold=6.0))
    assert codes.tolist() == [[64, 0, 127], [95, 0, -32]]
    assert (scales * 127).flatten().tolist() == [2, 4], "4.0 stands in an outlier column, but counts for its token"
    codes, scales = activations.quantize(x, Activations(threshold=0.0))
    assert bool((codes == 0).all()) and bool((scales == 1).all())
    for none in (6.5, float("inf")):
        codes, scales = activations.quantize(x, Activations(threshold=none))
        plain = activations.quantize(x, Activations())
        assert torch.equal(codes, plain[0]) and torch.equal(scales, plain[1])


# --- The same as other libraries ------------------------------------------------------------------------------------


@given(x=inputs((torch.float16,)), threshold=st.sampled_from([0.0, 0.5, 6.0]))
def test_codes_are_those_of_bitsandbytes(x: torch.Tensor, threshold: float) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    expected, absmax, _ = functional.int8_vectorwise_quant(x.clone(), threshold)
    codes, scales = activations.quantize(x, Activations(threshold=threshold or None))
    live = absmax > 0  # bitsandbytes divides 0 by 0 in a row of zeros, and casts the NaN to an integer
    assert torch.equal(codes[live], expected[live]) and bool((codes[~live] == 0).all())
    assert torch.equal((scales.flatten() * 127).half()[live], absmax.half()[live])


def test_every_float16_below_every_kind_of_maximum_has_the_code_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    maxima = torch.cat([torch.arange(1024, 2048) / 1024, torch.tensor([6e-8, 3e-5, 100.0, 65504.0])]).half()
    fractions = torch.arange(0, 2049) / 2048
    x = torch.cat([maxima[:, None], (maxima[:, None].float() * fractions).half()], 1)
    codes, scales = activations.quantize(x, Activations())
    expected, _, _ = functional.int8_vectorwise_quant(x.clone())
    assert torch.equal(codes, expected)
    assert not torch.equal((x.float() / scales).round().to(torch.int8), expected), "the order of operations matters"


@given(x=inputs(), data_type=st.sampled_from(["e4m3", "e5m2"]), granularity=st.sampled_from(["token", "tensor"]))
def test_8_bit_floats_are_those_of_torch(x: torch.Tensor, data_type: str, granularity: str) -> None:
    codes, scales = activations.quantize(x, Activations(data_type, granularity))
    assert codes.dtype == torch.uint8 and codes.nbytes == x.numel()
    largest = activations.LARGEST[data_type]
    expected = (x.float() / scales).clamp(-largest, largest).to(TORCH_DTYPES[data_type])
    assert torch.equal(codes, expected.view(torch.uint8))
    assert float(x.float().div(scales).abs().max()) <= largest * (1 + 1e-6)


# --- Schemes --------------------------------------------------------------------------------------------------------


def test_labels() -> None:
    assert Activations().label == "int8, per token"
    assert Activations("e4m3", "tensor").label == "e4m3, per tensor"
    assert STATIC.label == "int8, one static scale"
    assert Activations(threshold=6.0).label == "int8, per token, columns from 6 up in 16 bits"


@pytest.mark.parametrize(
    "fields, error, match",
    [
        ({"data_type": "int4"}, ValueError, "data_type: got 'int4'"),
        ({"granularity": "channel"}, ValueError, "granularity: got 'channel'"),
        ({"scale": torch.ones(1)}, ValueError, "scale: got a static scale per token"),
        ({"granularity": "tensor", "scale": 0.1}, TypeError, "scale: got float"),
        ({"granularity": "tensor", "scale": torch.ones(1).half()}, TypeError, "scale: got torch.float16"),
        ({"granularity": "tensor", "scale": torch.ones(2)}, ValueError, r"scale: got shape \(2,\)"),
        ({"granularity": "tensor", "scale": torch.zeros(1)}, ValueError, "scale: got 0; it must be positive"),
        ({"granularity": "tensor", "scale": torch.tensor([torch.nan])}, ValueError, "scale: got nan"),
        ({"threshold": -1.0}, ValueError, "threshold: got -1.0"),
        ({"threshold": float("nan")}, ValueError, "threshold: got nan"),
        ({"threshold": True}, TypeError, "threshold: got True"),
        ({"threshold": "6"}, TypeError, "threshold: got '6'"),
        ({"threshold": 6.0, "granularity": "tensor"}, ValueError, "threshold: got 6"),
        ({"threshold": 6.0, "data_type": "e4m3"}, ValueError, "threshold: got 6"),
    ],
    ids=str,
)
def test_a_scheme_that_makes_no_sense_is_refused(fields: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Activations(**fields)


def test_a_scale_without_storage_is_allowed() -> None:
    """Loaders lay a model out before they read its numbers."""
    assert Activations("int8", "tensor", torch.ones(1, device="meta")).label == "int8, one static scale"


def test_inputs_that_make_no_sense_are_refused() -> None:
    for x in (torch.ones(2, 3, dtype=torch.int64), [1.0], torch.ones(2, 3, dtype=torch.complex64)):
        with pytest.raises(TypeError, match="x: got"):
            activations.quantize(x, Activations())  # type: ignore[arg-type]
    for x in (torch.ones(3), torch.ones(2, 0), torch.ones(1, 2, 3)):
        with pytest.raises(ValueError, match="x: got shape"):
            activations.quantize(x, Activations())
