"""Set 07 against what it is about: torch's layers, transformers' attention, brute force, the numbers in its text."""

from __future__ import annotations

import ast
import inspect
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from qlab.learn.execute import read
from qlab.learn.judge import examine
from qlab.learn.observe import observe
from qlab.learn.question import Case
from qlab.learn.questions import exercise_set, question
from qlab.learn.questions.awq import clip as clip_module
from qlab.learn.questions.awq import search as search_module
from qlab.learn.questions.awq.shared import is_near_a_tie, rounded, second_moment, tokens

MASTER = Path(__file__).parents[3] / "solutions" / "07_awq_and_hqq.ipynb"
IDS = exercise_set("07").questions

(
    mean_magnitude,
    channel_scales,
    fold,
    fold_into_values,
    output_loss,
    search_scales,
    clip_limits,
    shrink,
    update_zero_points,
) = (question(one).reference for one in IDS)


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def layer(random: torch.Generator, out: int = 6, width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (out, in) and activations (tokens, in)."""
    sizes = torch.exp(torch.randn(width, generator=random))
    return torch.randn(out, width, generator=random), tokens(random, 200, sizes)


def card(question_id: str) -> Case:
    [found] = [case for case in question(question_id).cases(0) if "of the card" in case.name]
    return found


def master() -> dict[str, str]:
    return {cell.id: cell.source for cell in read(MASTER).cells}


# --- the references ---------------------------------------------------------------------------------------------------


def test_importance_does_not_depend_on_the_cut(random: torch.Generator) -> None:
    x = torch.randn(24, 5, generator=random) * torch.tensor([0.1, 1.0, 30.0, 0.5, 2.0])
    for cut in ([24], [1, 23], [7, 0, 12, 5], [0, 24]):
        batches = tuple(part[None] for part in x.split(cut))
        torch.testing.assert_close(mean_magnitude(batches), x.abs().mean(dim=0))


@pytest.mark.parametrize("with_bias", [True, False])
def test_fold_leaves_the_outputs_of_torch_layers(with_bias: bool, random: torch.Generator) -> None:
    norm = torch.nn.LayerNorm(8) if with_bias else torch.nn.RMSNorm(8)
    layers = [torch.nn.Linear(8, out) for out in (8, 3)]
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(8, generator=random))
        x = torch.randn(10, 8, generator=random)
        before = [each(norm(x)) for each in layers]
        scales = torch.exp(torch.randn(8, generator=random))
        gain, bias, weights = fold(
            norm.weight, norm.bias if with_bias else None, tuple(each.weight for each in layers), scales
        )
        norm.weight.copy_(gain)
        if with_bias:
            norm.bias.copy_(bias)
        for each, w in zip(layers, weights, strict=True):
            each.weight.copy_(w)
        for old, each in zip(before, layers, strict=True):
            torch.testing.assert_close(each(norm(x)), old, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_fold_into_values_leaves_the_attention_of_transformers(kv_heads: int, random: torch.Generator) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=24, num_attention_heads=6, num_key_value_heads=kv_heads, head_dim=4, attention_bias=True
    )
    config._attn_implementation = "eager"
    attention = LlamaAttention(config, layer_idx=0).eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
        x = torch.randn(1, 7, 24, generator=random)
        positions = LlamaRotaryEmbedding(config)(x, torch.arange(7)[None])
        before, _ = attention(x, position_embeddings=positions, attention_mask=None)
        scales = torch.exp(torch.randn(kv_heads * 4, generator=random))
        v, o = attention.v_proj, attention.o_proj
        changed = fold_into_values(v.weight, v.bias, o.weight, scales, kv_heads)
        for parameter, new in zip((v.weight, v.bias, o.weight), changed, strict=True):
            assert not torch.equal(parameter, new)
            parameter.copy_(new)
        after, _ = attention(x, position_embeddings=positions, attention_mask=None)
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_output_loss_is_that_of_the_activations(random: torch.Generator) -> None:
    w, x = layer(random)
    w_hat = rounded(w, 3, 8)
    expected = F.mse_loss(x @ w_hat.T, x @ w.T).item()
    assert output_loss(w, w_hat, second_moment(x)) == pytest.approx(expected, rel=1e-4)


def test_search_finds_the_best_by_the_activations(random: torch.Generator) -> None:
    w, x = layer(random)
    kept = w.clone()
    scales, k, losses = search_scales(w, x.abs().mean(dim=0), second_moment(x), 3, 8)
    assert torch.equal(w, kept)
    every = [channel_scales(x.abs().mean(dim=0), step / 20) for step in range(20)]
    by_hand = torch.stack([F.mse_loss((x / s) @ rounded(w * s, 3, 8).T, x @ w.T) for s in every])
    torch.testing.assert_close(losses, by_hand, rtol=1e-3, atol=0)
    assert k == int(by_hand.argmin()) > 0 and torch.equal(scales, every[k])
    assert losses[0] == pytest.approx(output_loss(w, rounded(w, 3, 8), second_moment(x)), rel=1e-4)


def test_clip_finds_the_best_by_the_activations(random: torch.Generator) -> None:
    w, x = layer(random)
    limits = clip_limits(w, second_moment(x), 2, 8)
    largest = w.reshape(6, 2, 8).abs().amax(dim=2)
    assert bool((limits < largest).any()) and bool((limits >= 0.549 * largest).all())
    for i, g in ((0, 0), (3, 1), (5, 0)):
        inputs = slice(8 * g, 8 * g + 8)
        group, seen = w[i, inputs], x[:, inputs]
        tried = largest[i, g] * (1 - torch.arange(10) / 20)
        at_2_bits = [(group / limit).round().clamp(-1, 1) * limit for limit in tried]
        losses = torch.stack([F.mse_loss(seen @ new, seen @ group) for new in at_2_bits])
        torch.testing.assert_close(limits[i, g], tried[losses.argmin()])


def test_shrink_is_that_of_the_library() -> None:
    methods = pytest.importorskip("qlab.methods.hqq")
    for case in question("hqq.shrink").cases(3):
        torch.testing.assert_close(methods.shrink(*case.args), shrink(*case.args))


@pytest.mark.skipif(find_spec("qlab.methods.awq") is None, reason="qlab.methods.awq is not there")
def test_search_agrees_with_the_library(random: torch.Generator) -> None:
    from qlab.methods import awq

    w, x = layer(random, out=12, width=32)
    means, moment = x.abs().mean(dim=0), second_moment(x)
    theirs = awq.search_scales([w], means, moment, bits=3, group_size=16, symmetric=True)
    scales, k, losses = search_scales(w, means, moment, 3, 16)
    # The library keeps a group's scale in 16 bits, so its losses differ a little.
    shares = theirs.losses / theirs.losses[0], losses / losses[0]
    torch.testing.assert_close(*(share.float() for share in shares), rtol=0.05, atol=0.0)
    if theirs.ratio == k / 20:
        torch.testing.assert_close(theirs.scales, scales, rtol=1e-3, atol=0.0)


def test_steps_of_hqq_lower_the_error(random: torch.Generator) -> None:
    """Without outliers each step is the best zero-point for its codes, and then come the best codes for it."""
    w = torch.randn(20, 64, generator=random)
    low, high = w.amin(dim=1, keepdim=True), w.amax(dim=1, keepdim=True)
    scales, zeros = (high - low) / 7, -low / ((high - low) / 7)

    def error(zeros: torch.Tensor) -> torch.Tensor:
        codes = torch.round(w / scales + zeros).clamp(0, 7)
        return ((codes - zeros) * scales - w).square().mean(dim=1)

    first = last = error(zeros)
    for _ in range(10):
        zeros = update_zero_points(w, torch.zeros_like(w), scales, zeros, 3)
        assert bool((error(zeros) <= last * (1 + 1e-5)).all())
        last = error(zeros)
    assert last.mean() < 0.99 * first.mean()


def test_small_errors_are_no_outliers_to_hqq() -> None:
    """What the explanation of hqq.shrink says: beta grows from 10 to 12, and weights of 0.02 would need 1,000."""
    torch.manual_seed(0)
    w = 0.02 * torch.randn(1000, 64)
    step = (w.amax(dim=1, keepdim=True) - w.amin(dim=1, keepdim=True)) / 15
    errors = torch.round(w / step) * step - w
    typical = float(errors.abs().amax(dim=1).median())
    assert 0.002 < typical < 0.0035 and typical ** -(2 - 0.7) > 1000
    assert 12 < 10 * 1.01**20 < 12.5
    for beta in (10.0, 10 * 1.01**20):
        assert not shrink(errors, beta, 0.7).any()
    assert abs(10 ** (-1 / 1.3) - 0.17) < 0.002


# --- the cases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_no_weight_lies_where_float32_decides(seed: int) -> None:
    """Otherwise a right answer with another order of operations would have another loss."""
    for case in question("awq.search").cases(seed):
        w, means, _, bits, group_size = case.args
        for k in range(20):
            assert not is_near_a_tie(search_module._places(w, means, k / 20, bits, group_size)), case.name
    for case in question("awq.clip").cases(seed):
        w, _, bits, group_size = case.args
        if "zeros" not in case.name and "on the grid" not in case.name:  # without a step, and without a loss
            assert not is_near_a_tie(clip_module._places(w, bits, group_size)), case.name


@pytest.mark.parametrize("seed", range(5))
def test_scaling_and_clipping_pay_in_the_cases(seed: int) -> None:
    """A search that never leaves the identity must fail in many cases, not in one by chance."""
    cases = question("awq.search").cases(seed)
    found = [seen.value[1] for seen in observe(search_scales, cases)]
    assert sum(k > 0 for k in found) >= 5 and found.count(0) >= 2
    for case, seen in zip(cases, observe(search_scales, cases), strict=True):
        if case.name in ("weights that are on the grid already", "a layer that no token reached"):
            assert seen.value[1] == 0 and seen.value[2].min() == 0
    for case in question("awq.clip").cases(seed):
        w, moment, bits, group_size = case.args
        limits = clip_limits(w, moment, bits, group_size)
        clipped = limits < w.reshape(len(w), -1, group_size).abs().amax(dim=2) * 0.99
        if case.name == "inputs that are never used":
            assert not clipped[:, 1].any() and clipped[:, [0, 2]].any()
        elif case.name == "weights that are on the grid already":
            assert not clipped.any()
        elif len(w) > 1:
            assert clipped.any(), case.name


@pytest.mark.parametrize("seed", range(10))
def test_either_code_of_a_tie_is_right(seed: int) -> None:
    asked = question("hqq.zero_point")

    def ties(up: bool) -> Any:
        def answer(w: Any, outliers: Any, scales: Any, zeros: Any, bits: int) -> Any:
            place = w / scales + zeros
            codes = (torch.floor(place + 0.5) if up else torch.ceil(place - 0.5)).clamp(0, 2**bits - 1)
            return (codes - (w - outliers) / scales).mean(dim=1, keepdim=True)

        return answer

    [tie] = [case for case in asked.cases(seed) if "halfway" in case.name]
    assert not torch.equal(ties(True)(*tie.args), ties(False)(*tie.args))
    for up in (True, False):
        verdict = examine(asked, ties(up), seed)
        assert verdict.passed, verdict


# --- the text ---------------------------------------------------------------------------------------------------------


def test_the_cards_examples_are_right() -> None:
    torch.testing.assert_close(mean_magnitude(*card("awq.importance").args), torch.full((3,), 2.0))
    torch.testing.assert_close(channel_scales(torch.tensor([1.0, 4, 16]), 0.5), torch.tensor([0.5, 1, 2]))
    dead = channel_scales(torch.tensor([1.0, 4, 16, 0]), 0.5)
    torch.testing.assert_close(dead, torch.tensor([50.0, 100, 200, 0.005]))
    gain, bias, (w,) = fold(*card("awq.fold").args)
    assert gain.tolist() == [1, 2] and bias.tolist() == [0.5, -6] and w.tolist() == [[2, 1], [6, 2]]
    values, _, o = fold_into_values(
        torch.tensor([[6.0], [8.0]]), None, torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([2.0, 0.5]), 2
    )
    assert values.tolist() == [[3], [16]] and o.tolist() == [[2, 4, 1.5, 2]]
    assert output_loss(*card("awq.output_loss").args) == pytest.approx(0.05)
    scales, k, losses = search_scales(*card("awq.search").args)
    assert losses[[0, 10, 13, 19]].tolist() == pytest.approx([2.56, 0.16, 0.0006, 0.243], rel=2e-2)
    assert k == 13 and scales[1] / scales[0] == pytest.approx(4**0.65)
    w, moment, bits, group_size = card("awq.clip").args
    assert clip_limits(w, moment, bits, group_size).item() == pytest.approx(0.65)
    losses = clip_module._table(card("awq.clip"))[1][[0, 4, 7, 9]].flatten()
    assert losses.tolist() == pytest.approx([0.16, 0.044, 0.01475, 0.02275])
    x = torch.tensor([0.0, 0.04, 0.25, -0.25, 1.0, 4.0])
    torch.testing.assert_close(shrink(x, 10.0, 0.5), torch.tensor([0, 0, 0.05, -0.05, 0.9, 3.95]))
    assert abs(10 ** (-1 / 1.5) - 0.215) < 5e-4
    w, outliers, *rest = card("hqq.zero_point").args
    assert update_zero_points(w, outliers, *rest).item() == pytest.approx(1.95)
    assert update_zero_points(w, torch.zeros_like(w), *rest).item() == pytest.approx(1.85)


def test_the_functions_with_the_bug_do_what_the_text_says() -> None:
    scope: dict[str, Any] = {"torch": torch}
    exec(master()["awq-importance-bug"], scope)
    assert scope["means"].tolist() == [-1, 0, 4] and scope["means"].sqrt()[0].isnan()
    verdict = examine(question("awq.importance"), scope["popular_importance"], 0)
    assert verdict.outcome == "failed" and verdict.mutant == "the_bug"


def test_the_helper_in_the_notebook_is_ours() -> None:
    tree = ast.parse(master()["awq-search-answer"])
    given = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "rounded"]
    assert [ast.dump(node) for node in given] == [
        ast.dump(ast.parse(textwrap.dedent(inspect.getsource(rounded))).body[0])
    ]
    released = {cell.id: cell.source for cell in read(MASTER.parents[1] / "exercises" / MASTER.name).cells}
    assert "torch.round(groups / steps)" in released["awq-search-answer"], "the learner gets it"


def test_the_mark_scheme_has_the_numbers_that_come_out() -> None:
    scheme = master()["awq-defend"]
    [code] = [part for part in scheme.split("```") if "manual_seed" in part]
    scope: dict[str, Any] = {"torch": torch, "search_scales": search_scales}
    exec(code, scope)
    w, s, x, again, other = (scope[name] for name in ("w", "scales", "x", "again", "other"))
    change = []
    for data in (x, again, other):
        scaled, plain = (
            output_loss(w, w_hat, second_moment(data)) for w_hat in (rounded(w * s, 4, 32) / s, rounded(w, 4, 32))
        )
        change.append(round(100 * (scaled / plain - 1)))
    assert f"falls by {-change[0]} %" in scheme and f"by {-change[1]} % on fresh" in scheme
    assert f"*rises* by {change[2]} %" in scheme
    for full, plain, awq, share in ((5.47, 5.73, 5.60, 50), (3.32, 3.46, 3.41, 36), (5.47, 6.66, 6.24, 35)):
        assert round(100 * (plain - awq) / (plain - full)) == share
        assert f"| {full:.2f} | {plain:.2f} | {awq:.2f} | {share} % |" in scheme
    assert round((12.380 - 11.905) / (12.380 - 10.936), 2) == 0.33 and round(4 + 20 / 128, 2) == 4.16


@pytest.mark.parametrize("question_id", IDS)
def test_docstrings_fit_the_notebook(question_id: str) -> None:
    answer = master()[f"{question_id.replace('.', '-')}-answer"]
    assert max(map(len, answer.splitlines())) <= 92
