"""choosing.mean_kl: how far the quantized model's probabilities are from those of the model in 16 bits."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from ... import properties as p
from ...question import Case, Finding, Question, mutant

_EPSILON = 2.0**-23  # of float32


def mean_kl(reference, quantized, mask):
    """Average the KL divergence of two models over the tokens that count, in nats.

    reference, quantized: logits of the model in 16 bits and of the quantized one,
        (tokens, vocabulary), float32 or bfloat16. -inf forbids a word.
    mask: bool (tokens,), False for padding, whose logits may be anything, even NaN. One
        token or more counts.

    KL of one token: the sum over words of p (ln p - ln q), with p from the reference. A
    word with p = 0 adds 0, whatever q is. A word with p > 0 and q = 0 makes it infinite.

    Returns the mean over the tokens that count, one number; infinite where one of them is.
    """
    ln_p = torch.log_softmax(reference[mask].double(), dim=-1)
    ln_q = torch.log_softmax(quantized[mask].double(), dim=-1)
    p = ln_p.exp()
    terms = torch.where(p > 0, p * (ln_p - ln_q), 0.0)
    return terms.sum(dim=-1).mean().item()


# Probabilities (1/2, 1/2) against (1/4, 3/4), then (3/4, 1/4) against (9/10, 1/10), and a token of padding.
CARD = (
    torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, 0.0]]),
    torch.tensor([[0.0, math.log(3)], [math.log(9), 0.0], [5.0, 0.0]]),
    torch.tensor([True, True, False]),
)


def cases(seed: int) -> list[Case]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(tokens: int, words: int, spread: float = 3.0, noise: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
        reference = spread * torch.randn(tokens, words, generator=generator)
        return reference, reference + noise * torch.randn(tokens, words, generator=generator)

    def mask(tokens: int, out: int) -> torch.Tensor:
        kept = torch.ones(tokens, dtype=torch.bool)
        kept[torch.randperm(tokens, generator=generator)[:out]] = False
        return kept

    everything = torch.ones(7, dtype=torch.bool)
    reference, quantized = drawn(9, 31)
    far = torch.where(torch.rand(6, 13, generator=generator) < 0.5, 900.0, -900.0)
    shifted, noisy = drawn(7, 17, 1.5, 1.0)
    shift = 1000.0 + torch.rand(7, 1, generator=generator)
    forbidden = torch.arange(17) % 5 == int(torch.randint(5, (), generator=generator))
    (before, after), padding = drawn(8, 17), mask(8, 3)
    first, *others = torch.nonzero(~padding).flatten().tolist()
    before[first] = after[first] = math.nan
    after[others, 0] = -math.inf
    half = tuple(one.bfloat16() for one in drawn(7, 23, 4.0))
    lone = torch.zeros(7, dtype=torch.bool)
    lone[int(torch.randint(7, (), generator=generator))] = True
    alike = shifted.clone()
    alike[2] = noisy[2]
    impossible = noisy.clone()
    impossible[3, int(shifted[3].argmax())] = -math.inf
    return [
        Case("the example of the card", CARD),
        Case("three of nine tokens are padding", (reference, quantized, mask(9, 3))),
        Case("no padding", (*drawn(7, 17), everything)),
        Case("the same logits, but for one token", (shifted, alike, everything)),
        Case("the logits of one model moved by a constant", (shifted, noisy - 2.5, everything)),
        Case("logits around 1,000", (shifted + shift, noisy + shift, everything)),
        Case("logits of 900 and -900", (far, -far, mask(6, 2))),
        Case(
            "words that both models forbid",
            (shifted.masked_fill(forbidden, -math.inf), noisy.masked_fill(forbidden, -math.inf), everything),
        ),
        Case("words that the reference alone forbids", (shifted.masked_fill(forbidden, -math.inf), noisy, everything)),
        Case("a word that the quantized model alone forbids", (shifted, impossible, everything)),
        Case("NaN in the padding, and an infinite KL", (before, after, padding)),
        Case("one token counts", (*drawn(7, 11), lone)),
        Case("bfloat16", (*half, everything)),
        Case("a vocabulary of 1,000, and a small change", (*drawn(12, 1000, 2.0, 0.4), mask(12, 2))),
    ]


def infinite_where_a_word_is_ruled_out(case: Case, got: Any, expected: Any) -> Finding | None:
    value = p.as_number(got)
    if expected != math.inf or value == math.inf:
        return None
    return Finding(
        "the reference gives a word some probability, the quantized model none: the mean KL is infinite",
        expected="inf",
        got=str(value if value is not None else "no number"),
    )


def mean_is_that_of_the_tokens(case: Case, got: Any, expected: Any) -> Finding | None:
    if expected == math.inf:
        return None
    if finding := p.number(got, "the mean KL"):
        return finding
    value, bound = p.as_number(got), rounding(case)
    if abs(value - expected) <= bound:
        return None
    return Finding(
        "the mean KL is off",
        expected=f"{expected:.7g} nats",
        got=f"{value:.7g} nats",
        error=abs(value - expected),
        bound=bound,
        unit="nats",
    )


def rounding(case: Case) -> float:
    """How far float32 may move the mean: rounding logits, which are in ln p and in p, and the terms that are added."""
    mask = case.args[2]
    reference, quantized = (one[mask].double() for one in case.args[:2])
    ln_p, ln_q = _logs(reference, quantized)

    def mean(values: torch.Tensor) -> float:
        return float(torch.where(ln_p.exp() > 0, ln_p.exp() * values, 0.0).sum(dim=-1).mean())

    largest = max(float(one.abs().where(one.isfinite(), 0.0).max()) for one in (reference, quantized))
    size, difference = mean(ln_p.abs() + ln_q.abs()), mean((ln_p - ln_q).abs())
    return 4 * _EPSILON * (1 + size + largest * (1 + difference))


def _logs(reference: Any, quantized: Any) -> tuple[Any, Any]:
    return torch.log_softmax(reference.double(), dim=-1), torch.log_softmax(quantized.double(), dim=-1)


def _tokens(reference: Any, quantized: Any) -> Any:
    """KL of every token, right where p is 0."""
    ln_p, ln_q = _logs(reference, quantized)
    return torch.where(ln_p.exp() > 0, ln_p.exp() * (ln_p - ln_q), 0.0).sum(dim=-1)


@mutant("the direction is the other one, KL(quantized || reference). p, which weighs the words, is the reference's.")
def other_direction(reference, quantized, mask):
    return mean_kl(quantized, reference, mask)


@mutant("the two directions are averaged. KL is not symmetric; asked for is the one with p from the reference.")
def both_directions(reference, quantized, mask):
    return (mean_kl(reference, quantized, mask) + mean_kl(quantized, reference, mask)) / 2


@mutant("the distance to the mean of the two is taken (Jensen and Shannon's). Compare with the quantized model itself.")
def to_the_middle(reference, quantized, mask):
    ln_p, ln_q = _logs(reference[mask], quantized[mask])
    middle = torch.logaddexp(ln_p, ln_q) - math.log(2)
    terms = [torch.where(one.exp() > 0, one.exp() * (one - middle), 0.0) for one in (ln_p, ln_q)]
    return (sum(terms) / 2).sum(dim=-1).mean().item()


@mutant("this is in bits. Take the natural logarithm: nats.")
def in_bits(reference, quantized, mask):
    return mean_kl(reference, quantized, mask) / math.log(2)


@mutant("the tokens are added up. Divide by the number of tokens that count.")
def sum_over_tokens(reference, quantized, mask):
    return _tokens(reference[mask], quantized[mask]).sum().item()


@mutant(
    'the mean runs over the words as well (reduction="mean"). Words are added, tokens are averaged: '
    'reduction="batchmean".'
)
def mean_over_words(reference, quantized, mask):
    return mean_kl(reference, quantized, mask) / reference.shape[1]


@mutant("padding counts here. Take the tokens whose mask is True.")
def mask_forgotten(reference, quantized, mask):
    return _tokens(reference, quantized).mean().item()


@mutant("padding is left out of the sum, but the sum is divided by all tokens. Divide by those that count.")
def divided_by_all_tokens(reference, quantized, mask):
    return _tokens(reference[mask], quantized[mask]).sum().item() / len(mask)


@mutant("the mask is turned around: True marks the tokens that count.")
def mask_inverted(reference, quantized, mask):
    return _tokens(reference[~mask], quantized[~mask]).mean().item()


@mutant(
    "padding counts here, and a word with p = 0 makes NaN of 0 times infinity. Take the tokens whose mask is True, and "
    "give these words 0, with torch.where."
)
def nothing_left_out(reference, quantized, mask):
    ln_p, ln_q = _logs(reference, quantized)
    return (ln_p.exp() * (ln_p - ln_q)).sum(dim=-1).mean().item()


@mutant(
    "padding is multiplied by 0, and NaN or infinity times 0 is NaN. Select the tokens that count: reference[mask], "
    "quantized[mask]."
)
def mask_as_a_factor(reference, quantized, mask):
    ln_p, ln_q = _logs(reference, quantized)
    terms = torch.where(ln_p.exp() == 0, 0.0, ln_p.exp() * (ln_p - ln_q))
    return ((terms.sum(dim=-1) * mask).sum() / mask.sum()).item()


@mutant(
    "F.kl_div makes NaN of a word that both models forbid, and padding is multiplied by 0, which makes NaN of NaN and "
    "of infinity. Select the tokens with the mask, and give words with p = 0 a term of 0."
)
def kl_div_and_mask_as_a_factor(reference, quantized, mask):
    ln_p, ln_q = _logs(reference, quantized)
    kl = F.kl_div(ln_q, ln_p.exp(), reduction="none").sum(dim=-1)
    return ((kl * mask).sum() / mask.sum()).item()


@mutant("softmax runs over the tokens, dim=0. The words of one token share a probability of 1: dim=-1.")
def softmax_over_tokens(reference, quantized, mask):
    ln_p, ln_q = (torch.log_softmax(one[mask].double(), dim=0) for one in (reference, quantized))
    return torch.where(ln_p.exp() > 0, ln_p.exp() * (ln_p - ln_q), 0.0).sum(dim=-1).mean().item()


@mutant(
    "log(softmax(x)) is -inf where a probability is too small for a float; log_softmax is not. With p = 0 as well, the "
    "term is NaN."
)
def log_of_softmax(reference, quantized, mask):
    a, b = (torch.softmax(one[mask].float(), dim=-1) for one in (reference, quantized))
    return (a * (a.log() - b.log())).sum(dim=-1).mean().item()


@mutant(
    "log(softmax(x)) is -inf where a probability is too small for a float. log_softmax subtracts the largest logit and "
    "never leaves the logarithm."
)
def log_of_softmax_where_positive(reference, quantized, mask):
    a, b = (torch.softmax(one[mask].float(), dim=-1) for one in (reference, quantized))
    return torch.where(a > 0, a * (a.log() - b.log()), 0.0).sum(dim=-1).mean().item()


@mutant(
    "a small number is added to the probabilities before the logarithm. It makes a finite number of what is infinite, "
    "and a small one of what is large."
)
def small_number_added(reference, quantized, mask):
    a, b = (torch.softmax(one[mask].float(), dim=-1) for one in (reference, quantized))
    return (a * ((a + 1e-10).log() - (b + 1e-10).log())).sum(dim=-1).mean().item()


@mutant(
    "the probabilities are clamped to a small number before the logarithm. That makes a finite number of what is "
    "infinite, and a small one of what is large."
)
def clamped(reference, quantized, mask):
    a, b = (torch.softmax(one[mask].float(), dim=-1).clamp(min=1e-12) for one in (reference, quantized))
    return (a * (a.log() - b.log())).sum(dim=-1).mean().item()


@mutant("exp(x) overflows where logits are large. Subtract the largest first, or take log_softmax.")
def exp_overflows(reference, quantized, mask):
    powers = [one[mask].float().exp() for one in (reference, quantized)]
    a, b = (one / one.sum(dim=-1, keepdim=True) for one in powers)
    return torch.where(a > 0, a * (a / b).log(), 0.0).sum(dim=-1).mean().item()


@mutant("0 times infinity is NaN: a word with p = 0 has ln p = -inf. Give these words 0, with torch.where.")
def forbidden_words_are_nan(reference, quantized, mask):
    ln_p, ln_q = _logs(reference[mask], quantized[mask])
    return (ln_p.exp() * (ln_p - ln_q)).sum(dim=-1).mean().item()


@mutant(
    "F.kl_div makes NaN of a word that both models forbid: it subtracts 0 times -inf. Give words with p = 0 a term of "
    "0, with torch.where, or a finite ln q before the call."
)
def kl_div_of_forbidden_words(reference, quantized, mask):
    ln_p, ln_q = _logs(reference[mask], quantized[mask])
    return F.kl_div(ln_q, ln_p.exp(), reduction="batchmean").item()


@mutant(
    "nan_to_num makes 0 of NaN, which is wanted, and a finite number of infinity, which is not. Choose the words with "
    "p > 0 in place of it."
)
def infinity_made_finite(reference, quantized, mask):
    ln_p, ln_q = (torch.log_softmax(one[mask].float(), dim=-1) for one in (reference, quantized))
    return (ln_p.exp() * (ln_p - ln_q)).nan_to_num().sum(dim=-1).mean().item()


@mutant(
    "everything that is not finite becomes 0. The words that p rules out add 0; one that q alone rules out is the "
    "worst that can happen."
)
def infinity_dropped(reference, quantized, mask):
    ln_p, ln_q = _logs(reference[mask], quantized[mask])
    terms = ln_p.exp() * (ln_p - ln_q)
    return terms.where(terms.isfinite(), 0.0).sum(dim=-1).mean().item()


@mutant(
    "words that either model forbids are left out. Those that the reference forbids add 0; one that the quantized "
    "model alone forbids makes KL infinite."
)
def forbidden_words_left_out(reference, quantized, mask):
    a, b = reference[mask].double(), quantized[mask].double()
    out = a.isinf() | b.isinf()
    return _tokens(a.masked_fill(out, -math.inf), b.masked_fill(out, -math.inf)).mean().item()


@mutant("this is the cross entropy, -sum p ln q. Subtract the reference's own entropy: two equal models have KL 0.")
def cross_entropy(reference, quantized, mask):
    ln_p, ln_q = _logs(reference[mask], quantized[mask])
    return -torch.where(ln_p.exp() > 0, ln_p.exp() * ln_q, 0.0).sum(dim=-1).mean().item()


@mutant(
    "logits are subtracted in place of logarithms of probabilities. A constant added to all logits changes nothing in "
    "the model, and must change nothing here."
)
def difference_of_logits(reference, quantized, mask):
    a, b = reference[mask].double(), quantized[mask].double()
    return torch.where(a.softmax(dim=-1) > 0, a.softmax(dim=-1) * (a - b), 0.0).sum(dim=-1).mean().item()


@mutant("the magnitudes of the terms are added. Single words may have negative ones: only their sum is never below 0.")
def magnitudes_added(reference, quantized, mask):
    ln_p, ln_q = _logs(reference[mask], quantized[mask])
    return torch.where(ln_p.exp() > 0, ln_p.exp() * (ln_p - ln_q).abs(), 0.0).sum(dim=-1).mean().item()


@mutant("only the reference's most likely word is compared. The sum runs over all words.")
def only_the_top_word(reference, quantized, mask):
    ln_p, ln_q = _logs(reference[mask], quantized[mask])
    top = ln_p.argmax(dim=-1, keepdim=True)
    p_top, q_top = ln_p.gather(1, top), ln_q.gather(1, top)
    return (p_top.exp() * (p_top - q_top)).mean().item()


@mutant("all words weigh the same. Each is weighed with its p: what the reference never says does not matter.")
def words_not_weighed(reference, quantized, mask):
    ln_p, ln_q = _logs(reference[mask], quantized[mask])
    return (ln_p - ln_q).mean().item()


@mutant("the median of the tokens is taken. Asked for is their mean.")
def median(reference, quantized, mask):
    return _tokens(reference[mask], quantized[mask]).median().item()


@mutant("the largest KL of a token is taken. Asked for is the mean.")
def largest(reference, quantized, mask):
    return _tokens(reference[mask], quantized[mask]).max().item()


@mutant("one KL for each token comes back. Return their mean.")
def one_for_each_token(reference, quantized, mask):
    return _tokens(reference[mask], quantized[mask])


@mutant("the mean is rounded to four digits, as the card prints it. Return it with all its digits.")
def four_digits(reference, quantized, mask):
    return round(mean_kl(reference, quantized, mask), 4)


@mutant("the sign is wrong: KL is never below 0.")
def negative(reference, quantized, mask):
    return -mean_kl(reference, quantized, mask)


@mutant("log_softmax runs in bfloat16, which has 8 bits of precision. Make float32 of the logits first: .float().")
def in_the_logits_own_type(reference, quantized, mask):
    ln_p, ln_q = (torch.log_softmax(one[mask], dim=-1) for one in (reference, quantized))
    if reference.dtype == torch.float32:
        return mean_kl(reference, quantized, mask)
    return (ln_p.exp() * (ln_p - ln_q)).sum(dim=-1).mean().item()


@mutant("padding is overwritten in the logits that were given. They belong to the caller: select with the mask.")
def padding_overwritten(reference, quantized, mask):
    right = mean_kl(reference, quantized, mask)
    reference[~mask] = 0.0
    quantized[~mask] = 0.0
    return right


def with_kl_div(reference, quantized, mask):
    """Right, in float32, with torch's own function, from log-probabilities and probabilities."""
    ln_p = F.log_softmax(reference[mask].float(), dim=-1)
    ln_q = F.log_softmax(quantized[mask].float(), dim=-1)
    ln_q = ln_q.masked_fill(ln_p.exp() == 0, 0.0)
    return F.kl_div(ln_q, ln_p.exp(), reduction="batchmean")


def token_by_token(reference, quantized, mask):
    """Right, with a loop, the largest logit taken off by hand, and float32."""
    total, count = 0.0, 0
    for a, b, counts in zip(reference.float(), quantized.float(), mask.tolist(), strict=True):
        if not counts:
            continue
        a, b = a - a.max(), b - b.max()
        ln_p, ln_q = a - a.exp().sum().log(), b - b.exp().sum().log()
        kept = ln_p.exp() > 0
        total += (ln_p[kept].exp() * (ln_p[kept] - ln_q[kept])).sum()
        count += 1
    return total / count


def by_logsumexp(reference, quantized, mask):
    """Right, as the mean difference of logits under p, less the difference of their log-sums; float32."""
    a, b = reference[mask].float(), quantized[mask].float()
    ln_p, ln_q = a - a.logsumexp(-1, keepdim=True), b - b.logsumexp(-1, keepdim=True)
    return torch.where(ln_p.exp() == 0, torch.zeros_like(a), ln_p.exp() * (ln_p - ln_q)).sum() / mask.sum()


QUESTION = Question(
    id="choosing.mean_kl",
    title="The distance between two models",
    reference=mean_kl,
    cases=cases,
    properties=(infinite_where_a_word_is_ruled_out, mean_is_that_of_the_tokens),
    mutants=(
        other_direction,
        both_directions,
        to_the_middle,
        in_bits,
        sum_over_tokens,
        mean_over_words,
        mask_forgotten,
        divided_by_all_tokens,
        mask_inverted,
        nothing_left_out,
        mask_as_a_factor,
        kl_div_and_mask_as_a_factor,
        softmax_over_tokens,
        log_of_softmax,
        log_of_softmax_where_positive,
        small_number_added,
        clamped,
        exp_overflows,
        forbidden_words_are_nan,
        kl_div_of_forbidden_words,
        infinity_made_finite,
        infinity_dropped,
        forbidden_words_left_out,
        cross_entropy,
        difference_of_logits,
        magnitudes_added,
        only_the_top_word,
        words_not_weighed,
        median,
        largest,
        one_for_each_token,
        negative,
        four_digits,
        in_the_logits_own_type,
        padding_overwritten,
    ),
    alternatives=(with_kl_div, token_by_token, by_logsumexp),
    hints=(
        "Softmax turns logits into probabilities and may lose the small ones on the way. Is there a function that goes "
        "from logits to logarithms of probabilities in one step? And which tokens do you need at all?",
        "Select the tokens with the mask first; then log_softmax over the words, dim=-1, of both models. A term is "
        "p (ln p - ln q). Where p is 0, ln p is -inf and 0 · inf is NaN: choose 0 there.",
        "ln_p = torch.log_softmax(reference[mask].float(), dim=-1), ln_q likewise; p = ln_p.exp(); "
        "torch.where(p > 0, p * (ln_p - ln_q), 0.0).sum(dim=-1).mean().",
    ),
    explanation=(
        "No labels are needed, every token counts, and a difference shows long before an answer changes. On six "
        "workloads of 500 examples nano's INT4 by rounding and by GPTQ differ by no more than a point; their mean KL "
        "is 0.074 and 0.034, with standard errors of 0.002 and 0.001. What KL does not say is whether the change "
        "hurts. The direction matters where a model gives up words: p ln (p / q) is infinite where q is 0, and q ln "
        "(q / p) there is only 0."
    ),
)
