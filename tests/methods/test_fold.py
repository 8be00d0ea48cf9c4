"""Moving scales between layers keeps what a model computes, or nothing is changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedModel,
    Qwen2Config,
)
from transformers.pytorch_utils import Conv1D

from qlab.formats import affine
from qlab.methods import awq, fold

_SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
CONFIGS = {
    "llama": LlamaConfig(**_SMALL, num_key_value_heads=2),
    "llama, one value head": LlamaConfig(
        **_SMALL, num_key_value_heads=1, head_dim=6, attention_bias=True, mlp_bias=True
    ),
    "qwen2": Qwen2Config(**_SMALL, num_key_value_heads=2),
    "opt": OPTConfig(
        vocab_size=61,
        hidden_size=32,
        ffn_dim=44,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=32,
    ),
    "gpt2": GPT2Config(vocab_size=61, n_embd=32, n_inner=44, n_layer=2, n_head=4, n_positions=64),
}
_LLAMA_EDGES = [
    ("input_layernorm", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    ("self_attn.v_proj", ["self_attn.o_proj"]),
    ("post_attention_layernorm", ["mlp.gate_proj", "mlp.up_proj"]),
    ("mlp.up_proj", ["mlp.down_proj"]),
]
EDGES = {
    "llama": _LLAMA_EDGES,
    "llama, one value head": _LLAMA_EDGES,
    "qwen2": _LLAMA_EDGES,
    "opt": [
        ("self_attn_layer_norm", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        ("self_attn.v_proj", ["self_attn.out_proj"]),
        ("final_layer_norm", ["fc1"]),
        ("fc1", ["fc2"]),
    ],
    "gpt2": [("ln_1", ["attn.c_attn"]), ("ln_2", ["mlp.c_fc"])],
}
TOKENS = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(0))


def tiny(config: Any, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or ".ln_" in name or name.endswith("bias"):  # they start at 0 or 1, where little shows
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.to(dtype)


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    return max((m for m in model.modules() if isinstance(m, nn.ModuleList)), key=len)


def width_of(layer: nn.Module) -> int:
    return layer.weight.shape[0 if isinstance(layer, Conv1D) else 1]  # type: ignore[index,union-attr]


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(TOKENS).logits.float()


def fold_edge(block: nn.Module, edge: tuple[str, list[str]], scale: Callable[[int], torch.Tensor]) -> None:
    previous, layers = block.get_submodule(edge[0]), [block.get_submodule(name) for name in edge[1]]
    scales = scale(width_of(layers[0]))
    if not isinstance(previous, nn.Linear | Conv1D):
        fold.into_norm(previous, layers, scales)
    elif (repeats := len(scales) // previous.weight.shape[0]) > 1:
        head_dim: int = block.self_attn.head_dim  # type: ignore[assignment,union-attr]
        fold.into_linear(previous, layers, fold.shared_heads(scales, head_dim, repeats), head_dim=head_dim)
    else:
        fold.into_linear(previous, layers, scales)


@pytest.mark.parametrize(("family", "edge"), [(family, edge) for family in CONFIGS for edge in EDGES[family]], ids=str)
def test_folding_keeps_what_a_model_computes(family: str, edge: tuple[str, list[str]]) -> None:
    model = tiny(CONFIGS[family])
    expected = logits(model)
    untouched = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    for block in blocks_of(model):
        fold_edge(block, edge, lambda width: torch.randn(width, generator=generator).mul(0.7).exp())
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
    before, after = blocks_of(untouched)[1].state_dict(), blocks_of(model)[1].state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    has_bias = getattr(blocks_of(model)[0].get_submodule(edge[0]), "bias", None) is not None
    assert changed == {f"{name}.weight" for name in [edge[0], *edge[1]]} | ({f"{edge[0]}.bias"} if has_bias else set())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_folding_keeps_the_type_and_the_tensors(dtype: torch.dtype) -> None:
    model = tiny(CONFIGS["qwen2"], dtype)
    expected = logits(model)
    before = dict(model.named_parameters())
    for block in blocks_of(model):
        for edge in _LLAMA_EDGES:
            fold_edge(block, edge, lambda width: torch.linspace(0.5, 2, width))
    after = dict(model.named_parameters())
    assert all(after[name] is p and p.dtype == dtype and p.requires_grad for name, p in before.items())
    tolerance = {torch.float16: 5e-3, torch.bfloat16: 4e-2, torch.float64: 1e-6}[dtype]
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=tolerance)


def test_folding_whole_blocks_by_a_search_helps_rounding() -> None:
    model = tiny(CONFIGS["llama"])
    block = blocks_of(model)[0]
    with torch.no_grad():  # outliers, as large models have them
        block.input_layernorm.weight[3] *= 40  # type: ignore[union-attr,index]
    layers = [block.get_submodule(name) for name in _LLAMA_EDGES[0][1]]
    caught: list[torch.Tensor] = []
    handle = layers[0].register_forward_pre_hook(lambda layer, args: caught.append(args[0].reshape(-1, 32)))
    expected = logits(model)
    handle.remove()
    weights: list[torch.Tensor] = [layer.weight.detach() for layer in layers]  # type: ignore[union-attr,misc]
    x = caught[0].detach()
    mean_abs, hessian = x.abs().mean(0), 2 * x.T @ x / len(x)
    found = awq.search_scales(weights, mean_abs, hessian, bits=3, group_size=16)

    def error(model: PreTrainedModel) -> float:
        model = copy.deepcopy(model)
        for name in _LLAMA_EDGES[0][1]:
            layer = blocks_of(model)[0].get_submodule(name)
            layer.weight.data = affine.quantize(layer.weight.detach(), 3, 16).dequantize()  # type: ignore[union-attr,arg-type]
        return float((logits(model) - expected).square().mean())

    nearest = error(model)
    fold.into_norm(block.input_layernorm, layers, found.scales)  # type: ignore[arg-type]
    assert error(model) < 0.7 * nearest


def gemma() -> nn.Module:
    model = tiny(GemmaConfig(**_SMALL, num_key_value_heads=2, head_dim=8))
    return blocks_of(model)[0]


def test_a_gain_stored_as_an_offset_is_refused_and_left_alone() -> None:
    block = gemma()
    norm, layers = block.input_layernorm, [block.self_attn.q_proj]  # type: ignore[union-attr]
    with torch.no_grad():
        norm.weight.zero_()  # type: ignore[union-attr,operator]  # as initialized: dividing 0 would seem to work
    before = copy.deepcopy(block.state_dict())
    with pytest.raises(ValueError, match=r"norm: .* of GemmaRMSNorm .*1 \+ weight"):
        fold.into_norm(norm, layers, torch.linspace(0.5, 2, 32))  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


@pytest.mark.parametrize("how", ["norm", "linear"])
def test_what_would_overflow_is_refused_and_left_alone(how: str) -> None:
    first: nn.Module = nn.LayerNorm(4) if how == "norm" else nn.Linear(4, 4)
    block = nn.ModuleDict({"first": first, "ok": nn.Linear(4, 3), "not": nn.Linear(4, 2)}).half()
    with torch.no_grad():
        block["not"].weight[0, 0] = 40_000.0  # type: ignore[index,operator]
    before = copy.deepcopy(block.state_dict())
    folding = fold.into_norm if how == "norm" else fold.into_linear
    with pytest.raises(ValueError, match="scales: folding them overflows torch.float16"):
        folding(first, [block["ok"], block["not"]], torch.full((4,), 2.0))  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


def test_scales_must_agree_where_query_heads_share_a_value_head() -> None:
    v, o = nn.Linear(8, 4), nn.Linear(8, 8)
    before = v.weight.clone()
    uneven = torch.arange(1.0, 9)
    with pytest.raises(ValueError, match="scales: query heads that share.*shared_heads"):
        fold.into_linear(v, [o], uneven, head_dim=2)
    with pytest.raises(ValueError, match="previous: it has 4 outputs for 8 scales.*head_dim"):
        fold.into_linear(v, [o], uneven)
    with pytest.raises(ValueError, match="scales: got shape .*2 heads of 3"):
        fold.into_linear(v, [o], uneven, head_dim=3)
    with pytest.raises(ValueError, match="previous: it has 12 outputs for 8"):  # q, k and v in one, say
        fold.into_linear(nn.Linear(8, 12), [o], uneven, head_dim=2)
    assert torch.equal(v.weight, before)


def test_shared_heads() -> None:
    # Two value heads of 3 channels, each read by 2 query heads.
    mean_abs = torch.tensor([1.0, 2, 3, 5, 6, 7, 10, 20, 30, 30, 40, 50])
    expected = torch.tensor([3.0, 4, 5, 3, 4, 5, 20, 30, 40, 20, 30, 40])
    assert torch.equal(fold.shared_heads(mean_abs, head_dim=3, repeats=2), expected)
    assert torch.equal(fold.shared_heads(mean_abs, head_dim=3, repeats=1), mean_abs)
    with pytest.raises(ValueError, match=r"mean_abs: got shape \(12,\).*multiple of 3 heads of 3"):
        fold.shared_heads(mean_abs, head_dim=3, repeats=3)
    with pytest.raises(ValueError, match="repeats: got 0"):
        fold.shared_heads(mean_abs, head_dim=3, repeats=0)


@pytest.mark.parametrize(
    ("norm", "layers", "scales", "error", "message"),
    [
        (nn.LayerNorm(4), [nn.Linear(4, 2)], torch.zeros(4), ValueError, "scales: got 0; all must be above 0"),
        (nn.LayerNorm(4), [nn.Linear(4, 2)], torch.ones(3), ValueError, r"scales: got shape \(3,\)"),
        (nn.LayerNorm(4), [nn.Linear(4, 2)], torch.full((4,), torch.nan), ValueError, "scales: holds NaN"),
        (nn.LayerNorm(4), [], torch.ones(4), TypeError, "layers: got list; .*at least one"),
        (nn.LayerNorm(4), nn.Linear(4, 2), torch.ones(4), TypeError, "layers: got Linear"),
        (nn.LayerNorm(4), [nn.Identity()], torch.ones(4), TypeError, "layer: got Identity"),
        (nn.LayerNorm(4, elementwise_affine=False), [nn.Linear(4, 2)], torch.ones(4), TypeError, "norm: got LayerNorm"),
        (nn.LayerNorm(5), [nn.Linear(4, 2)], torch.ones(4), TypeError, r"norm: .*of shape \(4,\)"),
    ],
)
def test_folding_refuses(norm: Any, layers: Any, scales: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fold.into_norm(norm, layers, scales)
