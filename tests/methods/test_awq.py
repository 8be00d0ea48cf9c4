"""AWQ: the losses are those of the outputs, searches never lose, and folding keeps what a model computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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
from qlab.methods import awq

OPTIONS: list[dict[str, Any]] = [
    {"bits": bits, "group_size": group_size, "symmetric": symmetric}
    for bits, group_size in ((4, 32), (3, 24), (3, "channel"), (4, "tensor"))
    for symmetric in (True, False)
]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(width: int, large: int = 0, tokens: int = 200, seed: int = 0) -> torch.Tensor:
    """(tokens, in): normal, with `large` channels thirty times as large."""
    x = normal(tokens, width, seed=seed)
    x[:, torch.randperm(width, generator=torch.Generator().manual_seed(seed))[:large]] *= 30
    return x


def statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.abs().mean(0), 2 * x.T @ x / len(x)


def loss(change: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    return ((change @ hessian) * change).sum()


# ---- scales


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_losses_are_twice_the_squared_error_of_the_outputs(options: dict[str, Any]) -> None:
    weights = [normal(20, 72, seed=1), normal(7, 72, seed=2)]
    x = inputs(72, large=2)
    found = awq.search_scales(weights, *statistics(x), **options, ratios=10)
    assert found.losses.shape == (10,) and found.losses.dtype == found.scales.dtype == torch.float32
    for i, got in enumerate(found.losses):
        scales = x.abs().mean(0) ** (i / 10)
        scales = scales / (scales.max() * scales.min()).sqrt()
        outputs = [
            (x / scales).double() @ affine.quantize(w * scales, **options).dequantize().double().T
            - x.double() @ w.double().T
            for w in weights
        ]
        assert float(got) == pytest.approx(sum(2 * float(y.square().sum(1).mean()) for y in outputs), rel=1e-3)
        if i / 10 == found.ratio:
            torch.testing.assert_close(found.scales, scales)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_ratio_0_is_round_to_nearest_exactly(options: dict[str, Any], dtype: torch.dtype) -> None:
    w = normal(20, 72).to(dtype)
    mean_abs, hessian = statistics(inputs(72, large=2))
    found = awq.search_scales([w], mean_abs, hessian, **options)
    assert found.losses[0] == loss(affine.quantize(w, **options).dequantize(torch.float32) - w.float(), hessian)


@given(
    columns=st.integers(1, 70),
    rows=st.integers(1, 5),
    bits=st.sampled_from([2, 3, 4, 8]),
    group_size=st.sampled_from([1, 16, 32, "channel", "tensor"]),
    symmetric=st.booleans(),
    large=st.integers(0, 3),
    dead=st.integers(0, 3),
    scale_dtype=st.sampled_from([torch.float16, torch.bfloat16]),
    seed=st.integers(0, 10_000),
)
def test_the_choice_is_never_worse_than_identity(
    columns: int,
    rows: int,
    bits: int,
    group_size: affine.GroupSize,
    symmetric: bool,
    large: int,
    dead: int,
    scale_dtype: torch.dtype,
    seed: int,
) -> None:
    x = inputs(columns, large, tokens=20, seed=seed)
    x[:, :dead] = 0
    weights = [normal(rows, columns, seed=seed + i) * 0.02 for i in (1, 2)]
    before = [w.clone() for w in weights]
    mean_abs, hessian = statistics(x)
    found = awq.search_scales(weights, mean_abs, hessian, bits, group_size, symmetric, scale_dtype=scale_dtype)
    chosen = round(found.ratio * 20)
    assert found.losses[chosen] == found.losses.min() <= found.losses[0]
    assert bool((found.losses[:chosen] > found.losses[chosen]).all()), "of equal losses the smaller ratio wins"
    assert bool(found.losses.isfinite().all()) and bool((found.scales > 0).all())
    assert all(torch.equal(w, old) for w, old in zip(weights, before, strict=True))


# Not per tensor: there, a column that is scaled up widens the one grid of all rows, and less is won.
@pytest.mark.parametrize("options", [o for o in OPTIONS if o["group_size"] != "tensor"], ids=str)
def test_large_channels_make_the_loss_fall(options: dict[str, Any]) -> None:
    w = normal(64, 256, seed=1) * 0.02
    found = awq.search_scales([w], *statistics(inputs(256, large=3)), **options)
    assert found.ratio > 0 and float(found.losses.min()) < 0.5 * float(found.losses[0])


def test_scales_are_centered_and_clamped() -> None:
    mean_abs = torch.tensor([1e-9, 0.25, 4.0, 1.0])
    weights = [torch.eye(4) * torch.tensor([1.0, 0.3, 0.05, 0.7]) + 0.01 * normal(4, 4)]
    found = awq.search_scales(weights, mean_abs, torch.diag(mean_abs**2), bits=3, group_size="channel", ratios=2)
    assert found.ratio == 0.5  # or the next line says nothing
    plain = torch.tensor([1e-4, 0.5, 2.0, 1.0])  # 1e-9 ** 0.5 = 3e-5 is below the clamp
    torch.testing.assert_close(found.scales, plain / (2.0 * 1e-4) ** 0.5)


def test_an_input_that_calibration_never_moved_keeps_its_weights() -> None:
    x = inputs(64, large=2)
    x[:, 5] = 0
    w = normal(16, 64, seed=1)
    mean_abs, hessian = statistics(x)
    found = awq.search_scales([w], mean_abs, hessian)
    assert found.ratio > 0 and found.scales[5] == 1
    others = found.scales[torch.arange(64) != 5]
    assert float(others.max() * others.min()) == pytest.approx(1, rel=1e-5)
    back = affine.quantize(w * found.scales).dequantize() / found.scales
    assert float((back - w)[:, 5].abs().max()) < float(w[:, 5].abs().max()), "the column was rounded away"


def test_no_live_input_leaves_everything_as_it_is() -> None:
    found = awq.search_scales([normal(4, 8)], torch.zeros(8), torch.zeros(8, 8))
    assert found.ratio == 0 and bool((found.scales == 1).all()) and bool((found.losses == 0).all())


def test_shared_heads() -> None:
    # Two value heads of 3 channels, each read by 2 query heads.
    mean_abs = torch.tensor([1.0, 2, 3, 5, 6, 7, 10, 20, 30, 30, 40, 50])
    expected = torch.tensor([3.0, 4, 5, 3, 4, 5, 20, 30, 40, 20, 30, 40])
    assert torch.equal(awq.shared_heads(mean_abs, head_dim=3, repeats=2), expected)
    assert torch.equal(awq.shared_heads(mean_abs, head_dim=3, repeats=1), mean_abs)
    with pytest.raises(ValueError, match=r"mean_abs: got shape \(12,\).*multiple of 3 heads of 3"):
        awq.shared_heads(mean_abs, head_dim=3, repeats=3)
    with pytest.raises(ValueError, match="repeats: got 0"):
        awq.shared_heads(mean_abs, head_dim=3, repeats=0)


# ---- clipping


def clip_losses(w: torch.Tensor, hessian: torch.Tensor, limit: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """The loss of every group for given limits, float64, by the definition: one row and one group after another."""
    size = options["group_size"]
    if size == "tensor":
        back = affine.quantize(w.clamp(-limit, limit), **options).dequantize(torch.float64)
        return loss(back - w, hessian.double()).reshape(1, 1)
    width = w.shape[1] if size == "channel" else size
    result = torch.empty(limit.shape, dtype=torch.float64)
    for r, row in enumerate(w):
        for g, part in enumerate(row.split(width)):
            block = hessian[g * width :, g * width :][: len(part), : len(part)].double()
            clipped = part.clamp(-limit[r, g], limit[r, g])[None]
            change = affine.quantize(clipped, **options).dequantize(torch.float64) - part
            result[r, g] = loss(change, block)
    return result


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_clip_takes_the_best_limit_of_its_grid(options: dict[str, Any]) -> None:
    w = normal(6, 80, seed=1)  # 80 leaves a short last group of 16 and of 8
    _, hessian = statistics(inputs(80, large=3) @ normal(80, 80, seed=3))
    limits = awq.search_clip(w, hessian, **options, steps=8, shrink=0.6)
    width = 80 if isinstance(options["group_size"], str) else options["group_size"]
    largest = torch.stack([part.abs().amax(1) for part in w.split(width, 1)], 1)
    if options["group_size"] == "tensor":
        largest = largest.max().reshape(1, 1)
    factors = [1 - 0.6 * i / 8 for i in range(8)]
    losses = torch.stack([clip_losses(w, hessian, largest * f, options) for f in factors])
    chosen = clip_losses(w, hessian, limits, options)
    torch.testing.assert_close(chosen, losses.amin(0), rtol=1e-3, atol=0)
    assert bool((chosen <= losses[0] * (1 + 1e-6)).all())
    assert bool((limits < largest).any()), "nothing was clipped: the test sees nothing"
    assert bool(((limits / largest - torch.tensor(factors)[:, None, None]).abs() < 1e-6).any(0).all())


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 70),
    bits=st.sampled_from([2, 3, 4, 8]),
    group_size=st.sampled_from([1, 16, 32, "channel"]),
    symmetric=st.booleans(),
    power=st.sampled_from([1, 3]),
    seed=st.integers(0, 10_000),
)
def test_no_group_is_worse_for_being_clipped(
    rows: int, columns: int, bits: int, group_size: affine.GroupSize, symmetric: bool, power: int, seed: int
) -> None:
    w = normal(rows, columns, seed=seed) ** power
    _, hessian = statistics(inputs(columns, large=2, tokens=30, seed=seed))
    options: dict[str, Any] = {"bits": bits, "group_size": group_size, "symmetric": symmetric}
    q, nearest = awq.quantize(w, hessian, **options), affine.quantize(w, **options)
    width = columns if group_size == "channel" else group_size
    for start in range(0, columns, int(width)):
        part = slice(start, start + int(width))
        block = hessian[part, part].double()
        changes = [(q.dequantize(torch.float64) - w)[:, part] for q in (q, nearest)]
        clipped, plain = (((c @ block) * c).sum(1) for c in changes)  # (rows,)
        assert bool((clipped <= plain * (1 + 1e-4) + 1e-9 * float(block.diagonal().max())).all())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_tie_clips_nothing(options: dict[str, Any]) -> None:
    w = normal(4, 72)
    w[-1] *= 3  # the largest weight of the tensor is not in the first row
    hessian = torch.zeros(72, 72)
    assert float(awq.search_clip(w, hessian, **options).max()) == float(w.abs().max())
    q, nearest = awq.quantize(w, hessian, **options), affine.quantize(w, **options)
    assert torch.equal(q.packed, nearest.packed) and torch.equal(q.scales, nearest.scales)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_quantize_rounds_inside_the_limits(options: dict[str, Any], dtype: torch.dtype) -> None:
    w = (normal(6, 80, seed=1) ** 3).to(dtype)
    before = w.clone()
    _, hessian = statistics(inputs(80, large=3))
    limits = awq.search_clip(w, hessian, **options)
    assert limits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    q = awq.quantize(w, hessian, **options)
    expected = affine.quantize(awq.apply_limits(w.to(limits.dtype), limits, options["group_size"]), **options)
    assert torch.equal(q.packed, expected.packed) and torch.equal(q.scales, expected.scales)
    assert q.dtype == dtype and q.symmetric == options["symmetric"] and torch.equal(w, before)
    unclipped, nearest = awq.quantize(w, hessian, **options, clip=False), affine.quantize(w, **options)
    assert torch.equal(unclipped.packed, nearest.packed) and torch.equal(unclipped.scales, nearest.scales)


def test_the_type_of_the_scales_counts_in_both_searches() -> None:
    w = normal(6, 64, seed=1) * 0.02
    mean_abs, hessian = statistics(inputs(64, large=2))
    options: dict[str, Any] = {"bits": 8, "group_size": 32, "scale_dtype": torch.bfloat16}  # where it shows most
    found = awq.search_scales([w], mean_abs, hessian, **options)
    assert found.losses[0] == loss(affine.quantize(w, **options).dequantize() - w, hessian)
    limits = awq.search_clip(w, hessian, **options)
    assert not torch.equal(limits, awq.search_clip(w, hessian, bits=8, group_size=32))
    q, expected = awq.quantize(w, hessian, **options), affine.quantize(awq.apply_limits(w, limits, 32), **options)
    assert torch.equal(q.packed, expected.packed) and torch.equal(q.scales, expected.scales)
    assert q.scales.dtype == awq.quantize(w, hessian, **options, clip=False).scales.dtype == torch.bfloat16


def test_apply_limits_reaches_into_a_short_last_group() -> None:
    w = torch.tensor([[3.0, -3, 3, -3, 3], [1, 1, 1, 1, -9]])
    limits = torch.tensor([[2.0, 1, 0.5], [9, 9, 0]])
    expected = torch.tensor([[2.0, -2, 1, -1, 0.5], [1, 1, 1, 1, 0]])
    assert torch.equal(awq.apply_limits(w, limits, 2), expected)


def test_rows_are_searched_in_runs_with_one_result(monkeypatch: pytest.MonkeyPatch) -> None:
    w = normal(7, 64) ** 3
    _, hessian = statistics(inputs(64, large=2))
    for size in (32, "channel", "tensor"):
        at_once = awq.search_clip(w, hessian, group_size=size)
        with monkeypatch.context() as patch:
            patch.setattr(awq, "_AT_ONCE", 130)  # two rows
            torch.testing.assert_close(awq.search_clip(w, hessian, group_size=size), at_once, rtol=0, atol=0)


# ---- what real layers contain


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_zeros_everywhere_give_no_nan(options: dict[str, Any]) -> None:
    w = normal(6, 72, seed=1)
    w[0] = 0  # a row
    w[:, :32] = 0  # groups
    w[:, 40] = 0  # a channel
    x = inputs(72, large=2)
    x[:, 10:50] = 0  # dead inputs
    mean_abs, hessian = statistics(x)
    found = awq.search_scales([w, torch.zeros(3, 72)], mean_abs, hessian, **options)
    assert bool(found.losses.isfinite().all()) and bool((found.scales > 0).all())
    scaled = hessian / torch.outer(found.scales, found.scales)
    limits = awq.search_clip(w * found.scales, scaled, **options)
    assert bool(limits.isfinite().all()) and bool((limits >= 0).all())
    q = awq.quantize(w * found.scales, scaled, **options)
    back = q.dequantize()
    assert bool(back.isfinite().all()) and bool((back[0] == 0).all()) and bool((q.scales > 0).all())


def test_scaling_then_rounding_reaches_the_loss_that_the_search_promised() -> None:
    w = normal(32, 128, seed=1) * 0.02
    x = inputs(128, large=3)
    mean_abs, hessian = statistics(x)
    found = awq.search_scales([w], mean_abs, hessian, bits=3)
    layer, norm = nn.Linear(128, 32, bias=False), nn.RMSNorm(128)
    layer.weight.data.copy_(w)
    awq.fold_into_norm(norm, [layer], found.scales)
    scaled = hessian / torch.outer(found.scales, found.scales)
    for clip, bound in ((False, 1.0), (True, 0.9)):
        q = awq.quantize(layer.weight.detach(), scaled, bits=3, clip=clip)
        error = 2 * float(((x / found.scales) @ q.dequantize().T - x @ w.T).square().sum(1).mean())
        if clip:
            assert error < bound * float(found.losses.min())
        else:
            assert error == pytest.approx(bound * float(found.losses.min()), rel=1e-3)


# ---- folding

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


def fold(block: nn.Module, edge: tuple[str, list[str]], scale: Callable[[int], torch.Tensor]) -> None:
    previous, layers = block.get_submodule(edge[0]), [block.get_submodule(name) for name in edge[1]]
    scales = scale(width_of(layers[0]))
    if not isinstance(previous, nn.Linear | Conv1D):
        awq.fold_into_norm(previous, layers, scales)
    elif (repeats := len(scales) // previous.weight.shape[0]) > 1:
        head_dim: int = block.self_attn.head_dim  # type: ignore[assignment,union-attr]
        awq.fold_into_linear(previous, layers, awq.shared_heads(scales, head_dim, repeats), head_dim=head_dim)
    else:
        awq.fold_into_linear(previous, layers, scales)


@pytest.mark.parametrize(("family", "edge"), [(family, edge) for family in CONFIGS for edge in EDGES[family]], ids=str)
def test_folding_keeps_what_a_model_computes(family: str, edge: tuple[str, list[str]]) -> None:
    model = tiny(CONFIGS[family])
    expected = logits(model)
    untouched = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    for block in blocks_of(model):
        fold(block, edge, lambda width: torch.randn(width, generator=generator).mul(0.7).exp())
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
            fold(block, edge, lambda width: torch.linspace(0.5, 2, width))
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
    found = awq.search_scales(weights, *statistics(caught[0].detach()), bits=3, group_size=16)

    def error(model: PreTrainedModel) -> float:
        model = copy.deepcopy(model)
        for name in _LLAMA_EDGES[0][1]:
            layer = blocks_of(model)[0].get_submodule(name)
            layer.weight.data = affine.quantize(layer.weight.detach(), 3, 16).dequantize()  # type: ignore[union-attr,arg-type]
        return float((logits(model) - expected).square().mean())

    nearest = error(model)
    awq.fold_into_norm(block.input_layernorm, layers, found.scales)  # type: ignore[arg-type]
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
        awq.fold_into_norm(norm, layers, torch.linspace(0.5, 2, 32))  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


@pytest.mark.parametrize("how", ["norm", "linear"])
def test_what_would_overflow_is_refused_and_left_alone(how: str) -> None:
    first: nn.Module = nn.LayerNorm(4) if how == "norm" else nn.Linear(4, 4)
    block = nn.ModuleDict({"first": first, "ok": nn.Linear(4, 3), "not": nn.Linear(4, 2)}).half()
    with torch.no_grad():
        block["not"].weight[0, 0] = 40_000.0  # type: ignore[index,operator]
    before = copy.deepcopy(block.state_dict())
    folding = awq.fold_into_norm if how == "norm" else awq.fold_into_linear
    with pytest.raises(ValueError, match="scales: folding them overflows torch.float16"):
        folding(first, [block["ok"], block["not"]], torch.full((4,), 2.0))  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


def test_scales_must_agree_where_query_heads_share_a_value_head() -> None:
    v, o = nn.Linear(8, 4), nn.Linear(8, 8)
    before = v.weight.clone()
    uneven = torch.arange(1.0, 9)
    with pytest.raises(ValueError, match="scales: query heads that share.*shared_heads"):
        awq.fold_into_linear(v, [o], uneven, head_dim=2)
    with pytest.raises(ValueError, match="previous: it has 4 outputs for 8 scales.*head_dim"):
        awq.fold_into_linear(v, [o], uneven)
    with pytest.raises(ValueError, match="scales: got shape .*2 heads of 3"):
        awq.fold_into_linear(v, [o], uneven, head_dim=3)
    with pytest.raises(ValueError, match="previous: it has 12 outputs for 8"):  # q, k and v in one, say
        awq.fold_into_linear(nn.Linear(8, 12), [o], uneven, head_dim=2)
    assert torch.equal(v.weight, before)


# ---- bad arguments


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weights": torch.ones(2, 8)}, TypeError, "weights: got Tensor; give a list"),
        ({"weights": []}, TypeError, "weights: got list; .*at least one"),
        ({"weights": [torch.ones(2, 8), torch.ones(2, 9)]}, ValueError, r"hessian: got shape \(8, 8\).*\(9, 9\)"),
        ({"weights": [torch.full((2, 8), torch.nan)]}, ValueError, r"weights\[0\]: 16 of 16 values are NaN"),
        ({"mean_abs": torch.ones(7)}, ValueError, r"mean_abs: got shape \(7,\)"),
        ({"mean_abs": -torch.ones(8)}, ValueError, r"mean_abs: got negative values.*abs\(\)"),
        ({"mean_abs": torch.full((8,), torch.inf)}, ValueError, "mean_abs: holds NaN or infinity"),
        ({"hessian": torch.full((8, 8), torch.nan)}, ValueError, "hessian: holds NaN or infinity"),
        ({"hessian": None}, TypeError, "hessian: got NoneType"),
        ({"hessian": torch.eye(8).long()}, TypeError, "hessian: got torch.int64"),
        ({"ratios": 0}, ValueError, "ratios: got 0"),
        ({"ratios": 2.0}, TypeError, "ratios: got 2.0"),
        ({"bits": 9}, ValueError, "bits: got 9"),
    ],
)
def test_a_scale_search_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"weights": [torch.ones(2, 8)], "mean_abs": torch.ones(8), "hessian": torch.eye(8)}
    with pytest.raises(error, match=message):
        awq.search_scales(**arguments | change)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"w": torch.ones(8)}, ValueError, r"w: shape \(8,\)"),
        ({"hessian": torch.eye(7)}, ValueError, r"hessian: got shape \(7, 7\)"),
        ({"steps": 0}, ValueError, "steps: got 0"),
        ({"shrink": 1}, ValueError, "shrink: got 1; allowed"),
        ({"shrink": -0.1}, ValueError, "shrink: got -0.1"),
        ({"group_size": "row"}, ValueError, "group_size: got 'row'"),
    ],
)
def test_a_clip_search_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"w": torch.ones(2, 8), "hessian": torch.eye(8)}
    with pytest.raises(error, match=message):
        awq.search_clip(**arguments | change)
    if not {"steps", "shrink"} & set(change):
        with pytest.raises(error, match=message):
            awq.quantize(**arguments | change)


def test_quantize_refuses_what_is_no_flag() -> None:
    with pytest.raises(TypeError, match="clip: got 1"):
        awq.quantize(torch.ones(2, 8), torch.eye(8), clip=1)  # type: ignore[arg-type]


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
        awq.fold_into_norm(norm, layers, scales)
