"""codebook.blockwise: blocks of the flattened weights, each divided by its largest magnitude (Dettmers et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .tables import absmax_of, close_to, maxima_fit, spread


def normalize_blocks(w, block_size):
    """Divide every block of weights by its largest magnitude.

    w: float32, any shape, not empty.
    block_size: at least 1; the number of weights need not be a multiple of it.

    The weights are read as one long row, row after row, and cut into blocks of block_size.
    A block may begin in one row and end in the next. The last one may be short. So there
    are blocks = weights / block_size, rounded up.

    Returns (values, absmax):
    values: float32, shaped like w, from -1 to 1: each weight divided by the absmax of its
        block.
    absmax: float32 (blocks,), the largest magnitude of each block; it may be as small as
        1e-30.

    A block of zeros has the absmax 0 and the values 0.
    """
    row = torch.nn.functional.pad(w.flatten(), (0, -w.numel() % block_size))  # zeros change no largest magnitude
    blocks = row.view(-1, block_size)  # (blocks, block_size)
    absmax = blocks.abs().amax(dim=1)
    divisor = torch.where(absmax > 0, absmax, 1.0)
    values = (blocks / divisor[:, None]).flatten()[: w.numel()]
    return values.view(w.shape), absmax


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def weights(*shape: int) -> torch.Tensor:
        return 0.02 * torch.randn(*shape, generator=random)

    uneven = weights(3, 32) * torch.tensor([20.0, 100.0, 3.0, 300.0]).repeat_interleave(8)
    negative = weights(4, 8)
    negative[:, seed % 8] = -0.2 - 0.01 * torch.rand(4, generator=random)
    small_end = weights(3, 7)
    small_end[2, 2:] *= 0.2
    with_zeros = weights(4, 11)
    with_zeros.view(-1)[8:16] = 0.0
    with_zeros.view(-1)[40:] = 0.0
    with_tiny = weights(2, 16)
    with_tiny[1, :8] *= 1e-20
    return [
        Case("blocks that fit the rows", (weights(4, 16), 8)),
        Case("blocks that run on into the next row", (weights(4, 6), 8)),
        Case("a short last block", (weights(5, 9), 8)),
        Case("a short last block of small weights", (small_end, 8)),
        Case("a last block of one weight", (weights(3, 11), 16)),
        Case("fewer weights than a block", (weights(3, 5), 64)),
        Case("one block is the matrix", (weights(4, 8), 32)),
        Case("blocks of very different sizes", (uneven, 8)),
        Case("the largest magnitudes are negative", (negative, 8)),
        Case("blocks of zeros, the last one among them", (with_zeros, 8)),
        Case("a block of tiny weights", (with_tiny, 8)),
        Case("a block for each weight", (weights(2, 3), 1)),
        Case("three dimensions, as the experts of a layer have", (weights(2, 3, 10), 16)),
        Case("a square matrix", (weights(12, 12), 64)),
    ]


def returns_values_and_absmax(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "values", "absmax")


def values_are_float32(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got[0], "values", torch.float32, case.args[0].shape)


def absmax_fits_the_blocks(case: Case, got: Any, expected: Any) -> Finding | None:
    return maxima_fit(got[1], "absmax", absmax_of(*case.args))


def values_are_shares_of_the_absmax(case: Case, got: Any, expected: Any) -> Finding | None:
    w, block_size = case.args
    largest = spread(absmax_of(w, block_size), block_size, w.shape)
    exact = w.double() / torch.where(largest > 0, largest, 1.0)
    return close_to(got[0], "values", exact, torch.ones_like(exact), "of the absmax")


def _blocks(w: Any, block_size: int) -> Any:
    return torch.nn.functional.pad(w.flatten(), (0, -w.numel() % block_size)).view(-1, block_size)


def _back(blocks: Any, w: Any) -> Any:
    return blocks.flatten()[: w.numel()].view(w.shape)


def _positive(absmax: Any) -> Any:
    return torch.where(absmax > 0, absmax, 1.0)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def absmax_in_16_bits(w, block_size):
    values, absmax = normalize_blocks(w, block_size)
    return values.half(), absmax.half()


@mutant(
    "every row is cut into blocks of its own, as linear.per_group does. Here the weights are one long row: a block may "
    "begin in one row and end in the next, and only the last one of all can be short."
)
def blocks_within_rows(w, block_size):
    rows = w.reshape(-1, w.shape[-1])
    padded = torch.nn.functional.pad(rows, (0, -rows.shape[1] % block_size))
    blocks = padded.view(len(rows), -1, block_size)
    absmax = blocks.abs().amax(dim=2, keepdim=True)
    values = (blocks / _positive(absmax)).view(len(rows), -1)[:, : rows.shape[1]]
    return values.reshape(w.shape), absmax.flatten()


@mutant("the blocks run down the columns. The long row is made row after row, as flatten() and view(-1) make it.")
def blocks_down_the_columns(w, block_size):
    turned = w.transpose(-1, -2)
    values, absmax = normalize_blocks(turned, block_size)
    return values.transpose(-1, -2), absmax


@mutant(
    "the weights are reshaped into blocks as if their number always were a multiple of block_size; a short last block "
    "raises an error. Fill the last block with zeros, or go through the long row in slices."
)
def short_block_refused(w, block_size):
    blocks = w.reshape(-1, block_size)
    absmax = blocks.abs().amax(dim=1)
    return (blocks / _positive(absmax)[:, None]).reshape(w.shape), absmax


@mutant(
    "the short block at the end is divided by nothing and has no absmax: weights // block_size rounds down. It is a "
    "block like all others."
)
def short_block_left_out(w, block_size):
    count = w.numel() // block_size
    row = w.flatten().clone()
    blocks = row[: count * block_size].view(count, block_size)
    absmax = blocks.abs().amax(dim=1)
    blocks /= _positive(absmax)[:, None]
    return row.view(w.shape), absmax


@mutant(
    "the short block at the end keeps the value 0 that the result began with, and has no absmax: the loop runs "
    "weights // block_size times. Round up."
)
def short_block_left_at_zero(w, block_size):
    values, absmax = short_block_left_out.answer(w, block_size)
    values.view(-1)[len(absmax) * block_size :] = 0.0
    return values, absmax


@mutant(
    "the short block at the end is joined to the block before it and shares that absmax. It has an absmax of its own: "
    "there are weights / block_size blocks, rounded up."
)
def short_block_joined(w, block_size):
    count = max(w.numel() // block_size, 1)
    index = (torch.arange(w.numel()) // block_size).clamp(max=count - 1)
    absmax = torch.stack([w.flatten()[index == block].abs().max() for block in range(count)])
    return w / _positive(absmax)[index].view(w.shape), absmax


@mutant(
    "the short block is filled up with ones, and they take part in the maximum. Fill it with zeros, which change no "
    "largest magnitude, or take the maximum before you fill."
)
def padded_with_ones(w, block_size):
    blocks = torch.nn.functional.pad(w.flatten(), (0, -w.numel() % block_size), value=1.0).view(-1, block_size)
    absmax = blocks.abs().amax(dim=1)
    return _back(blocks / _positive(absmax)[:, None], w), absmax


@mutant("what filled up the last block is still there. Cut it off again: values have the shape of w.")
def padding_left_in(w, block_size):
    blocks = _blocks(w, block_size)
    absmax = blocks.abs().amax(dim=1)
    return (blocks / _positive(absmax)[:, None]).flatten(), absmax


@mutant(
    "the values come back as blocks. They have the shape of w, so that each value still knows its row and its column."
)
def values_in_blocks(w, block_size):
    blocks = _blocks(w, block_size)
    absmax = blocks.abs().amax(dim=1)
    return blocks / _positive(absmax)[:, None], absmax


@mutant(
    "a block of zeros is divided by its absmax, 0, and becomes NaN. Divide it by any other number; its values are 0."
)
def zero_blocks_divide(w, block_size):
    blocks = _blocks(w, block_size)
    absmax = blocks.abs().amax(dim=1)
    return _back(blocks / absmax[:, None], w), absmax


@mutant(
    "a block of zeros gets the absmax 1. Only the division needs such a number. Stored is 0: then every code of that "
    "block comes back as 0, even in a table without a zero."
)
def one_stored_for_zeros(w, block_size):
    values, absmax = normalize_blocks(w, block_size)
    return values, _positive(absmax)


@mutant(
    "a small number keeps the absmax from 0, added to it or as its lower limit. In a block of tiny weights that number "
    "is all. Change only the divisors that are 0."
)
def epsilon_added(w, block_size):
    blocks = _blocks(w, block_size)
    absmax = blocks.abs().amax(dim=1) + 1e-8
    return _back(blocks / absmax[:, None], w), absmax


@mutant(
    "a small number such as 1e-8 keeps the divisor from 0. Added to it, it makes all values a little too small; added "
    "or as a lower limit, it is larger than the absmax of tiny weights, whose values then vanish. Change only the "
    "divisors that are 0."
)
def divisor_with_a_floor(w, block_size):
    blocks = _blocks(w, block_size)
    absmax = blocks.abs().amax(dim=1)
    return _back(blocks / absmax.clamp(min=1e-8)[:, None], w), absmax


@mutant(
    "a lower limit such as 1e-12 is stored as the absmax of every smaller block, a block of zeros among them. Stored "
    "is the largest magnitude itself, and 0 for zeros; change only what you divide by, and only where that is 0."
)
def stored_with_a_lower_floor(w, block_size):
    blocks = _blocks(w, block_size)
    absmax = blocks.abs().amax(dim=1).clamp(min=1e-12)
    return _back(blocks / absmax[:, None], w), absmax


@mutant(
    "the divisor has a lower limit such as 1e-12, the usual guard. Tiny weights lie below that, and their values "
    "vanish: the largest of a block has to become 1 or -1. Change only the divisors that are 0."
)
def divisor_with_a_lower_floor(w, block_size):
    blocks = _blocks(w, block_size)
    absmax = blocks.abs().amax(dim=1)
    return _back(blocks / absmax.clamp(min=1e-12)[:, None], w), absmax


@mutant("absmax is the largest value of a block, not its largest magnitude. Take abs() first.")
def without_abs(w, block_size):
    blocks = _blocks(w, block_size)
    absmax = blocks.amax(dim=1)
    return _back(blocks / torch.where(absmax == 0, 1.0, absmax)[:, None], w), absmax


@mutant(
    "absmax carries the sign of the largest weight, as the scale of llama.cpp's Q4_0 does. Here it is a magnitude; the "
    "sign stays with the values."
)
def signed_absmax(w, block_size):
    blocks = _blocks(w, block_size)
    absmax = blocks.gather(1, blocks.abs().argmax(dim=1, keepdim=True))[:, 0]
    return _back(blocks / torch.where(absmax == 0, 1.0, absmax)[:, None], w), absmax


@mutant(
    "the blocks are divided by their standard deviation. NF4's table comes from a normal distribution, but it was "
    "scaled to end at -1 and 1, so a block is divided by its largest magnitude."
)
def standard_deviation(w, block_size):
    blocks = w.flatten().split(block_size)
    deviation = torch.stack([block.std(correction=0) for block in blocks])
    return w / _positive(spread(deviation, block_size, w.shape)), deviation


@mutant(
    "the largest magnitude is divided by 7, the last code of a linear 4-bit grid. A codebook has no steps: its levels "
    "end at -1 and 1, and so do the values."
)
def divided_by_seven(w, block_size):
    values, absmax = normalize_blocks(w, block_size)
    return values * 7, absmax / 7


@mutant(
    "each block is stretched from its minimum and maximum to -1 and 1, so its zeros move. Only the magnitude is "
    "scaled; zero stays zero."
)
def minimum_to_maximum(w, block_size):
    parts = w.flatten().split(block_size)
    low = spread(torch.stack([part.min() for part in parts]), block_size, w.shape)
    high = spread(torch.stack([part.max() for part in parts]), block_size, w.shape)
    return 2 * (w - low) / _positive(high - low) - 1, normalize_blocks(w, block_size)[1]


@mutant("all blocks have the absmax of the whole tensor. Take the maximum within each block.")
def one_absmax_for_all(w, block_size):
    absmax = w.abs().max().repeat(-(-w.numel() // block_size))
    return w / absmax[0], absmax


@mutant("absmax has a second dimension, (blocks, 1), which keepdim=True left behind. Return one number per block.")
def absmax_as_a_column(w, block_size):
    values, absmax = normalize_blocks(w, block_size)
    return values, absmax[:, None]


@mutant(
    "the second value is the reciprocal, 1 / absmax. Stored is the absmax itself, by which a reader multiplies the "
    "levels."
)
def reciprocal_stored(w, block_size):
    values, absmax = normalize_blocks(w, block_size)
    return values, 1 / absmax


@mutant(
    "a block takes every n-th weight instead of neighbors: the long row is reshaped to (block_size, blocks). Reshape "
    "to (blocks, block_size)."
)
def blocks_of_every_nth(w, block_size):
    blocks = torch.nn.functional.pad(w.flatten(), (0, -w.numel() % block_size)).view(block_size, -1)
    absmax = blocks.abs().amax(dim=0)
    return _back(blocks / _positive(absmax), w), absmax


@mutant("block_size is taken as the number of blocks. It is the number of weights in a block.")
def size_as_a_count(w, block_size):
    return normalize_blocks(w, -(-w.numel() // block_size))


def slice_by_slice(w, block_size):
    """Right, by a loop over slices; the last one ends by itself."""
    values, absmax = [], []
    for block in w.flatten().split(block_size):
        largest = block.abs().max()
        absmax.append(largest)
        values.append(block / largest if largest > 0 else block)
    return torch.cat(values).view(w.shape), torch.stack(absmax)


def by_the_number_of_the_block(w, block_size):
    """Right, without cutting: every weight carries the number of its block; in float64."""
    index = torch.arange(w.numel()) // block_size
    absmax = torch.zeros(int(index[-1]) + 1, dtype=torch.float64)
    absmax.scatter_reduce_(0, index, w.flatten().abs().double(), "amax")
    values = torch.nan_to_num(w.flatten().double() / absmax[index])
    return values.view(w.shape).float(), absmax.float()


def numpy_reduceat(w, block_size):
    """Right, as arrays, multiplied by the reciprocal."""
    import numpy as np

    row = w.numpy().ravel()
    absmax = np.maximum.reduceat(np.abs(row), np.arange(0, row.size, block_size))
    factor = np.divide(1.0, absmax, out=np.zeros(absmax.shape), where=absmax > 0)
    values = row * np.repeat(factor, block_size)[: row.size]
    return values.astype("float32").reshape(w.shape), absmax


QUESTION = Question(
    id="codebook.blockwise",
    title="Blocks that ignore the rows",
    reference=normalize_blocks,
    cases=cases,
    properties=(
        returns_values_and_absmax,
        values_are_float32,
        absmax_fits_the_blocks,
        values_are_shares_of_the_absmax,
    ),
    mutants=(
        absmax_in_16_bits,  # first: what is wrong in its types only looks like this one
        blocks_within_rows,
        blocks_down_the_columns,
        short_block_refused,
        short_block_left_out,
        short_block_left_at_zero,
        short_block_joined,
        padded_with_ones,
        padding_left_in,
        values_in_blocks,
        zero_blocks_divide,
        one_stored_for_zeros,
        epsilon_added,
        divisor_with_a_floor,
        stored_with_a_lower_floor,
        divisor_with_a_lower_floor,
        without_abs,
        signed_absmax,
        standard_deviation,
        divided_by_seven,
        minimum_to_maximum,
        one_absmax_for_all,
        absmax_as_a_column,
        reciprocal_stored,
        blocks_of_every_nth,
        size_as_a_count,
    ),
    alternatives=(slice_by_slice, by_the_number_of_the_block, numpy_reduceat),
    hints=(
        "A matrix of 4 rows of 6 weights, blocks of 8: in which row does the second block begin, and how many blocks "
        "are there? Does the shape of the matrix matter at all?",
        "flatten() makes the long row. torch.nn.functional.pad(row, (0, -row.numel() % block_size)) fills it up with "
        "zeros, which change no largest magnitude, and view(-1, block_size) makes a row of every block. Or loop over "
        "row.split(block_size), whose last piece is short by itself.",
        "absmax = blocks.abs().amax(dim=1); divisor = torch.where(absmax > 0, absmax, 1.0); values = blocks / "
        "divisor[:, None]; then flatten, cut back to w.numel() and view(w.shape). Return the absmax, not the divisor.",
    ),
    explanation=(
        "bitsandbytes sees no rows: it reads a tensor as one run of numbers. That makes every shape possible, with at "
        "most one short block, and it costs something: a block may hold weights of two outputs, and a tensor that is "
        "split by rows for two cards may be cut inside a block. In practice rows are multiples of 64 and no block "
        "crosses. A block's largest weight becomes exactly 1 or -1, both of which are levels of NF4, so it comes back "
        "exactly, as zeros do; no other weight of the block has that promise."
    ),
)
