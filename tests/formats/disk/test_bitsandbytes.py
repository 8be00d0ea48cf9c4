"""4-bit tensors against what bitsandbytes writes and reads itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlab.formats import affine, codebook
from qlab.formats.disk import bitsandbytes as layout

bnb = pytest.importorskip("bitsandbytes")
from bitsandbytes import functional as theirs  # noqa: E402


def matrix(rows: int, columns: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)


@st.composite
def weights(draw: st.DrawFn) -> codebook.CodebookWeight:
    block_size = draw(st.sampled_from([32, 64, 512]))
    w = matrix(
        draw(st.integers(1, 40)),
        block_size * draw(st.integers(1, 3)),
        draw(st.integers(0, 2**32)),
        draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32])),
    )
    return codebook.quantize(w, draw(st.sampled_from(layout.TYPES)), block_size, draw(st.booleans()))


def quant_state(tensors: dict[str, torch.Tensor]) -> Any:
    """As transformers makes it: the stored tensors, without the weight itself."""
    stats = {suffix: tensor.clone() for suffix, tensor in tensors.items() if suffix != "weight"}
    return theirs.QuantState.from_dict(stats, torch.device("cpu"))


def saved_by_bitsandbytes(packed: torch.Tensor, state: Any) -> dict[str, torch.Tensor]:
    """As `Linear4bit` saves itself."""
    return {"weight": packed} | {f"weight.{key}": value for key, value in state.as_dict(packed=True).items()}


@given(weight=weights())
def test_bitsandbytes_reads_the_same_values(weight: codebook.CodebookWeight) -> None:
    tensors = layout.encode(weight)
    values = theirs.dequantize_4bit(tensors["weight"], quant_state(tensors))
    assert values.dtype == weight.dtype and tuple(values.shape) == weight.shape
    assert torch.equal(values, weight.dequantize())


@given(weight=weights())
def test_decode_is_the_inverse(weight: codebook.CodebookWeight) -> None:
    back = layout.decode(layout.encode(weight), layout.settings({"w": weight}), name="w")
    for part in ("packed", "absmax", "nested_absmax", "nested_offset"):
        ours, stored = getattr(weight, part), getattr(back, part)
        assert (ours is None) == (stored is None), part
        assert ours is None or (torch.equal(ours, stored) and ours.dtype == stored.dtype), part
    for part in ("data_type", "block_size", "shape", "dtype"):
        assert getattr(back, part) == getattr(weight, part)


@pytest.mark.parametrize("double_quant", [False, True])
@pytest.mark.parametrize("data_type", layout.TYPES)
def test_the_tensors_are_those_that_bitsandbytes_saves(data_type: str, double_quant: bool) -> None:
    """The same names, types, shapes and bytes; the text of the state is the same JSON."""
    w = matrix(96, 128, dtype=torch.float16)
    packed, state = theirs.quantize_4bit(w, blocksize=64, quant_type=data_type, compress_statistics=double_quant)
    saved = saved_by_bitsandbytes(packed, state)
    ours = layout.encode(codebook.quantize(w, data_type, 64, double_quant))
    assert ours.keys() == saved.keys()
    assert set(ours) <= set(layout.SUFFIXES) and set(layout.REQUIRED) <= set(ours)
    for suffix, tensor in saved.items():
        assert ours[suffix].dtype == tensor.dtype and ours[suffix].shape == tensor.shape, suffix
        assert torch.equal(ours[suffix], tensor), suffix


def test_files_of_bitsandbytes_are_read() -> None:
    w = matrix(64, 128)
    packed, state = theirs.quantize_4bit(w, blocksize=128, quant_type="nf4", compress_statistics=True)
    tensors = saved_by_bitsandbytes(packed, state)
    back = layout.decode(tensors, {"load_in_4bit": True}, name="w")
    assert torch.equal(back.dequantize(), theirs.dequantize_4bit(packed, state))
    # Stored as another type, the bytes are the same.
    wide, _ = theirs.quantize_4bit(w, blocksize=128, quant_type="nf4", quant_storage=torch.bfloat16)
    assert wide.dtype == torch.bfloat16
    assert torch.equal(layout.decode(tensors | {"weight": wide}, {"load_in_4bit": True}).packed, back.packed)
    assert layout.decode(tensors, {"load_in_4bit": True}, torch.float16).dtype == torch.float16


def test_blocks_across_the_ends_of_rows_are_read_but_not_written() -> None:
    """Why they are refused: on CPUs bitsandbytes 0.50 reads its own file of such a weight with the wrong scales."""
    w = matrix(64, 96)
    packed, state = theirs.quantize_4bit(w, blocksize=64, quant_type="nf4")
    back = layout.decode(saved_by_bitsandbytes(packed, state), {"load_in_4bit": True}, name="w")
    state.shape = torch.Size([64 * 96])  # as one long row its blocks are where it wrote them
    assert torch.equal(back.dequantize().flatten(), theirs.dequantize_4bit(packed, state).flatten())
    with pytest.raises(ValueError, match="blocks of 64: they cross the ends of rows; blocks of 32 fit"):
        layout.encode(back)


def test_layers_share_no_memory() -> None:
    """safetensors refuses tensors that do, and the tables are the same for every layer."""
    first, second = (layout.encode(codebook.quantize(matrix(8, 64, i), "nf4", 64, True)) for i in (1, 2))
    pointers = [tensor.data_ptr() for tensors in (first, second) for tensor in tensors.values()]
    assert len(set(pointers)) == len(pointers)
    assert all(tensor.is_contiguous() for tensor in first.values())


def test_settings() -> None:
    weight = codebook.quantize(matrix(8, 64, dtype=torch.bfloat16), "nf4", 64, True)
    assert layout.settings({"a": weight}, skipped=["lm_head"]) == {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": ["lm_head"],
    }


def test_what_does_not_fit_is_named() -> None:
    w = matrix(8, 64)
    weights: dict[str, Any] = {
        "ocp": codebook.quantize(w, "e2m1", 64),
        "blocks": codebook.quantize(w, "nf4", 48),
        "odd": codebook.quantize(w[:, :40], "nf4", 64),
        "double": codebook.quantize(w.double(), "nf4", 64),
        "affine": affine.quantize(w, 4, 32),
        "good": codebook.quantize(w, "nf4", 64),
    }
    with pytest.raises(ValueError, match="bitsandbytes cannot hold 5 of 6 layers") as refused:
        layout.check(weights)
    lines = {line.split(" (")[0].strip(): line for line in str(refused.value).splitlines()[1:]}
    assert lines.keys() == weights.keys() - {"good"}
    assert "e2m1; bitsandbytes has nf4 and fp4" in lines["ocp"]
    assert "blocks of 48: bitsandbytes has no such size; blocks of 32, 64 fit" in lines["blocks"]
    assert lines["odd"].endswith("blocks of 64: they cross the ends of rows; none fit, skip this layer")
    assert "float64" in lines["double"]
    assert "use compressed-tensors, gptq or awq" in lines["affine"]
    layout.check({"a": weights["good"], "b": codebook.quantize(w, "nf4", 32)})
    for other in (codebook.quantize(w, "fp4", 64), codebook.quantize(w, "nf4", 64, True)):
        with pytest.raises(ValueError, match="bitsandbytes states one for all layers"):
            layout.check({"a": weights["good"], "b": other})


def test_foreign_and_damaged_files_are_refused() -> None:
    weight = codebook.quantize(matrix(8, 64), "nf4", 64, True)
    tensors, config = layout.encode(weight), layout.settings({"w": weight})
    key = layout.STATE + "nf4"
    with pytest.raises(ValueError, match="only 4-bit files are read"):
        layout.decode(tensors, {"load_in_8bit": True}, name="w")
    for part in set(tensors) - {key}:
        with pytest.raises(ValueError, match=f"w: the file has no w.{part}"):
            layout.decode({k: v for k, v in tensors.items() if k != part}, config, name="w")
    with pytest.raises(ValueError, match="needs one tensor w.weight.quant_state"):
        layout.decode({k: v for k, v in tensors.items() if k != key}, config, name="w")
    for part, bad, told in (
        ("weight", tensors["weight"][:-1], "weight holds 255 values"),
        ("weight.absmax", tensors["weight.absmax"][:-1], "absmax holds 7 values"),
        ("weight.absmax", tensors["weight.absmax"].float(), "absmax holds torch.float32"),
        ("weight.nested_absmax", torch.ones(2), "nested_absmax holds 2 values"),
        ("weight.quant_map", torch.linspace(-1, 1, 16), "not those of nf4"),
        ("weight.nested_quant_map", torch.linspace(-1, 1, 256), "not those of nf4"),
        (key, tensors[key][:-1], "no JSON text of bitsandbytes"),
        (key, torch.zeros(3, dtype=torch.uint8), "no JSON text of bitsandbytes"),
    ):
        with pytest.raises(ValueError, match=told):
            layout.decode(tensors | {part: bad}, config, name="w")
    state = json.loads(bytes(tensors[key].tolist()))
    for change in (
        {"quant_type": "int4"},
        {"blocksize": 0},
        {"dtype": "float8"},
        {"shape": [4]},
        {"nested_blocksize": 8},
    ):
        text = torch.tensor(list(json.dumps(state | change).encode()), dtype=torch.uint8)
        with pytest.raises(ValueError, match="allowed are the types"):
            layout.decode(tensors | {key: text}, config, name="w")
