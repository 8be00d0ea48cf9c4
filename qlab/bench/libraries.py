"""Other libraries' kernels, each where it is installed: bitsandbytes, torchao, gemlite, and Marlin from vLLM."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

import torch
from torch import nn

from qlab.formats import affine

from .contestant import ROUNDED, Contestant, Prepared, not_installed
from .cpu import rounded_tokens


def bitsandbytes_nf4(w: torch.Tensor) -> Prepared:
    """NF4, blocks of 64, float32 scales."""
    # On a CPU, its import says on stderr that a kernel could not be fetched.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(w, blocksize=64, quant_type="nf4")
    return Prepared(
        weight=(packed, state),
        nbytes=packed.nbytes + state.absmax.nbytes + state.code.nbytes,
        call=lambda x, weight: bitsandbytes.matmul_4bit(x, weight[0].t(), quant_state=weight[1]),
        stands_for=lambda: dequantize_4bit(packed, state),
        path=lambda x: "bitsandbytes",
    )


def bitsandbytes_int8(w: torch.Tensor) -> Prepared:
    """LLM.int8() without a threshold: int8 weights and inputs."""
    import bitsandbytes
    from bitsandbytes.functional import int8_vectorwise_quant

    state = bitsandbytes.MatmulLtState()
    state.CB, state.SCB, _ = int8_vectorwise_quant(w.half())
    state.has_fp16_weights, state.is_training = False, False
    codes, scales = state.CB, state.SCB
    return Prepared(
        weight=state,
        nbytes=codes.nbytes + scales.nbytes,
        call=lambda x, state: bitsandbytes.matmul(x, state.CB, state=state),
        stands_for=lambda: codes.float() * (scales.float() / 127)[:, None],
        path=lambda x: "bitsandbytes",
        seen=rounded_tokens,
    )


def torchao_int4(w: torch.Tensor) -> Prepared:
    """tinygemm's layout, the one that needs no further package."""
    config = _torchao_api().Int4WeightOnlyConfig(group_size=128, int4_packing_format="tile_packed_to_4d")
    return _torchao(w, config)


def torchao_int8(w: torch.Tensor) -> Prepared:
    """int8 weights, a scale for each output."""
    return _torchao(w, _torchao_api().Int8WeightOnlyConfig(set_inductor_config=False))


def _torchao_api() -> Any:
    return import_module("torchao.quantization")


def _torchao(w: torch.Tensor, config: Any) -> Prepared:
    layer = nn.Linear(w.shape[1], w.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(w.clone(), requires_grad=False)
    _torchao_api().quantize_(layer, config)
    held: Any = layer.weight  # a tensor that holds others
    nbytes = sum(getattr(held, name).nbytes for name in held.tensor_data_names)
    return Prepared(
        layer, nbytes, lambda x, layer: layer(x), lambda: w, lambda x: type(held).__name__, tolerance=ROUNDED
    )


def gemlite_int4(w: torch.Tensor) -> Prepared:
    """4 bits, groups of 128; its own tuner runs in the first call."""
    helper: Any = import_module("gemlite.helper")
    quantized = affine.quantize(w, 4, 128)
    zeros = torch.full_like(quantized.scales, 8).to(w.dtype)
    layer = helper.A16W4_HQQ_INT(device=str(w.device), dtype=w.dtype).from_weights(
        quantized.codes(), quantized.scales.to(w.dtype), zeros
    )
    nbytes = w.numel() // 2 + 2 * quantized.scales.nbytes
    return Prepared(
        layer,
        nbytes,
        lambda x, layer: layer(x),
        lambda: quantized.dequantize(torch.float32),
        lambda x: "gemlite",
    )


def marlin_int4(w: torch.Tensor) -> Prepared:
    """Marlin's 4 bits, groups of 128, symmetric, as vLLM runs GPTQ checkpoints."""
    utils: Any = import_module("vllm.model_executor.layers.quantization.utils.marlin_utils")
    making: Any = import_module("vllm.model_executor.layers.quantization.utils.marlin_utils_test")
    kind, (out, columns) = import_module("vllm.scalar_type").scalar_types.uint4b8, w.shape
    made = making.marlin_quantize(w.t().contiguous(), kind, 128, False)
    rounded, packed, scales, groups, order = made[:5]
    workspace = utils.marlin_make_workspace_new(w.device)
    none = utils.marlin_make_empty_g_idx(w.device)

    def call(x: torch.Tensor, weight: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return utils.apply_gptq_marlin_linear(
            input=x,
            weight=weight[0],
            weight_scale=weight[1],
            weight_zp=none,
            g_idx=groups,
            g_idx_sort_indices=order,
            workspace=workspace,
            wtype=kind,
            output_size_per_partition=out,
            input_size_per_partition=columns,
            is_k_full=True,
        )

    return Prepared((packed, scales), packed.nbytes + scales.nbytes, call, lambda: rounded.t(), lambda x: "Marlin")


_bitsandbytes = not_installed("bitsandbytes")
_torchao_missing = not_installed("torchao")
BOTH, HALVES = ("cuda", "cpu"), ("float16", "bfloat16")
TABLE = (
    Contestant("bitsandbytes-nf4", "its NF4, blocks of 64", BOTH, HALVES, bitsandbytes_nf4, _bitsandbytes),
    Contestant(
        "bitsandbytes-int8", "its LLM.int8()", ("cuda",), ("float16",), bitsandbytes_int8, _bitsandbytes, rate="int8"
    ),
    Contestant("torchao-int4-g128", "tinygemm", ("cuda",), ("bfloat16",), torchao_int4, _torchao_missing),
    Contestant("torchao-int8", "its int8 weights", BOTH, HALVES, torchao_int8, _torchao_missing),
    Contestant("gemlite-int4-g128", "gemlite's W4A16", ("cuda",), HALVES, gemlite_int4, not_installed("gemlite")),
    Contestant(
        "marlin-int4-g128", "Marlin", ("cuda",), HALVES, marlin_int4, not_installed("vllm", ", which brings Marlin")
    ),
)
