"""A folder with our tensors and settings, opened by a plain from_pretrained, computes as the dequantized model does."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from qlab.formats import affine, codebook, disk
from qlab.formats.disk import awq, bitsandbytes, compressed_tensors, gptq
from qlab.formats.weight import QuantizedWeight


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).eval()


def quantize_all(
    model: LlamaForCausalLM, quantize: Callable[[str, torch.Tensor], Any], skipped: tuple[str, ...] = ("lm_head",)
) -> tuple[dict[str, Any], LlamaForCausalLM]:
    """Quantized weights by name, and a copy of the model that holds their dequantized values."""
    plain = copy.deepcopy(model)
    weights = {}
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and name not in skipped:
            weights[name] = quantize(name, layer.weight.detach())
            plain.get_submodule(name).weight.data = weights[name].dequantize()
    return weights, plain


def write_folder(
    folder: Path, model: LlamaForCausalLM, weights: Mapping[str, QuantizedWeight], layout: Any, skipped: tuple[str, ...]
) -> None:
    tensors = {k: v for k, v in model.state_dict().items() if k.removesuffix(".weight") not in weights}
    for name, weight in weights.items():
        tensors |= {f"{name}.{suffix}": tensor for suffix, tensor in layout.encode(weight).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # Without "dtype" transformers takes that of the first floating tensor in the file, which may be a scale.
    dtype = str(model.dtype).removeprefix("torch.")
    config = model.config.to_dict() | {"quantization_config": layout.settings(weights, skipped), "dtype": dtype}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def assert_same_logits(folder: Path, plain: LlamaForCausalLM) -> None:
    # In evaluation mode bitsandbytes computes in bfloat16 on CPUs that have it; a Llama is the same function in both.
    loaded = AutoModelForCausalLM.from_pretrained(folder).train()
    assert loaded.config.attention_dropout == 0
    tokens = torch.arange(40).remainder(96)[None]
    with torch.no_grad():
        ours, theirs = plain(tokens).logits, loaded(tokens).logits
    assert theirs.dtype == torch.float32
    assert ours.std() > 0.05  # there is something to compare
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def assert_reads_back(folder: Path, weights: Mapping[str, QuantizedWeight], layout: Any) -> None:
    """The files give our packed weights again, byte for byte, and no other layer passes for a quantized one."""
    stored = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert disk.LAYOUTS[config["quant_method"]] is layout
    found = disk.stored_layers(stored, layout)
    assert found.keys() == weights.keys()
    for name, parts in found.items():
        tensors = {suffix: stored[key] for suffix, key in parts.items()}
        back = layout.decode(tensors, config, torch.float32, name)
        assert torch.equal(back.packed, weights[name].packed)  # type: ignore[attr-defined]
        assert torch.equal(back.dequantize(), weights[name].dequantize())


@pytest.mark.parametrize("group_size", [128, "channel"])
@pytest.mark.parametrize("bits", [4, 8])
def test_compressed_tensors(tmp_path: Path, bits: int, group_size: affine.GroupSize) -> None:
    pytest.importorskip("compressed_tensors")
    model = tiny_llama()
    weights, plain = quantize_all(model, lambda name, w: affine.quantize(w, bits, group_size))
    compressed_tensors.check(weights, torch.float32)
    write_folder(tmp_path, model, weights, compressed_tensors, ("lm_head",))
    assert_same_logits(tmp_path, plain)
    assert_reads_back(tmp_path, weights, compressed_tensors)


def test_compressed_tensors_with_mixed_bits_groups_and_skipped_layers(tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    model = tiny_llama()
    skipped = ("lm_head", "model.layers.0.mlp.down_proj")

    def quantize(name: str, w: torch.Tensor) -> affine.AffineWeight:
        if name.endswith("v_proj"):
            return affine.quantize(w, 8, "channel")
        return affine.quantize(w, 8, 64) if ".1." in name else affine.quantize(w, 4, 32, scale_dtype=torch.bfloat16)

    weights, plain = quantize_all(model, quantize, skipped)
    write_folder(tmp_path, model, weights, compressed_tensors, skipped)
    assert_same_logits(tmp_path, plain)
    assert_reads_back(tmp_path, weights, compressed_tensors)


def test_compressed_tensors_with_a_quantized_head(tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    model = tiny_llama()
    weights, plain = quantize_all(model, lambda name, w: affine.quantize(w, 4, 32), skipped=())
    assert "lm_head" in weights
    write_folder(tmp_path, model, weights, compressed_tensors, ())
    assert_same_logits(tmp_path, plain)


def test_a_16_bit_model_computes_with_the_same_rounded_weights(tmp_path: Path) -> None:
    """float16 scales in a float16 model: the engine's weights are ours, rounded once."""
    pytest.importorskip("compressed_tensors")
    model = tiny_llama().half()
    weights, plain = quantize_all(model, lambda name, w: affine.quantize(w, 4, 128))
    compressed_tensors.check(weights, torch.float16)
    write_folder(tmp_path, model, weights, compressed_tensors, ("lm_head",))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        loaded(torch.arange(4)[None])  # compressed-tensors decompresses on the first call
    for name in weights:
        theirs = loaded.get_submodule(name).weight
        assert theirs.dtype == torch.float16
        assert torch.equal(theirs, plain.get_submodule(name).weight)


@pytest.mark.parametrize("double_quant", [False, True])
@pytest.mark.parametrize("data_type", ["nf4", "fp4"])
def test_bitsandbytes(tmp_path: Path, data_type: str, double_quant: bool) -> None:
    pytest.importorskip("bitsandbytes")
    model = tiny_llama()
    weights, plain = quantize_all(model, lambda name, w: codebook.quantize(w, data_type, 64, double_quant))
    bitsandbytes.check(weights, torch.float32)
    write_folder(tmp_path, model, weights, bitsandbytes, ("lm_head",))
    assert_same_logits(tmp_path, plain)
    assert_reads_back(tmp_path, weights, bitsandbytes)


def test_bitsandbytes_with_several_block_sizes_and_skipped_layers(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model = tiny_llama()
    skipped = ("lm_head", "model.layers.1.self_attn.k_proj")
    weights, plain = quantize_all(
        model, lambda name, w: codebook.quantize(w, "nf4", 128 if "mlp" in name else 64), skipped
    )
    write_folder(tmp_path, model, weights, bitsandbytes, skipped)
    assert_same_logits(tmp_path, plain)
    assert_reads_back(tmp_path, weights, bitsandbytes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_bitsandbytes_keeps_its_scales_in_a_16_bit_model(tmp_path: Path, dtype: torch.dtype) -> None:
    """transformers converts what it loads to the type of the model; scales must come through as float32."""
    functional = pytest.importorskip("bitsandbytes.functional")
    model = tiny_llama().to(dtype)
    weights, plain = quantize_all(model, lambda name, w: codebook.quantize(w, "nf4", 64))
    write_folder(tmp_path, model, weights, bitsandbytes, ("lm_head",))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name in weights:
        theirs = loaded.get_submodule(name).weight
        assert torch.equal(functional.dequantize_4bit(theirs, theirs.quant_state), plain.get_submodule(name).weight)


@pytest.mark.parametrize("layout", [gptq, awq])
def test_gptq_and_awq_folders_read_back(tmp_path: Path, layout: Any) -> None:
    """transformers opens these two only with gptqmodel, which is not here; we read the files back ourselves."""
    model = tiny_llama()
    symmetric = layout is gptq
    skipped = ("lm_head", "model.layers.1.self_attn.k_proj")
    weights, _ = quantize_all(model, lambda name, w: affine.quantize(w, 4, 64, symmetric), skipped)
    write_folder(tmp_path, model, weights, layout, skipped)
    assert_reads_back(tmp_path, weights, layout)
