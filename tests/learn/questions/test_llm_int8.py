"""The questions on LLM.int8(): their data, against the library and bitsandbytes, and what their texts claim."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import qlab
from qlab.formats import activations, affine
from qlab.formats.activations import Activations
from qlab.learn.execute import read
from qlab.learn.judge import examine, judge
from qlab.learn.observe import observe, plain
from qlab.learn.question import Case, Question
from qlab.learn.questions import question
from qlab.learn.questions.llm_int8 import linear as mixed
from qlab.learn.questions.llm_int8 import shared
from qlab.methods import fold, llm_int8, w8a8
from qlab.models import corpus, outliers

ROOT = Path(__file__).parents[3]
TOKENS, PRODUCT, COLUMNS, LINEAR, CHANNELS, IMPLANT = (
    question(f"llm_int8.{name}")
    for name in ("quantize_tokens", "int8_product", "outlier_columns", "linear", "outlier_channels", "implant")
)
SEEDS = range(10)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)  # bitsandbytes warns about every input that is not float16


def judged(one: Question, case: Case, answer: Any) -> Any:
    return judge(one, [case], observe(lambda *args: answer, [case]))


def weight_of(w_codes: torch.Tensor, w_scales: torch.Tensor) -> affine.AffineWeight:
    """int8 codes as the weight type of the library."""
    return affine.from_codes(w_codes.view(torch.uint8) ^ 128, w_scales, None, 8, "channel", torch.float32)


# --- the examples on the cards ----------------------------------------------------------------------------------------


def test_the_running_example() -> None:
    x = shared.CARD_X
    codes, scales = TOKENS.reference(x)
    assert torch.equal(codes, shared.CARD_X_CODES)
    assert torch.allclose(scales, shared.CARD_X_SCALES)
    w = shared.CARD_W_CODES * shared.CARD_W_SCALES
    sums, y = PRODUCT.reference(codes, scales, shared.CARD_W_CODES, shared.CARD_W_SCALES)
    assert sums.tolist() == [[-2378, 18149], [1811, 418]]
    assert torch.allclose(y, torch.tensor([[-0.2378, 3.6298], [1.811, 0.836]]))
    exact = x @ w.T
    assert torch.allclose(exact, torch.tensor([[-0.2378, 3.6298], [1.7982, 0.876]]))
    assert COLUMNS.reference(x, 6.0).tolist() == [False, False, False, True]
    mixed_y = LINEAR.reference(x, shared.CARD_W_CODES, shared.CARD_W_SCALES, 6.0)
    assert torch.allclose(mixed_y[1], torch.tensor([1.7977, 0.8782]), atol=5e-5)
    rest, steps = TOKENS.reference(x[:, :3])
    assert rest.tolist() == [[50, -127, 20], [127, 42, -110]] and steps[1].item() == pytest.approx(0.002362, rel=1e-3)
    assert (rest.int() @ shared.CARD_W_CODES[:, :3].int().T)[1].tolist() == [22337, -8294]
    errors = [abs(each[1, 1].item() / exact[1, 1].item() - 1) for each in (y, mixed_y)]
    assert errors == pytest.approx([0.046, 0.002], abs=6e-4)  # the 4.6 % and 0.2 % of the card
    assert abs(-0.3 / -0.26 - 1) == pytest.approx(0.15, abs=0.005)


def test_the_examples_of_the_other_cards() -> None:
    hidden, threshold, layers, tokens = CHANNELS.cases(0)[0].args
    reached = hidden.abs() >= threshold
    assert reached.sum(dim=1).tolist() == [[2, 2, 1, 0], [3, 1, 3, 1]]
    assert CHANNELS.reference(hidden, threshold, layers, tokens).tolist() == [True, False, False, False]
    assert (reached.flatten(0, 1).float().mean(dim=0) >= tokens).tolist() == [True, True, True, False]

    gain, bias, weights, channels, factor = IMPLANT.cases(0)[0].args
    new_gain, new_bias, [new_weight] = IMPLANT.reference(gain, bias, weights, channels, factor)
    assert new_gain.tolist() == [0.5, 16] and new_bias.tolist() == [1, -8]
    assert new_weight.tolist() == [[1, 0.5], [3, -1]]
    n = torch.tensor([2.0, 1.5])
    assert (gain * n + bias).tolist() == [2, 2] and (new_gain * n + new_bias).tolist() == [2, 16]
    assert (weights[0] @ (gain * n + bias)).tolist() == (new_weight @ (new_gain * n + new_bias)).tolist() == [10, -10]


@pytest.mark.parametrize("seed", [0, 2])
def test_check_runs_the_numbers_of_the_cards_first(seed: int) -> None:
    x, w = shared.CARD_X, (shared.CARD_W_CODES, shared.CARD_W_SCALES)
    on_the_cards: dict[Question, tuple[Any, ...]] = {
        TOKENS: (x,),
        PRODUCT: (shared.CARD_X_CODES, shared.CARD_X_SCALES, *w),
        COLUMNS: (x, 6.0),
        LINEAR: (x, *w, 6.0),
    }
    for one, args in on_the_cards.items():
        torch.testing.assert_close(one.cases(seed)[0].args, args, rtol=0, atol=0)


# --- the data of the cases --------------------------------------------------------------------------------------------


def test_no_code_of_a_layer_is_near_a_tie() -> None:
    """So every right route takes the same codes, on every processor, and a bound can tell them from wrong ones."""
    for case in (case for seed in SEEDS for case in LINEAR.cases(seed)):
        x, _, _, threshold = case.args
        for kept, steps in mixed._roundings(x, threshold):
            assert not shared.is_near_a_tie(x * kept, steps), case.name


def test_a_long_sum_needs_more_than_24_bits_and_no_sum_more_than_31() -> None:
    for seed in SEEDS:
        sums = {case.name: case.args[0].long() @ case.args[2].long().T for case in PRODUCT.cases(seed)}
        assert sums["long sums, beyond the 24 bits of a float32"].min() > 2**24
        assert sums["sums beyond 16 bits"].min() > 2**15
        assert sums["codes so small that nothing overflows"].abs().max() < 128
        assert max(int(each.abs().max()) for each in sums.values()) < 2**31


def test_no_share_is_decided_by_rounding() -> None:
    """Shares are met by a wide margin, or exactly and in powers of 2; so float32 and float64 agree."""
    for case in (case for seed in SEEDS for case in CHANNELS.cases(seed)):
        hidden, threshold, share_of_layers, share_of_tokens = case.args
        of_tokens = (hidden.abs() >= threshold).double().mean(dim=1)
        of_layers = (of_tokens >= share_of_tokens).double().mean(dim=0)
        for shares, wanted in ((of_tokens, share_of_tokens), (of_layers, share_of_layers)):
            away = (shares - wanted).abs()
            assert bool(((away == 0) | (away > 1e-3)).all()), case.name
            assert not bool((away == 0).any()) or wanted in (0.25, 0.5, 1.0), case.name


def test_there_are_channels_of_both_kinds() -> None:
    for seed in SEEDS:
        found = [int(CHANNELS.reference(*case.args).sum()) for case in CHANNELS.cases(seed)]
        some = [0 < n < case.args[0].shape[2] for n, case in zip(found, CHANNELS.cases(seed), strict=True)]
        assert sum(some) >= 11


# --- right answers that look odd --------------------------------------------------------------------------------------


def test_either_scale_is_right_for_every_token_and_no_third_one() -> None:
    """Token 0 has 5, below the threshold, in an outlier column: it counts for bitsandbytes and not for the paper."""
    x = torch.tensor([[5.0, 1.0, -0.7], [9.0, 0.4, 2.2]])
    w_codes = torch.tensor([[3, 70, -90], [1, -20, 55]], dtype=torch.int8)
    case = Case("two scales", (x, w_codes, torch.tensor([[0.01], [0.02]]), 6.0))
    paper = LINEAR.reference(*case.args)
    [theirs] = [answer(*case.args) for answer in LINEAR.alternatives if answer.__name__ == "as_bitsandbytes_does"]
    assert not torch.allclose(paper[0], theirs[0], rtol=1e-4) and torch.allclose(paper[1], theirs[1], rtol=1e-6)
    for answer in (paper, theirs, torch.stack([theirs[0], paper[1]])):
        assert judged(LINEAR, case, answer).passed
    assert judged(LINEAR, case, (paper + theirs) / 2).outcome == "failed"


def test_any_positive_scale_is_right_for_a_token_of_zeros() -> None:
    case = Case("zeros", (torch.zeros(2, 3),))
    codes = torch.zeros(2, 3, dtype=torch.int8)
    for scale, right in ((1.0, True), (1e-30, True), (0.0, False), (float("inf"), False), (float("nan"), False)):
        assert judged(TOKENS, case, (codes, torch.full((2, 1), scale))).passed is right, scale


def test_views_and_arrays_are_right() -> None:
    views = examine(TOKENS, lambda x: tuple(part.expand_as(part) for part in TOKENS.reference(x)), 0)
    arrays = examine(COLUMNS, lambda x, threshold: COLUMNS.reference(x, threshold).numpy(), 0)
    turned = examine(LINEAR, lambda *args: LINEAR.reference(*args).T.contiguous().T, 0)
    assert views.passed and arrays.passed and turned.passed


def test_a_forgotten_mask_is_called_what_it_is() -> None:
    """The mistake of the test with nbgrader: rest = x."""

    def forgotten(x, w_codes, w_scales, threshold):
        outliers = (x.abs() >= threshold).any(dim=0)
        codes, scales = TOKENS.reference(x)
        y = PRODUCT.reference(codes, scales, w_codes, w_scales)[1]
        return y + x[:, outliers] @ (w_codes[:, outliers] * w_scales).T

    assert examine(LINEAR, forgotten, 0).mutant == "counted_twice"


def _by(product: Any) -> Any:
    """A layer whose int8 part comes from `product(codes, x_scales, w_codes, w_scales)`."""

    def layer(x, w_codes, w_scales, threshold):
        outliers = (x.abs() >= threshold).any(dim=0)
        rest = x.masked_fill(outliers, 0.0)
        x_scales = shared.token_scales(rest)
        part = product(torch.round(rest / x_scales), x_scales, w_codes, w_scales)
        return (part + (x * outliers) @ (w_codes * w_scales).T).float()

    return layer


@pytest.mark.parametrize("seed", SEEDS)
def test_fake_quantization_fails_by_its_values(seed: int) -> None:
    fakes = {
        "fake_quantization": lambda q, s, p, r: (q * s) @ (p * r).T,
        "weight_scales_inside": lambda q, s, p, r: q @ (p * r).T * s,
        "token_scales_inside": lambda q, s, p, r: (q * s) @ p.float().T * r.T,
    }
    for name, product in fakes.items():
        verdict = examine(LINEAR, _by(product), seed)
        assert (verdict.outcome, verdict.mutant) == ("failed", name)


@pytest.mark.parametrize("seed", SEEDS)
def test_exact_products_of_codes_pass_in_every_type(seed: int) -> None:
    """Sums of up to 1,000 products are whole numbers in float32, too; in float64 even values are exact enough."""
    exact = (
        lambda q, s, p, r: (q.int() @ p.int().T) * s * r.T,
        lambda q, s, p, r: (q @ p.float().T) * s * r.T,
        lambda q, s, p, r: (q.double() @ p.double().T) * s * r.T,
        lambda q, s, p, r: (q.double() * s.double()) @ (p.double() * r.double()).T,
    )
    for product in exact:
        verdict = examine(LINEAR, _by(product), seed)
        assert verdict.passed, verdict


def test_products_of_codes_nearly_cancel() -> None:
    for seed in SEEDS:
        [case] = [case for case in LINEAR.cases(seed) if case.name == mixed.PRODUCTS_CANCEL]
        x, w_codes, _, threshold = case.args
        codes = TOKENS.reference(x)[0].long()
        assert not COLUMNS.reference(x, threshold).any()
        sums, sizes = codes @ w_codes.long().T, codes.abs() @ w_codes.long().abs().T
        assert sums.min() >= 1 and sums.max() <= 12 and sizes.min() > 1000 * sums.max()


MISTAKES = {
    "amax() / 128, clamped to 127": (TOKENS, "divided_by_128_within_127"),
    "maximum and division in float16": (TOKENS, "scales_rounded_to_half"),
    "all columns in floating point as well": (LINEAR, "floats_over_all_columns"),
    "the two means change places": (CHANNELS, "axes_change_places"),
    "round() for the counts": (CHANNELS, "counts_rounded_to_the_nearest"),
    "compared in float16": (COLUMNS, "compared_in_half"),
    "None.clone()": (IMPLANT, "none_cloned"),
    "gain += factor": (IMPLANT, "factor_added"),
    "gain += factor, bias += factor": (IMPLANT, "factor_added_to_both"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_that_a_learner_made_have_names(mistake: str) -> None:
    """As learners write them, which is not as the catalogue does."""

    def tokens_128(x):
        x = x.float()
        s = x.abs().amax(1, keepdim=True) / 128
        s[s == 0] = 1
        return torch.clamp((x / s).round(), -127, 127).char(), s

    def tokens_half(x):
        s = (x.abs().amax(1, keepdim=True) / 127).float()
        return torch.clamp((x.float() / s.masked_fill(s == 0, 1)).round(), -127, 127).char(), s.masked_fill(s == 0, 1)

    def both_parts(x, w_codes, w_scales, threshold):
        integers = _by(lambda q, s, p, r: (q.int() @ p.int().T) * s * r.T)
        rest = x.masked_fill((x.abs() >= threshold).any(0), 0)
        return integers(rest, w_codes, w_scales, threshold) + x @ (w_codes.float() * w_scales).T

    def axes(hidden, threshold, share_of_layers, share_of_tokens):
        shares = (hidden.abs() >= threshold).float().mean(0)
        return (shares >= share_of_tokens).float().mean(0) >= share_of_layers

    def rounded(hidden, threshold, share_of_layers, share_of_tokens):
        counts = (hidden.abs() >= threshold).sum(1)
        layers = (counts >= round(share_of_tokens * hidden.shape[1])).sum(0)
        return layers / len(hidden) >= share_of_layers

    def in_half(x, threshold):
        return (x.abs().half() >= threshold).any(dim=0)

    def cloned(gain, bias, weights, channels, factor):
        gain, bias, c = gain.clone(), bias.clone(), list(channels)
        gain[c], bias[c] = gain[c] * factor, bias[c] * factor
        return gain, bias, tuple(w.index_fill(1, torch.tensor(c), 0) + _columns(w, c) / factor for w in weights)

    def _columns(w, c):
        return w - w.index_fill(1, torch.tensor(c), 0)

    def added(gain, bias, weights, channels, factor):
        new, new_bias, new_weights = IMPLANT.reference(gain, bias, weights, channels, factor)
        new = gain.clone()
        for c in channels:
            new[c] += factor
        return new, new_bias, new_weights

    def added_to_both(gain, bias, weights, channels, factor):
        new_bias = None if bias is None else bias.clone()
        if new_bias is not None:
            for c in channels:
                new_bias[c] += factor
        new, _, new_weights = added(gain, bias, weights, channels, factor)
        return new, new_bias, new_weights

    answers = (tokens_128, tokens_half, both_parts, axes, rounded, in_half, cloned, added, added_to_both)
    answer = dict(zip(MISTAKES, answers, strict=True))[mistake]
    one, name = MISTAKES[mistake]
    for seed in range(3):
        assert examine(one, answer, seed).mutant == name


# --- against the library and bitsandbytes -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_codes_and_scales_are_those_of_the_library(seed: int) -> None:
    for case in TOKENS.cases(seed):
        [x] = case.args
        codes, scales = TOKENS.reference(x)
        theirs, their_scales = activations.quantize(x, Activations())
        torch.testing.assert_close(scales, their_scales, rtol=1e-6, atol=0)
        if "halfway" not in case.name:
            assert torch.equal(codes, theirs), case.name


def test_codes_are_those_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    x = shared.normal(torch.Generator().manual_seed(4), 12, 96).half()
    x[5] *= 1e-3
    x[7, 3] = 40.0
    theirs, absmax, _ = functional.int8_vectorwise_quant(x.clone())
    for answer in (TOKENS.reference, *TOKENS.alternatives):
        codes, scales = plain(answer(x.float()))
        assert torch.equal(codes, theirs)
        torch.testing.assert_close(scales.flatten() * 127, absmax, rtol=1e-6, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_products_are_those_of_the_library_and_of_bitsandbytes(seed: int) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    for case in PRODUCT.cases(seed):
        x_codes, x_scales, w_codes, w_scales = case.args
        sums, y = PRODUCT.reference(*case.args)
        assert torch.equal(sums, w8a8.int8_matmul(x_codes, w_codes))
        torch.testing.assert_close(y, w8a8.scaled_product(x_codes, x_scales, weight_of(w_codes, w_scales)))
        if x_codes.shape[1] <= 1040:  # longer sums of its CPU code may be inexact
            assert torch.equal(sums, functional.int8_linear_matmul(x_codes, w_codes))


@pytest.mark.parametrize("seed", range(3))
def test_columns_are_those_of_the_library_and_of_bitsandbytes(seed: int) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    for case in COLUMNS.cases(seed):
        x, threshold = case.args
        mask = COLUMNS.reference(x, threshold)
        assert torch.equal(mask, llm_int8.outlier_columns(x, threshold))
        if len(x) and "on the threshold" not in case.name:  # float16 would move 5.9999 to 6
            _, _, numbers = functional.int8_vectorwise_quant(x.half(), threshold)
            assert mask.nonzero().flatten().tolist() == ([] if numbers is None else numbers.tolist()), case.name


@pytest.mark.parametrize("seed", range(3))
def test_a_layer_is_that_of_the_library(seed: int) -> None:
    [as_theirs] = [answer for answer in LINEAR.alternatives if answer.__name__ == "as_bitsandbytes_does"]
    for case in LINEAR.cases(seed):
        x, w_codes, w_scales, threshold = case.args
        ours = llm_int8.linear(x, weight_of(w_codes, w_scales), threshold=threshold)
        assert judged(LINEAR, case, ours).passed, case.name
        size = x.abs() @ (w_codes * w_scales).abs().T
        assert bool(((as_theirs(*case.args) - ours).abs() <= 1e-5 * size).all()), case.name


def test_a_layer_is_that_of_bitsandbytes() -> None:
    modules = pytest.importorskip("bitsandbytes.nn")
    random = torch.Generator().manual_seed(5)
    x = shared.normal(random, 12, 96).clamp(-5, 5).half().float()
    x[2, 3], x[5, 17] = 20.0, -31.0
    w = shared.normal(random, 20, 96).half()
    layer = modules.Linear8bitLt(96, 20, False, has_fp16_weights=False, threshold=6.0)
    layer.weight = modules.Int8Params(w.clone(), requires_grad=False)
    theirs = layer.to("cpu").eval()(x)
    codes, scales = TOKENS.reference(w)
    assert torch.equal(codes, layer.weight.data)
    [as_theirs] = [answer for answer in LINEAR.alternatives if answer.__name__ == "as_bitsandbytes_does"]
    # Its constant for 1 / 127² is 1.8e-5 too large, see qlab/methods/llm_int8.py.
    size = x.abs() @ (codes * scales).abs().T
    assert bool(((as_theirs(x, codes, scales, 6.0) - theirs).abs() <= 3e-5 * size).all())


@pytest.mark.parametrize("seed", range(3))
def test_an_implant_is_a_fold_of_the_library(seed: int) -> None:
    for case in IMPLANT.cases(seed):
        gain, bias, weights, channels, factor = case.args
        norm: Any = LlamaRMSNorm(len(gain)) if bias is None else nn.LayerNorm(len(gain))
        norm.weight.data = gain.clone()
        if bias is not None:
            norm.bias.data = bias.clone()
        layers = [nn.Linear(w.shape[1], w.shape[0], bias=False) for w in weights]
        for layer, w in zip(layers, weights, strict=True):
            layer.weight.data = w.clone()
        scales = torch.ones(len(gain))
        scales[list(channels)] = 1 / factor
        fold.into_norm(norm, layers, scales)
        new_gain, new_bias, new_weights = IMPLANT.reference(*case.args)
        torch.testing.assert_close(norm.weight.data, new_gain, rtol=1e-6, atol=0)
        assert new_bias is None if bias is None else torch.allclose(norm.bias.data, new_bias, rtol=1e-6)
        for layer, w in zip(layers, new_weights, strict=True):
            torch.testing.assert_close(layer.weight.data, w, rtol=1e-6, atol=0)


# --- the numbers on nano ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nano() -> dict[str, Any]:
    """The model of the open question, and how many columns leave int8: by layer, threshold and length of a call."""
    model, tokenizer = qlab.load("nano")
    outliers.implant(model, [7, 133], 64.0)
    ids = tokenizer(corpus.held_out_text("prose"), return_tensors="pt", verbose=False)["input_ids"][:, :2048]
    found = outliers.find(model, ids.reshape(8, 256))
    shares: dict[tuple[float, int], list[tuple[float, int]]] = {}
    hidden: dict[str, list[torch.Tensor]] = {}

    def look(name: str) -> Any:
        def hook(layer: nn.Linear, args: tuple[torch.Tensor, ...]) -> None:
            x = args[0]
            if x.shape[-1] == 256:
                hidden.setdefault(name, []).append(x.flatten(0, -2))
            for threshold in (20.0, 6.0, 3.0):
                reached = (x.abs() >= threshold).flatten(0, -2)
                for tokens in (256, 16, 1):
                    out = reached.view(-1, tokens, x.shape[-1]).any(dim=1).float().mean()
                    shares.setdefault((threshold, tokens), []).append((float(out), layer.weight.numel()))

        return model.get_submodule(name).register_forward_pre_hook(hook)

    handles = [look(name) for name in found.layers]
    with torch.no_grad():
        for window in ids.split(256, dim=1):
            model(window)
    for handle in handles:
        handle.remove()
    means = {key: sum(s * n for s, n in pairs) / sum(n for _, n in pairs) for key, pairs in shares.items()}
    return {"found": found, "shares": means, "hidden": torch.stack([torch.cat(parts) for parts in hidden.values()])}


def test_the_channels_of_a_model_are_those_of_the_library(nano: dict[str, Any]) -> None:
    mask = CHANNELS.reference(nano["hidden"], 6.0, 0.25, 0.06)
    assert tuple(mask.nonzero().flatten().tolist()) == nano["found"].channels == (7, 133)


def test_the_mark_scheme_says_what_comes_out(nano: dict[str, Any]) -> None:
    """The weights of nano decide these numbers: after another training the scheme has to be written anew."""
    cells = read(ROOT / "solutions" / "04_outliers_and_llm_int8.ipynb").cells
    [scheme] = [cell.source for cell in cells if cell.id == "llm_int8-defend"]
    for threshold in (20.0, 6.0, 3.0):
        [line] = [line for line in scheme.splitlines() if line.startswith(f"| {threshold:g} |")]
        stated = [float(cell) for cell in re.findall(r"([\d.]+) %", line)]
        expected = [100 * nano["shares"][threshold, tokens] for tokens in (256, 16, 1)]
        assert stated == pytest.approx(expected, rel=0.05), line
    layers = nano["found"].layers
    assert all(layers.values()) and len(layers) == 42
    for kind, stated_counts in {
        "o_proj": "4 of 256, once 5",
        "down_proj": "2 of 768, 27 in block 0, 75 in block 5",
    }.items():
        assert stated_counts in scheme
        counts = [len(channels) for name, channels in layers.items() if name.endswith(kind)]
        assert counts == ([4, 4, 4, 4, 5, 4] if kind == "o_proj" else [27, 2, 2, 2, 2, 75])


def test_memory_of_the_13b_model_is_that_of_the_scheme() -> None:
    cells = read(ROOT / "solutions" / "04_outliers_and_llm_int8.ipynb").cells
    [scheme] = [cell.source for cell in cells if cell.id == "llm_int8-defend"]
    sizes = [
        qlab.deploy.memory("Llama-2-13B", precision=precision, batch=1, context=4096)
        for precision in ("bf16", "int8-channel")
    ]
    for size in sizes:
        assert f"{size.weights / 1e9:.1f} GB" in scheme
    assert sizes[0].kv_cache == sizes[1].kv_cache and f"{sizes[0].kv_cache / 1e9:.1f} GB" in scheme
