"""Set 05 against what it is about: torch's layers, transformers' blocks, the library, the numbers in its text."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from qlab.deploy.hardware import gpu
from qlab.formats import affine
from qlab.formats.activations import Activations
from qlab.learn.execute import read
from qlab.learn.judge import examine
from qlab.learn.observe import observe
from qlab.learn.question import Case
from qlab.learn.questions import exercise_set, question
from qlab.learn.questions.smoothquant import best_alpha as best_alpha_module
from qlab.learn.questions.smoothquant.shared import is_near_a_tie, rounded
from qlab.methods import smoothquant, w8a8

MASTER = Path(__file__).parents[3] / "solutions" / "05_smoothquant_w8a8.ipynb"
IDS = exercise_set("05").questions

smoothing_scales, shared_scales, fold, static_scale, w8a8_linear, best_alpha = (question(one).reference for one in IDS)


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def layer(random: torch.Generator, tokens: int = 40, width: int = 16, out: int = 12) -> tuple[torch.Tensor, ...]:
    """Inputs (tokens, in) with an outlier channel and weights (out, in)."""
    x, w = torch.randn(tokens, width, generator=random), torch.randn(out, width, generator=random)
    x[:, 3] *= 50
    return x, w


def int8_weight(w: torch.Tensor) -> tuple[affine.AffineWeight, torch.Tensor, torch.Tensor]:
    """As the library holds it, and its codes and scales."""
    weight = w8a8.quantize(w)
    return weight, w8a8.int8_codes(weight), weight.scales


def card(question_id: str) -> Case:
    first: Case = question(question_id).cases(0)[0]
    assert "of the card" in first.name, "the card's example is the first case"
    return first


def master() -> dict[str, str]:
    return {cell.id: cell.source for cell in read(MASTER).cells}


# --- the references ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0, 0.0, 0.3, 0.5, 0.85, 1.0, 1])
def test_scales_are_those_of_the_library(alpha: float, random: torch.Generator) -> None:
    x, w = (torch.exp(3 * torch.randn(20, generator=random)) for _ in range(2))
    x[[1, 5]], w[[5, 9]] = 0.0, 0.0
    theirs = smoothquant.scales(x, w, alpha)
    torch.testing.assert_close(smoothing_scales(x, w, alpha), theirs)
    layers = tuple(w * (2 * torch.rand(out, 20, generator=random) - 1) for out in (7, 3, 3))
    theirs = smoothquant.scales(x, smoothquant.largest_weights(layers), alpha)
    torch.testing.assert_close(shared_scales(x, layers, alpha), theirs)


def test_scales_are_those_of_the_authors_where_nothing_is_small(random: torch.Generator) -> None:
    """Their smoothing.py: act.pow(a) / weight.clamp(min=1e-5).pow(1 - a), all of it at least 1e-5."""
    x, w = (torch.exp(torch.randn(20, generator=random)) for _ in range(2))
    theirs = (x.pow(0.7) / w.clamp(min=1e-5).pow(1 - 0.7)).clamp(min=1e-5)
    torch.testing.assert_close(smoothing_scales(x, w, 0.7), theirs)


def test_half_of_the_difficulty_for_each(random: torch.Generator) -> None:
    x, w = layer(random)
    s = smoothing_scales(x.abs().amax(0), w.abs().amax(0), 0.5)
    torch.testing.assert_close((x / s).abs().amax(0), (w * s).abs().amax(0))


@pytest.mark.parametrize("with_bias", [True, False])
def test_fold_leaves_the_outputs_of_torch_layers(with_bias: bool, random: torch.Generator) -> None:
    width = 8
    block = torch.nn.ModuleDict(
        {
            "norm": torch.nn.LayerNorm(width) if with_bias else torch.nn.RMSNorm(width),
            "q": torch.nn.Linear(width, width, bias=with_bias),
            "k": torch.nn.Linear(width, 2, bias=True),
            "o": torch.nn.Linear(width, width, bias=with_bias),
        }
    )
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
        x = torch.randn(10, width, generator=random)

        def outputs() -> list[torch.Tensor]:
            return [block["q"](block["norm"](x)), block["k"](block["norm"](x)), block["o"](x)]

        before, state = outputs(), dict(block.state_dict())
        folded = fold(state, "norm", ("q", "k"), torch.exp(torch.randn(width, generator=random)))
        assert not torch.equal(folded["norm.weight"], state["norm.weight"])
        block.load_state_dict(folded)
        for old, new in zip(before, outputs(), strict=True):
            torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-4)


def test_fold_leaves_the_logits_of_a_llama_of_transformers(random: torch.Generator) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, attention_bias=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 50, (1, 9), generator=random)
    with torch.no_grad():
        before = model(ids).logits
        for prefix in ("model.layers.0.", "model.layers.1."):
            for norm, readers in (
                ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
                ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
            ):
                scales = torch.exp(torch.randn(24, generator=random))
                state = {name: values.clone() for name, values in model.state_dict().items()}
                names = tuple(prefix + reader for reader in readers)
                model.load_state_dict(fold(state, prefix + norm, names, scales))
        torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-4)


def test_static_scale_is_that_of_the_library_and_of_any_cut(random: torch.Generator) -> None:
    from qlab.formats import activations

    x = torch.randn(24, 5, generator=random) * torch.tensor([0.1, 1.0, 30.0, 0.5, 2.0])
    expected = float(activations.static_scale(float(x.abs().max())))
    for cut in ([24], [1, 23], [7, 0, 12, 5], [0, 24]):
        batches = tuple(part[None] for part in x.split(cut))
        masks = tuple(torch.ones(part.shape[:2], dtype=torch.bool) for part in batches)
        assert static_scale(batches, masks) == pytest.approx(expected, rel=1e-6)
    assert (
        static_scale((x[None] * 0,), (torch.ones(1, 24, dtype=torch.bool),))
        == 1.0
        == float(activations.static_scale(0.0))
    )


@pytest.mark.parametrize("static", [False, True])
def test_linear_is_that_of_the_library(static: bool, random: torch.Generator) -> None:
    x, w = layer(random)
    x[4] = 0.0
    bias = torch.randn(12, generator=random)
    weight, codes, scales = int8_weight(w)
    scale = 0.05 if static else None
    scheme = Activations(granularity="tensor", scale=torch.tensor([0.05])) if static else Activations()
    _, sums, y = w8a8_linear(x, scale, codes, scales, bias)
    torch.testing.assert_close(y, w8a8.linear(x, weight, bias, scheme), rtol=1e-4, atol=1e-4)
    assert sums.dtype == torch.int32


def test_linear_is_that_of_bitsandbytes(random: torch.Generator) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    x, w = layer(random)
    x = x.half()
    w_codes, w_absmax, _ = functional.int8_vectorwise_quant(w.half())
    x_codes, x_absmax, _ = functional.int8_vectorwise_quant(x)
    codes, sums, y = w8a8_linear(x.float(), None, w_codes, w_absmax[:, None] / 127, None)
    assert (codes.int() - x_codes.int()).abs().max() <= 1, "ties may go either way"
    assert (codes != x_codes).float().mean() < 0.01
    if torch.equal(codes, x_codes):
        assert torch.equal(sums, functional.int8_linear_matmul(x_codes, w_codes))
    theirs = functional.int8_mm_dequant(functional.int8_linear_matmul(x_codes, w_codes), x_absmax, w_absmax)
    torch.testing.assert_close(y, theirs.float(), rtol=2e-2, atol=2e-2 * float(y.abs().max()))


def test_sweep_is_that_of_the_library(random: torch.Generator) -> None:
    x, w = layer(random)
    alphas = (0.9, 0.1, 0.5, 0.7)
    alpha, losses = best_alpha(x, w, alphas)
    shares = losses / (x @ w.T).square().mean()
    theirs = torch.tensor(smoothquant.sweep(x, [w], alphas))
    torch.testing.assert_close(shares, theirs, rtol=2e-2, atol=0.0)  # the library orders its operations otherwise
    assert alpha == alphas[int(theirs.argmin())]


# --- the cases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_no_value_lies_where_float32_decides(seed: int) -> None:
    """Otherwise a right answer with another order of operations would have another loss."""
    for case in question("smoothquant.best_alpha").cases(seed):
        x, w, alphas = case.args
        if x.any():
            for alpha in alphas:
                assert not any(map(is_near_a_tie, best_alpha_module._places(x, w, alpha))), case.name


@pytest.mark.parametrize("seed", range(6))
def test_the_best_alpha_is_not_always_the_same(seed: int) -> None:
    asked = question("smoothquant.best_alpha")
    cases = asked.cases(seed)
    found = dict(zip((case.name for case in cases), (seen.value for seen in observe(best_alpha, cases)), strict=True))
    assert len({alpha for alpha, _ in found.values()}) >= 3
    alpha, losses = found["channels all alike, so that every alpha is as good"]
    assert alpha == 0.3 and bool((losses == losses[0]).all()), "a tie to the last bit"
    alpha, losses = found["inputs of zeros"]
    assert alpha == 0.25 and not losses.any()
    _, losses = found["an outlier channel"]
    assert losses[0] > 3 * losses.min() and losses[-1] > 3 * losses.min(), "both ends are bad"


@pytest.mark.parametrize("seed", range(6))
def test_static_scales_clip_on_both_sides(seed: int) -> None:
    """Where nothing clipped, a missing clamp would pass."""
    cases = {case.name: case.args for case in question("smoothquant.w8a8_linear").cases(seed)}
    for name in ("static, values that clip on both sides", "static, values far beyond the grid"):
        x, scale, *_ = cases[name]
        assert (x / scale > 127.5).any() and (x / scale < -128.5).any()
    x, scale, *_ = cases["static, nothing clips"]
    assert (x.abs() / scale).max() < 127


def test_small_tokens_are_smaller_than_usual_limits() -> None:
    [tiny] = [case for case in question("smoothquant.w8a8_linear").cases(0) if "very small" in case.name]
    largest = tiny.args[0].abs().amax(dim=1)
    assert 0 < largest[3] < largest[1] < 1e-16


@pytest.mark.parametrize("seed", range(6))
def test_either_code_of_a_tie_is_right(seed: int) -> None:
    asked = question("smoothquant.w8a8_linear")
    x = torch.tensor([[127.0, 0.5, -1.5, 2.5], [-127.0, -0.5, 3.5, 4.5]]) * 0.25
    w_codes = torch.tensor([[1, 2, 3, 4], [-127, 5, 6, 7]], dtype=torch.int8)
    tie = Case("ties", (x, None, w_codes, torch.tensor([[0.5], [0.25]]), None))

    def answer(up: bool) -> Any:
        place = x / 0.25
        codes = (torch.floor(place + 0.5) if up else torch.ceil(place - 0.5)).to(torch.int8)
        sums = codes.int() @ w_codes.int().T
        return codes, sums, sums * 0.25 * tie.args[3].T

    assert not torch.equal(answer(True)[0], answer(False)[0])
    for up in (True, False):
        for holds in asked.properties:
            assert holds(tie, answer(up), None) is None


# --- the text ---------------------------------------------------------------------------------------------------------


def test_the_cards_examples_are_right() -> None:
    assert smoothing_scales(*card("smoothquant.scales").args).tolist() == [8, 0.5, 1]
    assert shared_scales(*card("smoothquant.shared_scales").args).tolist() == [4, 0.5, 1]
    state, *rest = card("smoothquant.fold").args
    folded = fold(state, *rest)
    assert folded["norm.weight"].tolist() == [8, 2] and folded["norm.bias"].tolist() == [0, -4]
    assert folded["q_proj.weight"].tolist() == [[8, -2], [4, 1]] and folded["q_proj.bias"].tolist() == [1, 1]
    for one in (state, folded):
        h = one["norm.weight"] + one["norm.bias"]
        assert (one["q_proj.weight"] @ h + one["q_proj.bias"]).tolist() == [69, 31]
    batches, masks = card("smoothquant.static_scale").args
    assert static_scale(batches, masks) == pytest.approx(0.04)
    assert static_scale(batches, tuple(map(torch.ones_like, masks))) == pytest.approx(0.709, abs=5e-4)
    dynamic, static = question("smoothquant.w8a8_linear").cases(0)[:2]
    codes, sums, y = w8a8_linear(*dynamic.args)
    assert codes.tolist() == [[127, -50], [-127, 30]] and sums.tolist() == [[11700, -11430], [-12100, 8890]]
    torch.testing.assert_close(y, torch.tensor([[1.17, -2.286], [-2.42, 3.556]]))
    codes, sums, y = w8a8_linear(*static.args)
    assert codes.tolist() == [[127, -50], [-127, 60]] and sums.tolist() == [[11700, -11430], [-11500, 12700]]
    torch.testing.assert_close(y, torch.tensor([[1.17, -2.286], [-1.15, 2.54]]))
    alpha, losses = best_alpha(*card("smoothquant.best_alpha").args)
    assert alpha == 0.5
    assert losses.tolist() == pytest.approx([0.0613, 0.000881, 0.0000396, 0.000388, 0.0181], rel=5e-3)


def test_the_numbers_in_the_explanations() -> None:
    authors = torch.tensor([1e-5]).pow(0.5) / torch.tensor([1.0])
    assert float(authors) == pytest.approx(0.003, rel=0.06) and 1 / float(authors) == pytest.approx(300, rel=0.06)
    assert torch.tensor(254).to(torch.int8).item() == -2
    assert 3 * 127 * 127 > 2**15 > 2 * 127 * 127 and 1041 * 127 * 127 > 2**24 > 1040 * 127 * 127
    assert round(0.709 / 0.04) == 18


def test_smoothing_twice_is_smoothing_once(random: torch.Generator) -> None:
    """What the explanation of smoothquant.best_alpha says: with new maxima the last alpha alone decides."""
    x, w = layer(random)
    for alpha in (0.9, 0.2, 0.6):
        s = smoothing_scales(x.abs().amax(0), w.abs().amax(0), alpha)
        x, w = x / s, w * s
    original, weights = layer(torch.Generator().manual_seed(5))
    s = smoothing_scales(original.abs().amax(0), weights.abs().amax(0), 0.6)
    torch.testing.assert_close(x, original / s)
    torch.testing.assert_close(w, weights * s)


def test_the_helper_in_the_notebook_is_ours() -> None:
    tree = ast.parse(master()["smoothquant-best_alpha-answer"])
    given = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "rounded"]
    assert [ast.dump(node) for node in given] == [
        ast.dump(ast.parse(textwrap.dedent(inspect.getsource(rounded))).body[0])
    ]
    released = {cell.id: cell.source for cell in read(MASTER.parents[1] / "exercises" / MASTER.name).cells}
    assert "torch.round(a / steps)" in released["smoothquant-best_alpha-answer"], "the learner gets it"


def test_the_mark_scheme_has_the_errors_that_come_out() -> None:
    scheme = master()["smoothquant-defend"]
    [code] = [part for part in scheme.split("```") if "manual_seed" in part]
    scope: dict[str, Any] = {
        "torch": torch, "best_alpha": best_alpha, "smoothing_scales": smoothing_scales, "static_scale": static_scale,
    }  # fmt: skip
    exec(code, scope)
    x, w, y, s, codes, step, scale = (scope[name] for name in ("x", "w", "y", "s", "codes", "step", "scale"))

    def share(got: torch.Tensor, right: torch.Tensor) -> float:
        return 100 * float((got - right).norm() / right.norm())

    plain = share(rounded(x) @ rounded(w).T, y)
    dynamic, static = (share(w8a8_linear(x / s, one, codes, step, None)[2], y) for one in (None, scale))
    assert scope["alpha"] == 0.5
    assert f"is {plain:.1f} %, smoothed {dynamic:.1f} % (alpha 0.5), and with the static scale {static:.1f} %" in scheme
    twice = [share(w8a8_linear(2 * x / s, one, codes, step, None)[2], 2 * y) for one in (None, scale)]
    assert f"still has {twice[0]:.1f} %, the static one {twice[1]:.0f} %" in scheme


def test_the_mark_scheme_has_the_times_that_come_out() -> None:
    scheme = master()["smoothquant-defend"]
    question_text, _ = scheme.split("### BEGIN MARK SCHEME")
    for given in ("6.98 · 10⁹", "2,039 GB", "312 · 10¹²", "624 · 10¹²", "4.125 bits", "two thirds of a peak", "5.60"):
        assert given in question_text, "what the scheme reckons with is on the card"
    hardware = gpu("A100-80GB")
    assert (hardware.bandwidth_gb_per_s, hardware.fp16_tensor_tflops, hardware.int8_tensor_tops) == (2039, 312, 624)
    weights = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)  # Llama-3-8B
    assert round(weights / 1e9, 2) == 6.98
    needed = 2 * weights * 16_000 / 1e12
    assert f"= {needed:.0f} ·" in scheme
    assert (
        f"{100 * needed / 312:.0f} % of the peak in 16 bits, {100 * needed / 624:.0f} % of the peak in int8" in scheme
    )
    bytes_of = {"W4A16": weights * (4 + 16 / 128) / 8, "W8A8": weights}  # float16 scales of groups of 128
    rates = {"W4A16": 312e12, "W8A8": 624e12}
    read = {name: bytes_of[name] / 2039e9 for name in rates}
    for name in rates:
        times = [1000 * max(read[name], 2 * weights * tokens / rates[name]) for tokens in (1, 32, 64, 128, 256)]
        row = " | ".join(f"{one:.1f} ms" for one in times)
        assert f"| {name}, {bytes_of[name] / 1e9:.1f} GB | {row} |" in scheme
    limits = [read[name] * rates[name] / (2 * weights) for name in rates]
    assert f"from {limits[0]:.0f} tokens on, W8A8 from {limits[1]:.0f}" in scheme
    assert f"cross at about {read['W8A8'] * 312e12 / (2 * weights):.0f}." in scheme


@pytest.mark.parametrize("question_id", IDS)
def test_docstrings_fit_the_notebook(question_id: str) -> None:
    answer = master()[f"{question_id.replace('.', '-')}-answer"]
    assert max(map(len, answer.splitlines())) <= 92


def test_the_minutes_and_points_in_the_title_are_those_of_the_cells() -> None:
    cells = {cell.id: cell for cell in read(MASTER).cells}
    rows = [line.split("|")[1:-1] for line in cells["title"].source.splitlines() if line.startswith("| ")]
    *questions, total = [[one.strip() for one in row] for row in rows[1:]]
    graded = [cell for cell in cells.values() if "points" in cell.metadata.nbgrader]
    assert [int(row[3]) for row in questions] == [cell.metadata.nbgrader.points for cell in graded]
    assert [int(row[2]) for row in questions] == [
        int(line.split("|")[2]) for cell in cells.values() for line in cell.source.splitlines() if "**Minutes**" in line
    ]
    assert [int(one) for one in total[2:]] == [sum(int(row[n]) for row in questions) for n in (2, 3)]


# --- what natural mistakes are told ----------------------------------------------------------------------------------


def test_padding_in_the_maximum_is_what_is_wrong() -> None:
    """The mistake that the card warns of is told as that one."""

    def with_padding(batches: Any, masks: Any) -> float:
        return max(float(x.abs().max()) for x in batches) / 127

    assert examine(question("smoothquant.static_scale"), with_padding, 0).mutant == "mask_ignored"


@pytest.mark.parametrize("seed", range(3))
def test_padding_times_zero_is_told_as_nan_however_the_answer_ends(seed: int) -> None:
    asked = question("smoothquant.static_scale")

    def by_pythons_max(batches: Any, masks: Any) -> float:
        largest = 0.0
        for x, mask in zip(batches, masks, strict=True):
            largest = max(largest, (x * mask[..., None]).abs().max().item())
        return largest / 127 or 1.0

    def by_torchs_maximum(batches: Any, masks: Any) -> float:
        largest = torch.tensor(0.0)
        for x, mask in zip(batches, masks, strict=True):
            largest = torch.maximum(largest, (x * mask[..., None]).abs().max().float())
        scale = float(largest) / 127
        return scale if scale > 0 else 1.0

    for answer in (by_pythons_max, by_torchs_maximum):
        found = examine(asked, answer, seed)
        assert "Infinity times 0 is NaN" in (found.misconception or "") and not found.hedged


@pytest.mark.parametrize("limit", [1e-12, 1e-8, 1e-5])
@pytest.mark.parametrize("of_the_scale", [True, False])
def test_a_lower_limit_is_told_whatever_its_size(limit: float, of_the_scale: bool) -> None:
    def limited(batches: Any, masks: Any) -> float:
        largest = max((float(x[m].abs().max()) for x, m in zip(batches, masks, strict=True) if m.any()), default=0.0)
        return max(largest / 127, limit) if of_the_scale else max(largest, limit) / 127

    found = examine(question("smoothquant.static_scale"), limited, 0)
    assert found.broken == "is_one_where_nothing_was_measured"


def _search(scales_of: Any, choose: Any) -> Any:
    """best_alpha as learners write it, with their scales and their choice at the end."""

    def answer(x: Any, w: Any, alphas: Any) -> Any:
        losses = []
        for alpha in alphas:
            s = scales_of(x.abs().amax(0), w.abs().amax(0), alpha)
            losses.append((rounded(x / s) @ rounded(w * s).T - x @ w.T).square().mean())
        return choose(alphas, losses), torch.stack(losses)

    return answer


def _by_argmin(alphas: Any, losses: Any) -> Any:
    return alphas[int(torch.stack(losses).argmin())]


def _by_pairs(alphas: Any, losses: Any) -> Any:
    return min(zip([float(loss) for loss in losses], alphas, strict=True))[1]


def _by_comparison(alphas: Any, losses: Any) -> Any:
    best, lowest = None, float("inf")
    for alpha, loss in zip(alphas, losses, strict=True):
        if loss < lowest:
            best, lowest = alpha, loss
    return best


def _by_the_lowest(alphas: Any, losses: Any) -> Any:
    lowest = torch.stack(losses).min()
    return min(alpha for alpha, loss in zip(alphas, losses, strict=True) if loss == lowest)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("choose", [_by_argmin, _by_pairs, _by_comparison, _by_the_lowest])
def test_dead_channels_are_told_however_the_search_ends(choose: Any, seed: int) -> None:
    forgotten = _search(lambda x, w, alpha: x**alpha / w ** (1 - alpha), choose)
    found = examine(question("smoothquant.best_alpha"), forgotten, seed)
    assert (found.misconception or "").startswith("dead channels are not treated")
    if found.finding:
        assert "NaN" in found.finding.what


@pytest.mark.parametrize("small", [1e-5, 1e-8])
@pytest.mark.parametrize("seed", range(3))
def test_a_small_number_for_dead_channels_is_told_whatever_its_size(small: float, seed: int) -> None:
    raised = _search(lambda x, w, alpha: x.clamp(min=small) ** alpha / w.clamp(min=small) ** (1 - alpha), _by_pairs)
    assert examine(question("smoothquant.best_alpha"), raised, seed).mutant == "small_number_for_dead_channels"


@pytest.mark.parametrize(
    ("is_read", "told"),
    [
        (lambda name, layers: name.startswith(layers), "layers_by_their_beginning"),
        (lambda name, layers: name.endswith(tuple(f"{layer}.weight" for layer in layers)), "layers_by_their_end"),
        (lambda name, layers: any(layer in name for layer in layers), "layers_inside_of_names"),
    ],
)
def test_a_part_of_a_name_is_no_name(is_read: Any, told: str) -> None:
    def by_a_part(state: Any, norm: Any, layers: Any, scales: Any) -> Any:
        folded = {}
        for name, old in state.items():
            if name in (f"{norm}.weight", f"{norm}.bias"):
                folded[name] = old / scales
            else:
                folded[name] = old * scales if old.ndim == 2 and is_read(name, layers) else old
        return folded

    assert examine(question("smoothquant.fold"), by_a_part, 0).mutant == told
