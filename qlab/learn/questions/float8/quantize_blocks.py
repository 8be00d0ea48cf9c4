"""float8.quantize_blocks: E4M3, one scale for each square block (DeepSeek-AI 2024, "DeepSeek-V3 Technical Report")."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .bits import as_tensor, codes_near, values_of

_RTOL = 1e-6  # of a scale or of a quotient: two roundings in float32, with room
# The example of the card: blocks of 2, with a short one on each side.
CARD = torch.tensor([[1.0, -3.5, 0.7], [0.1, 2.0, -0.2], [56.0, 7.0, 0.0]])


def quantize_blocks(w, block):
    """Quantize a matrix to E4M3 with one scale for each square block.

    w: float32 (out, in).
    block: rows and columns of a block, at least 1; 128 is usual. Blocks are cut from the
        top and from the left, so those at the bottom and at the right may be short.

    Returns (codes, scales):
    codes: uint8 (out, in), those of the E4M3 values nearest to weight / scale.
    scales: float32 (row blocks, column blocks), each count rounded up: the largest
        magnitude of the block, divided by 448. For a block of zeros any finite number.

    For the codes you may use torch's own type, x.to(torch.float8_e4m3fn), on numbers from
    -448 to 448, and view(torch.uint8), or your function of question 2. Where two values are
    equally near up to rounding in float32, either is right.
    """
    rows, columns = w.shape
    padded = torch.nn.functional.pad(w, (0, -columns % block, 0, -rows % block))
    blocks = padded.view(padded.shape[0] // block, block, padded.shape[1] // block, block)
    scales = blocks.abs().amax(dim=(1, 3)) / 448  # (row blocks, column blocks)
    scales = torch.where(scales > 0, scales, 1.0)
    quotients = (blocks / scales[:, None, :, None]).view(padded.shape)[:rows, :columns]
    return quotients.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8), scales


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def weights(rows: int, columns: int) -> torch.Tensor:
        return 0.02 * torch.randn(rows, columns, generator=random)

    uneven = weights(12, 16) * torch.exp(2 * torch.randn(12, 16, generator=random))
    uneven[:4, :4] *= 100
    negative = -weights(8, 8).abs()
    zeros = weights(8, 12)
    zeros[4:, :4] = 0.0
    tiny = weights(8, 8)
    tiny[:4, :4] *= 1e-13
    corner = weights(9, 7)
    corner[8, 6] = 0.0  # a block of its own
    return [
        Case("the example of the card", (CARD, 2)),
        Case("blocks that fit", (weights(8, 12), 4)),
        Case("more columns than rows", (weights(4, 24), 4)),
        Case("short blocks at the right", (weights(8, 11), 4)),
        Case("short blocks at the bottom", (weights(10, 8), 4)),
        Case("short blocks on both sides", (weights(11, 19), 8)),
        Case("fewer weights than a block", (weights(3, 5), 128)),
        Case("blocks of 128", (weights(130, 257), 128)),
        Case("a block for each weight", (weights(3, 4), 1)),
        Case("blocks of very different sizes", (uneven, 4)),
        Case("all weights are negative", (negative, 4)),
        Case("a block of zeros", (zeros, 4)),
        Case("a short block of zeros", (corner, 4)),
        Case("a block of tiny weights", (tiny, 4)),
        Case("a single row", (weights(1, 10), 4)),
    ]


def _largest(w: torch.Tensor, block: int) -> torch.Tensor:
    """The largest magnitude of each block, float64 (row blocks, column blocks)."""
    rows = [[part.double().abs().max() for part in row.split(block, dim=1)] for row in w.split(block)]
    return torch.tensor([[float(one) for one in row] for row in rows], dtype=torch.float64)


def _spread(scales: Any, block: int, w: Any) -> Any:
    """A number per block as one per weight."""
    return scales.repeat_interleave(block, 0)[: len(w)].repeat_interleave(block, 1)[:, : w.shape[1]]


def returns_codes_and_scales(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "codes", "scales")


def codes_are_bytes(case: Case, got: Any, expected: Any) -> Finding | None:
    return as_tensor(got[0], "codes", torch.uint8, tuple(case.args[0].shape))


def scales_fit_the_blocks(case: Case, got: Any, expected: Any) -> Finding | None:
    exact = _largest(*case.args) / 448
    if finding := p.tensor(got[1], "scales", torch.float32, tuple(exact.shape)):
        return finding
    error = ((got[1].double() - exact).abs() / torch.where(exact > 0, exact, 1.0)).nan_to_num(nan=float("inf"))
    wrong = torch.where(exact > 0, error > _RTOL, ~got[1].isfinite())
    if not bool(wrong.any()):
        return None
    index = tuple(wrong.nonzero()[0].tolist())
    known = exact[index] > 0
    return Finding(
        f"scales: {int(wrong.sum())} of {wrong.numel()} are off",
        index=index,
        expected=f"{exact[index].item():.6g}" if known else "a finite number",
        got=f"{got[1][index].item():.6g}",
        error=100 * error[index].item() if known else None,
        bound=100 * _RTOL if known else None,
        unit="%",
    )


def codes_are_nearest(case: Case, got: Any, expected: Any) -> Finding | None:
    w, block = case.args
    scales = _spread(_largest(w, block) / 448, block, w)
    return codes_near(got[0], w.double() / torch.where(scales > 0, scales, 1.0), "e4m3", _RTOL)


def _codes(quotients: Any) -> Any:
    return quotients.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)


def _by(w: Any, block: int, measure: Any, *, divisor: float = 448.0) -> Any:
    """A right answer, but for the number that is measured of each block."""
    largest = torch.stack([torch.stack([measure(part) for part in r.split(block, dim=1)]) for r in w.split(block)])
    scales = torch.where(largest == 0, 1.0, largest) / divisor
    return _codes(w / _spread(scales, block, w)), scales


def _absmax(part: Any) -> Any:
    return part.abs().max()


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def codes_as_float8(w, block):
    codes, scales = quantize_blocks(w, block)
    return codes.view(torch.float8_e4m3fn), scales


@mutant("the first value are the weights again, codes times scales. Return the codes; a reader multiplies.")
def weights_for_codes(w, block):
    codes, scales = quantize_blocks(w, block)
    return (values_of(codes, "e4m3") * _spread(scales, block, w)).float(), scales


@mutant("the scale comes from the largest value of a block, and not from its largest magnitude. Take abs() first.")
def without_abs(w, block):
    return _by(w, block, lambda part: part.max())


@mutant("abs() comes after the maximum: that is the magnitude of the largest value. Take abs() first, then amax.")
def abs_after_the_maximum(w, block):
    return _by(w, block, lambda part: part.max().abs())


@mutant("the scale is the largest magnitude itself, so only the codes up to 1.0 are used. Divide it by 448.")
def not_divided(w, block):
    return _by(w, block, _absmax, divisor=1.0)


@mutant("the second value is the reciprocal, 448 / largest. Stored is the scale by which a reader multiplies.")
def reciprocal_stored(w, block):
    codes, scales = quantize_blocks(w, block)
    return codes, 1 / scales


@mutant("the largest magnitude is divided by 127, the last code of int8. The largest value of E4M3 is 448.")
def divided_by_127(w, block):
    return _by(w, block, _absmax, divisor=127.0)


@mutant("the largest magnitude is divided by 240, where E4M3 would end with an infinity. It goes on to 448.")
def divided_by_240(w, block):
    return _by(w, block, _absmax, divisor=240.0)


@mutant(
    "the largest magnitude is divided by 57344, the end of E5M2. Most weights are then cut off at 448 times the scale."
)
def divided_by_57344(w, block):
    return _by(w, block, _absmax, divisor=57344.0)


@mutant("the scales are rounded up to powers of two, as in the microscaling formats. Here they are float32 numbers.")
def powers_of_two(w, block):
    _, scales = quantize_blocks(w, block)
    scales = 2.0 ** torch.log2(scales).ceil()
    return _codes(w / _spread(scales, block, w)), scales


@mutant("all blocks have the scale of the whole matrix. Take the maximum within each block.")
def one_scale_for_all(w, block):
    _, scales = quantize_blocks(w, block)
    scales = (w.abs().max() / 448).expand_as(scales)
    return _codes(w / scales[0, 0]), scales


@mutant("a scale serves all columns of its rows: the maximum runs over the whole width. A block is square.")
def stripes_of_rows(w, block):
    _, scales = quantize_blocks(w, block)
    scales = scales.amax(dim=1, keepdim=True).expand_as(scales)
    return _codes(w / _spread(scales, block, w)), scales


@mutant("a scale serves all rows of its columns: the maximum runs over the whole height. A block is square.")
def stripes_of_columns(w, block):
    _, scales = quantize_blocks(w, block)
    scales = scales.amax(dim=0, keepdim=True).expand_as(scales)
    return _codes(w / _spread(scales, block, w)), scales


@mutant(
    "every row has scales of its own, one for each run of columns. That is how DeepSeek-V3 treats activations; a "
    "block of weights also holds block rows."
)
def a_scale_for_every_row(w, block):
    parts = w.split(block, dim=1)
    scales = torch.stack([part.abs().amax(dim=1) for part in parts], dim=1) / 448
    scales = torch.where(scales > 0, scales, 1.0)
    return _codes(w / scales.repeat_interleave(block, 1)[:, : w.shape[1]]), scales


@mutant(
    "every column has scales of its own, one for each run of rows. A block of weights is square: it also holds block "
    "columns."
)
def a_scale_for_every_column(w, block):
    scales = torch.stack([part.abs().amax(dim=0) for part in w.split(block)]) / 448
    scales = torch.where(scales > 0, scales, 1.0)
    return _codes(w / scales.repeat_interleave(block, 0)[: len(w)]), scales


@mutant(
    "the matrix is divided into blocks of nearly the same size, as tensor_split does it. Blocks have block rows and "
    "columns, cut from the top left, and only the last ones may be short: split does that."
)
def equal_splits(w, block):
    rows = w.tensor_split(-(-w.shape[0] // block))
    parts = [row.tensor_split(-(-w.shape[1] // block), dim=1) for row in rows]
    scales = torch.stack([torch.stack([_absmax(part) for part in row]) for row in parts]) / 448
    scales = torch.where(scales > 0, scales, 1.0)
    codes = [[_codes(part / scales[i, j]) for j, part in enumerate(row)] for i, row in enumerate(parts)]
    return torch.cat([torch.cat(row, dim=1) for row in codes]), scales


@mutant(
    "the scales went through float16, which has 11 bits of precision and nothing below 2**-24, so small scales become "
    "coarse or 0. Here they are float32 numbers."
)
def scales_through_16_bits(w, block):
    scales = quantize_blocks(w, block)[1].half().float()
    scales = torch.where(scales > 0, scales, 1.0)
    return _codes(w / _spread(scales, block, w)), scales


@mutant("the scales are transposed: (column blocks, row blocks). Rows come first, as in the weights.")
def scales_transposed(w, block):
    codes, scales = quantize_blocks(w, block)
    return codes, scales.T


@mutant(
    "the scales still have their dimensions of size 1, which keepdim=True left behind. Return (row, column) blocks."
)
def dimensions_left_in(w, block):
    codes, scales = quantize_blocks(w, block)
    return codes, scales[:, None, :, None]


@mutant("the scales are one for each weight. Keep one for each block: that is what is stored.")
def a_scale_for_every_weight(w, block):
    codes, scales = quantize_blocks(w, block)
    return codes, _spread(scales, block, w)


@mutant(
    "the matrix is reshaped as if both sides always were multiples of the block; short blocks raise an error. Fill up "
    "with zeros, or go through the blocks in slices."
)
def short_blocks_refused(w, block):
    blocks = w.reshape(w.shape[0] // block, block, w.shape[1] // block, block)
    return quantize_blocks(blocks.reshape(w.shape), block)


@mutant("short blocks have no scale: out // block rounds down. They are blocks like all others; round up.")
def short_blocks_without_scales(w, block):
    codes, scales = quantize_blocks(w, block)
    return codes, scales[: w.shape[0] // block, : w.shape[1] // block]


@mutant("what filled up the short blocks is still there. Cut it off again: codes have the shape of w.")
def padding_left_in(w, block):
    return quantize_blocks(torch.nn.functional.pad(w, (0, -w.shape[1] % block, 0, -w.shape[0] % block)), block)


@mutant("short blocks are filled up with ones, and they take part in the maximum. Fill up with zeros.")
def padded_with_ones(w, block):
    padded = torch.nn.functional.pad(w, (0, -w.shape[1] % block, 0, -w.shape[0] % block), value=1.0)
    codes, scales = quantize_blocks(padded, block)
    return codes[: w.shape[0], : w.shape[1]], scales


@mutant(
    "a block is made of weights that follow each other in memory: view(row blocks, column blocks, block, block). In "
    "memory a row runs through several blocks, so the right view is (row blocks, block, column blocks, block)."
)
def blocks_in_memory(w, block):
    rows, columns = w.shape
    padded = torch.nn.functional.pad(w, (0, -columns % block, 0, -rows % block))
    blocks = padded.view(padded.shape[0] // block, padded.shape[1] // block, block, block)
    scales = blocks.abs().amax(dim=(2, 3)) / 448
    scales = torch.where(scales > 0, scales, 1.0)
    return _codes((blocks / scales[:, :, None, None]).view(padded.shape)[:rows, :columns]), scales


@mutant("a block of zeros is divided by its scale, 0: its codes are 127, NaN. Divide it by any other number.")
def zeros_divide(w, block):
    _, scales = quantize_blocks(w, block)
    scales = torch.where(_largest(w, block) > 0, scales, 0.0)
    return _codes(w / _spread(scales, block, w)), scales


@mutant(
    "the largest magnitude has a lower limit such as 1e-12, the usual guard. For a block of tiny weights it is far too "
    "large. Change only the scales that are 0."
)
def largest_with_a_floor(w, block):
    return _by(w, block, lambda part: part.abs().max().clamp(min=1e-12))


@mutant(
    "the scale has a lower limit such as 1e-12, the usual guard. The scale of a block of tiny weights lies below it, "
    "and all of them become 0. Change only the scales that are 0."
)
def scale_with_a_floor(w, block):
    return _by(w, block, lambda part: part.abs().max().clamp(min=448e-12))


@mutant(
    "the scale has a lower limit such as 1e-8. Some layers have weights far below that, and all of them become 0. "
    "Change only the scales that are 0."
)
def scale_with_a_high_floor(w, block):
    return _by(w, block, lambda part: part.abs().max().clamp(min=448e-8))


@mutant(
    "a small number is added to every scale. In a block of tiny weights that number is all. Change only the scales "
    "that are 0."
)
def epsilon_added(w, block):
    return _by(w, block, lambda part: part.abs().max() + 1e-8 * 448)


@mutant("the quotients are rounded to whole numbers, as for int8. E4M3 has values between them: below 16 nearly all.")
def rounded_to_whole_numbers(w, block):
    _, scales = quantize_blocks(w, block)
    return _codes(torch.round(w / _spread(scales, block, w))), scales


@mutant("the quotients are written as numbers from 0 to 255. A code is what view(torch.uint8) shows of a float8.")
def numbers_for_bytes(w, block):
    _, scales = quantize_blocks(w, block)
    return (w / _spread(scales, block, w)).round().clamp(-128, 127).to(torch.int8).view(torch.uint8), scales


@mutant("the codes are not rounded to the nearest value; their last bits were cut off.")
def cut_off(w, block):
    quotients = w / _spread(quantize_blocks(w, block)[1], block, w)
    codes = quantize_blocks(w, block)[0]
    beyond = values_of(codes, "e4m3").abs() > quotients.double().abs()
    return (codes - beyond.to(torch.uint8)).to(torch.uint8), quantize_blocks(w, block)[1]


@mutant("the codes are those of e5m2. Two bits of fraction are one too few: the weights need precision, not range.")
def codes_of_e5m2(w, block):
    _, scales = quantize_blocks(w, block)
    return (w / _spread(scales, block, w)).to(torch.float8_e5m2).view(torch.uint8), scales


@mutant("the quotients are clamped to -240 and 240. E4M3 goes on to 448, and the largest weight of a block needs it.")
def clamped_at_240(w, block):
    _, scales = quantize_blocks(w, block)
    return _codes((w / _spread(scales, block, w)).clamp(-240, 240)), scales


@mutant("block is taken as the number of blocks along a side. It is the number of rows and columns in a block.")
def size_as_a_count(w, block):
    return quantize_blocks(w, -(-w.shape[1] // block))


@mutant("the argument block is not used; blocks have 128 rows and columns.")
def always_128(w, block):
    return quantize_blocks(w, 128)


@mutant("w itself is divided: w[...] /= scale changes the argument. Make a new tensor.")
def divides_its_argument(w, block):
    codes, scales = quantize_blocks(w, block)
    w /= _spread(scales, block, w)
    return codes, scales


def block_by_block(w, block):
    """Right, in two loops over slices, which end by themselves; with the largest code for the quotient 448."""
    codes = torch.zeros(w.shape, dtype=torch.uint8)
    scales = []
    for top in range(0, w.shape[0], block):
        scales.append([])
        for left in range(0, w.shape[1], block):
            part = w[top : top + block, left : left + block]
            scale = part.abs().max().item() / 448 or 1.0
            quotients = (part / scale).clamp(-448, 448)
            codes[top : top + block, left : left + block] = quotients.to(torch.float8_e4m3fn).view(torch.uint8)
            scales[-1].append(scale)
    return codes, torch.tensor(scales)


def by_pooling(w, block):
    """Right: a maximum over windows is max pooling; times the reciprocal, in float64; zeros keep the scale 0."""
    magnitude = w.abs()[None, None].double()
    largest = torch.nn.functional.max_pool2d(magnitude, block, ceil_mode=True)[0, 0]
    factor = torch.where(largest > 0, 448 / largest, 0.0)
    factor = factor.repeat_interleave(block, 0).repeat_interleave(block, 1)[: w.shape[0], : w.shape[1]]
    quotients = (w.double() * factor).float()
    return quotients.to(torch.float8_e4m3fn).view(torch.uint8), (largest / 448).float()


QUESTION = Question(
    id="float8.quantize_blocks",
    title="One scale for a square of weights",
    reference=quantize_blocks,
    cases=cases,
    properties=(returns_codes_and_scales, codes_are_bytes, scales_fit_the_blocks, codes_are_nearest),
    mutants=(
        codes_as_float8,  # first: what is wrong in its types only looks like this one
        weights_for_codes,
        without_abs,
        abs_after_the_maximum,
        not_divided,
        reciprocal_stored,
        divided_by_127,
        divided_by_240,
        divided_by_57344,
        powers_of_two,
        one_scale_for_all,
        stripes_of_rows,
        stripes_of_columns,
        a_scale_for_every_row,
        a_scale_for_every_column,
        equal_splits,
        scales_through_16_bits,
        scales_transposed,
        dimensions_left_in,
        a_scale_for_every_weight,
        short_blocks_refused,
        short_blocks_without_scales,
        padding_left_in,
        padded_with_ones,
        blocks_in_memory,
        zeros_divide,
        largest_with_a_floor,
        scale_with_a_floor,
        scale_with_a_high_floor,
        epsilon_added,
        rounded_to_whole_numbers,
        numbers_for_bytes,
        cut_off,
        codes_of_e5m2,
        clamped_at_240,
        size_as_a_count,
        always_128,
        divides_its_argument,
    ),
    alternatives=(block_by_block, by_pooling),
    hints=(
        "On the card, which weights share a scale with the weight at the bottom right, and how many scales are there "
        "in each direction? What does a block of zeros divide by?",
        "pad(w, (0, -columns % block, 0, -rows % block)) fills up with zeros, the last dimension first. Then "
        "view(row blocks, block, column blocks, block) puts each block on the dimensions 1 and 3. Or take slices in "
        "two loops.",
        "scales = blocks.abs().amax(dim=(1, 3)) / 448; replace the zeros with torch.where; quotients = (blocks / "
        "scales[:, None, :, None]).view(padded.shape)[:rows, :columns]; then clamp, to(torch.float8_e4m3fn) and "
        "view(torch.uint8).",
    ),
    explanation=(
        "A block of 128 x 128 weights carries 4 bytes of scale, 0.002 bits per weight, so blocks cost nothing to "
        "store. Unlike with integers they also gain little: the step of a float shrinks with the weight, and only "
        "weights below 2^-6 of the scale, 1/28,672 of the largest, become subnormal. What blocks buy is safety: one "
        "outlier spoils its block and not the row. They are square so that a transposed weight, as the backward pass "
        "needs it, has the same blocks. The price is in the product: with one scale per row the scale comes after the "
        "whole sum, with blocks there is a sum, and a scale, for every 128 columns."
    ),
)
