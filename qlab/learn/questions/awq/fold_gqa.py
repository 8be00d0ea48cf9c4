"""awq.fold_gqa: fold the scales of o_proj into v_proj, whose heads serve several query heads each."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import near


def fold_into_values(v, v_bias, o, scales, kv_heads):
    """Fold scales of the inputs of o into the rows of v, with grouped-query attention.

    v: float32 (kv_heads * head_dim, in), the value projection.
    v_bias: float32 (kv_heads * head_dim,), or None.
    o: float32 (out, query_heads * head_dim), the output projection.
    scales: float32 (kv_heads * head_dim,), positive, one for each row of v.
    kv_heads: divides query_heads; query heads 0, 1, ... of a group read KV head 0,
        those of the next group KV head 1, and so on.

    Returns (v, v_bias, o), new ones, of the same types and shapes: each value is divided
    by its scale, and every column of o that reads it is multiplied by the same scale.
    """
    group = o.shape[1] // v.shape[0]  # query heads for each KV head
    by_head = scales.reshape(kv_heads, 1, -1)  # (kv_heads, 1, head_dim)
    columns = by_head.expand(-1, group, -1).reshape(-1)  # (query_heads * head_dim,)
    return v / scales[:, None], None if v_bias is None else v_bias / scales, o * columns


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    def attention(
        heads: int, kv_heads: int, head_dim: int, width: int, with_bias: bool, out: int = 0
    ) -> tuple[Any, ...]:
        rows = kv_heads * head_dim
        bias = normal(rows) if with_bias else None
        o = normal(out or width, heads * head_dim)
        return normal(rows, width), bias, o, torch.exp(normal(rows)), kv_heads

    return [
        Case("4 query heads, 2 KV heads", attention(4, 2, 3, 8, False)),
        Case("6 query heads, 2 KV heads, and a bias", attention(6, 2, 2, 5, True)),
        Case("6 query heads, 3 KV heads, and a bias", attention(6, 3, 4, 7, True)),
        Case("as many KV heads as values in a head", attention(9, 3, 3, 6, False)),
        Case("square: as many values as inputs", attention(8, 2, 4, 8, True)),
        Case("one KV head for all, multi-query attention", attention(5, 1, 4, 6, True)),
        Case("a KV head for every query head", attention(3, 3, 4, 6, True)),
        Case("square, with a KV head for every query head", attention(2, 2, 3, 6, False)),
        Case("heads of one value", attention(6, 3, 1, 4, False)),
        Case("an output of another width", attention(4, 2, 2, 3, True, out=5)),
    ]


def _columns(case: Case) -> torch.Tensor:
    """The scale of every column of o, in float64, by the index of its KV head."""
    v, _, o, scales, kv_heads = case.args
    head_dim = len(v) // kv_heads
    column = torch.arange(o.shape[1])
    group = o.shape[1] // len(v)
    kv_head = column // head_dim // group
    columns: torch.Tensor = scales.double()[kv_head * head_dim + column % head_dim]
    return columns


def returns_v_bias_o(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "v", "v_bias", "o")


def types_and_shapes_stay(case: Case, got: Any, expected: Any) -> Finding | None:
    v, bias, o, _, _ = case.args
    named = [("v", got[0], v), ("o", got[2], o)]
    if bias is None and got[1] is not None:
        return Finding("v_bias: this layer has none; return None")
    if bias is not None:
        named.insert(1, ("v_bias", got[1], bias))
    findings = (p.tensor(new, name, torch.float32, tuple(old.shape)) for name, new, old in named)
    return next(filter(None, findings), None)


def output_is_unchanged(case: Case, got: Any, expected: Any) -> Finding | None:
    """The output of attention over five tokens, with weights of its own for each query head."""
    v, bias, o, _, kv_heads = case.args
    random = torch.Generator().manual_seed(1)
    heads, head_dim = o.shape[1] * kv_heads // len(v), len(v) // kv_heads
    x = torch.randn(5, v.shape[1], generator=random, dtype=torch.float64)
    attend = torch.rand(heads, 5, 5, generator=random, dtype=torch.float64).softmax(dim=2)

    def output(v: Any, bias: Any, o: Any) -> torch.Tensor:
        values = x @ v.double().T + (0.0 if bias is None else bias.double())
        values = values.reshape(5, kv_heads, head_dim).transpose(0, 1)  # (kv_heads, tokens, head_dim)
        values = values.repeat_interleave(heads // kv_heads, dim=0)
        seen = (attend @ values).transpose(0, 1).reshape(5, -1)  # (tokens, query_heads * head_dim)
        y: torch.Tensor = seen @ o.double().T
        return y

    exact = output(v, bias, o)
    bound = 1e-4 * exact.abs().max()
    finding = p.values_near(output(*got), "the output of the attention", exact, bound, bound)
    return finding and Finding(finding.what, finding.index, finding.expected, finding.got)


def scales_are_folded(case: Case, got: Any, expected: Any) -> Finding | None:
    v, bias, o, scales, _ = case.args
    scales = scales.double()
    named = [("v", got[0], v.double() / scales[:, None]), ("o", got[2], o.double() * _columns(case))]
    if bias is not None:
        named.append(("v_bias", got[1], bias.double() / scales))
    return next(filter(None, (near(new, name, exact) for name, new, exact in named)), None)


def _spread(v: Any, o: Any, scales: Any, kv_heads: int) -> Any:
    """The reference's scales of the columns of o."""
    return scales.reshape(kv_heads, 1, -1).expand(-1, o.shape[1] // len(v), -1).reshape(-1)


def _bias(v_bias: Any, scales: Any) -> Any:
    return None if v_bias is None else v_bias / scales


def _same_bias(v_bias: Any) -> Any:
    return None if v_bias is None else v_bias.clone()


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def in_another_type(v, v_bias, o, scales, kv_heads):
    v, v_bias, o = fold_into_values(v, v_bias, o, scales, kv_heads)
    return v.double(), None if v_bias is None else v_bias.double(), o.double()


@mutant(
    "the scales are laid end to end, KV heads 0, 1, 0, 1. Query heads 0 and 1 both read KV head 0, so the order is "
    "0, 0, 1, 1: repeat each head's block before the next one comes."
)
def heads_in_turn(v, v_bias, o, scales, kv_heads):
    return v / scales[:, None], _bias(v_bias, scales), o * scales.repeat(o.shape[1] // len(v))


@mutant(
    "repeat_interleave repeats single scales, a, a, b, b, but a head has several values: a, b, a, b. Repeat blocks of "
    "head_dim scales."
)
def values_repeated(v, v_bias, o, scales, kv_heads):
    columns = scales.repeat_interleave(o.shape[1] // len(v))
    return v / scales[:, None], _bias(v_bias, scales), o * columns


@mutant(
    "every query head is taken to have a KV head of its own, so the scales meet o only where that is so; with groups "
    "the sizes do not fit. Repeat each KV head's scales for its query heads."
)
def groups_not_expected(v, v_bias, o, scales, kv_heads):
    return v / scales[:, None], _bias(v_bias, scales), o * scales


@mutant(
    "only the first query head of each group is scaled in o. The others read the same, divided values: scale all of "
    "them."
)
def first_of_the_group(v, v_bias, o, scales, kv_heads):
    group = o.shape[1] // len(v)
    only_first = torch.ones(kv_heads, group, len(v) // kv_heads)
    only_first[:, 0] = scales.reshape(kv_heads, -1)
    return v / scales[:, None], _bias(v_bias, scales), o * only_first.reshape(-1)


@mutant("v is divided once for each query head of the group. It is one projection, read several times: divide it once.")
def divided_for_each_query_head(v, v_bias, o, scales, kv_heads):
    times = scales ** (o.shape[1] // len(v))
    return v / times[:, None], _bias(v_bias, times), o * _spread(v, o, scales, kv_heads)


@mutant(
    "o is multiplied by the scale divided by the number of query heads in a group. Each of these heads reads the whole "
    "value and needs the whole scale."
)
def shared_among_the_group(v, v_bias, o, scales, kv_heads):
    group = o.shape[1] // len(v)
    return v / scales[:, None], _bias(v_bias, scales), o * _spread(v, o, scales, kv_heads) / group


@mutant(
    "the scales go the wrong way: v grows and o shrinks. The output is unchanged; but it is o's weights that the "
    "scales were chosen to enlarge."
)
def wrong_direction(v, v_bias, o, scales, kv_heads):
    return fold_into_values(v, v_bias, o, 1 / scales, kv_heads)


@mutant("the columns of v are divided, which are its inputs. What o reads are v's outputs, its rows: scales[:, None].")
def columns_of_v(v, v_bias, o, scales, kv_heads):
    return v / scales, _bias(v_bias, scales), o * _spread(v, o, scales, kv_heads)


@mutant("the rows of o are scaled, which are its outputs. The values arrive at its columns.")
def rows_of_o(v, v_bias, o, scales, kv_heads):
    return v / scales[:, None], _bias(v_bias, scales), o * _spread(v, o, scales, kv_heads)[:, None]


@mutant("the bias of v is forgotten. It is part of the values that o reads: divide it as well.")
def bias_forgotten(v, v_bias, o, scales, kv_heads):
    return v / scales[:, None], _same_bias(v_bias), o * _spread(v, o, scales, kv_heads)


@mutant("the bias of v is multiplied. It goes the way of v's rows: divide it.")
def bias_multiplied(v, v_bias, o, scales, kv_heads):
    bias = None if v_bias is None else v_bias * scales
    return v / scales[:, None], bias, o * _spread(v, o, scales, kv_heads)


@mutant("a v_proj without a bias raises an error, because None cannot be divided. Return None for it.")
def bias_expected(v, v_bias, o, scales, kv_heads):
    return v / scales[:, None], v_bias / scales, o * _spread(v, o, scales, kv_heads)


@mutant("v stays as it was, so the output grows. Divide its rows.")
def v_forgotten(v, v_bias, o, scales, kv_heads):
    return v.clone(), _same_bias(v_bias), o * _spread(v, o, scales, kv_heads)


@mutant("o stays as it was, so the output shrinks. Multiply its columns.")
def o_forgotten(v, v_bias, o, scales, kv_heads):
    return v / scales[:, None], _bias(v_bias, scales), o.clone()


@mutant("nothing is done where query heads share a KV head. Libraries skip such layers; here they are the exercise.")
def skipped_as_in_libraries(v, v_bias, o, scales, kv_heads):
    if o.shape[1] != len(v):
        return v.clone(), _same_bias(v_bias), o.clone()
    return fold_into_values(v, v_bias, o, scales, kv_heads)


@mutant(
    "the scales of a KV head are averaged into one number. There is a scale for each value of a head, and all of them "
    "can be kept."
)
def one_scale_for_a_head(v, v_bias, o, scales, kv_heads):
    means = scales.reshape(kv_heads, -1).mean(dim=1, keepdim=True).expand(-1, len(v) // kv_heads).reshape(-1)
    return fold_into_values(v, v_bias, o, means, kv_heads)


@mutant("the arguments are changed in place, by div_ and mul_. The function returns new tensors.")
def in_place(v, v_bias, o, scales, kv_heads):
    v.div_(scales[:, None])
    if v_bias is not None:
        v_bias.div_(scales)
    return v, v_bias, o.mul_(_spread(v, o, scales, kv_heads))


def head_by_head(v, v_bias, o, scales, kv_heads):
    """Right, by a loop over the query heads of a copy."""
    head_dim = len(v) // kv_heads
    heads = o.shape[1] // head_dim
    o = o.clone()
    for head in range(heads):
        kv_head = head * kv_heads // heads
        o[:, head * head_dim : (head + 1) * head_dim] *= scales[kv_head * head_dim : (kv_head + 1) * head_dim]
    return (v.T / scales).T, None if v_bias is None else v_bias / scales, o


def heads_as_an_axis(v, v_bias, o, scales, kv_heads):
    """Right, with o as (out, kv_heads, group, head_dim), where broadcasting does the sharing."""
    s = scales.double().reshape(kv_heads, 1, -1)
    wide = o.double().reshape(len(o), kv_heads, -1, s.shape[2]) * s
    new_bias = None if v_bias is None else (v_bias.double() / scales).float()
    return (v.double() / scales.double()[:, None]).float(), new_bias, wide.reshape(o.shape).float()


def blocks_repeated(v, v_bias, o, scales, kv_heads):
    """Right, with repeat_interleave on whole heads."""
    columns = scales.reshape(kv_heads, -1).repeat_interleave(o.shape[1] // len(v), dim=0).flatten()
    return v / scales.unsqueeze(1), None if v_bias is None else v_bias / scales, o @ torch.diag(columns)


QUESTION = Question(
    id="awq.fold_gqa",
    title="Several query heads, one value",
    reference=fold_into_values,
    cases=cases,
    properties=(returns_v_bias_o, types_and_shapes_stay, output_is_unchanged, scales_are_folded),
    mutants=(
        in_another_type,  # first: what is wrong in its types only looks like this one
        heads_in_turn,
        values_repeated,
        groups_not_expected,
        first_of_the_group,
        divided_for_each_query_head,
        shared_among_the_group,
        wrong_direction,
        columns_of_v,
        rows_of_o,
        bias_forgotten,
        bias_multiplied,
        bias_expected,
        v_forgotten,
        o_forgotten,
        skipped_as_in_libraries,
        one_scale_for_a_head,
        in_place,
    ),
    alternatives=(head_by_head, heads_as_an_axis, blocks_repeated),
    hints=(
        "With 4 query heads, 2 KV heads and 3 values in a head, o has 12 columns. Write down for each of them which of "
        "the 6 rows of v it reads.",
        "Columns 0 to 2 and 3 to 5 both read rows 0 to 2; columns 6 to 8 and 9 to 11 read rows 3 to 5. So the scales "
        "have to be repeated in blocks of head_dim, each block before the next one: (kv_heads, group, head_dim).",
        "columns = scales.reshape(kv_heads, 1, -1).expand(-1, group, -1).reshape(-1), with group = o.shape[1] // "
        "v.shape[0]; return v / scales[:, None], v_bias / scales or None, and o * columns.",
    ),
    explanation=(
        "Attention mixes tokens, never the values of a head, so a scale on one value passes through it, whatever the "
        "attention weights are. That makes v_proj and o_proj a pair like a norm and its layers. With grouped queries "
        "one row of v feeds several columns of o: in Llama-3-8B 8 KV heads serve 32 query heads, so every value is "
        "read by 4 columns, and these must share one scale. The freedom shrinks from 4,096 scales to 1,024, and to "
        "choose them, the importance of the 4 columns has to be merged first, by its mean for instance. llm-awq and "
        "AutoAWQ leave this pair out when the two shapes differ. The usual mistake is the order: repeat gives heads 0, "
        "1, 0, 1, and the output is wrong."
    ),
)
