"""codebook.dequantize: from packed codes, absmax and a table back to the weights."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .tables import FP4, NF4, close_to, spread, uneven_table


def dequantize(packed, absmax, table, shape, block_size):
    """Turn packed codes back into weights.

    packed: uint8 (ceil(out * in / 2),), two codes in a byte, the first in the high half;
        the codes of all rows follow each other without a gap. The last low half may be
        spare.
    absmax: float32 (blocks,), one for each block_size weights of the flattened matrix.
    table: float32 (16,), the level of every code, in any order.
    shape: (out, in), a tuple.
    block_size: at least 1. The last block may be short.

    Returns float32 (out, in): the level of each weight's code times the absmax of its
    block.
    """
    count = shape[0] * shape[1]
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()[:count]
    scales = absmax.repeat_interleave(block_size)[:count]
    return (table[codes.long()] * scales).view(shape)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def stored(table: torch.Tensor, shape: tuple[int, int], block_size: int, size: float = 0.05) -> Case:
        count = shape[0] * shape[1]
        packed = torch.randint(0, 256, (-(-count // 2),), generator=random, dtype=torch.uint8)
        if count % 2:
            packed[-1] = packed[-1] & 0xF0 | 7
        absmax = size * (0.3 + torch.rand(-(-count // block_size), generator=random))
        return Case("", (packed, absmax, table, shape, block_size))

    def called(name: str, case: Case) -> Case:
        return Case(name, case.args)

    card = (torch.tensor([0xC3, 0xF7], dtype=torch.uint8), torch.tensor([0.5, 0.2]), NF4, (1, 3), 2)
    empty = stored(NF4, (4, 8), 8)
    empty.args[1][1] = 0.0
    return [
        Case("the example of the card", card),
        called("a matrix of NF4", stored(NF4, (4, 16), 16)),
        called("blocks that run on into the next row", stored(NF4, (4, 12), 16)),
        called("a short last block", stored(NF4, (5, 14), 16)),
        called("an odd number of weights", stored(NF4, (3, 7), 8)),
        called("rows of odd length", stored(NF4, (6, 5), 8)),
        called("blocks that end inside a byte", stored(NF4, (4, 9), 3)),
        called("fewer weights than a block", stored(NF4, (3, 5), 64)),
        called("FP4, whose codes are not in the order of their levels", stored(FP4, (5, 12), 16)),
        called("another table", stored(uneven_table(16, random), (3, 20), 32)),
        called("a block of zeros", empty),
        called("tiny weights", stored(NF4, (2, 12), 8, size=1e-20)),
        called("a single weight", stored(NF4, (1, 1), 64)),
        called("a layer of nano, a part of it", stored(NF4, (16, 256), 64)),
    ]


def weights_are_float32(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "weights", torch.float32, case.args[3])


def weights_are_level_times_absmax(case: Case, got: Any, expected: Any) -> Finding | None:
    packed, absmax, table, shape, block_size = case.args
    scales = spread(absmax.double(), block_size, shape)
    return close_to(got, "weights", table.double()[_codes(packed, shape)] * scales, scales, "of the absmax")


def _codes(packed: Any, shape: Any) -> Any:
    """As int64, in the shape of the weights."""
    return torch.stack([packed >> 4, packed & 15], dim=1).flatten()[: shape[0] * shape[1]].long().view(shape)


def _levels(packed: Any, table: Any, shape: Any) -> Any:
    return table[_codes(packed, shape)]


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def weights_in_16_bits(packed, absmax, table, shape, block_size):
    return dequantize(packed, absmax, table, shape, block_size).half()


@mutant("the low half is read first. In this layout the first code of a byte is in the high half.")
def swapped_halves(packed, absmax, table, shape, block_size):
    return dequantize((packed & 15) << 4 | packed >> 4, absmax, table, shape, block_size)


@mutant("all high halves come first and all low halves after them. The two codes of a byte are neighbors.")
def all_high_halves_first(packed, absmax, table, shape, block_size):
    codes = torch.cat([packed >> 4, packed & 15])[: shape[0] * shape[1]]
    return table[codes.long()].view(shape) * spread(absmax, block_size, shape)


@mutant("the high half is not shifted down, so its code lies far beyond the table. byte >> 4 is the code.")
def high_half_not_shifted(packed, absmax, table, shape, block_size):
    codes = torch.stack([packed & 0xF0, packed & 15], dim=1).flatten()[: shape[0] * shape[1]]
    return (table[codes.long()] * absmax.repeat_interleave(block_size)[: codes.numel()]).view(shape)


@mutant(
    "the codes went into the table as uint8, and torch reads such an index as a mask: it chooses levels instead of "
    "looking them up. Convert the codes with long() or int()."
)
def codes_as_a_mask(packed, absmax, table, shape, block_size):
    levels = table[_codes(packed, shape).flatten().to(torch.uint8)]
    return (levels * absmax.repeat_interleave(block_size)[: levels.numel()]).view(shape)


@mutant(
    "each weight meets the absmax of another block: repeat gives a, b, a, b where a, a, b, b is needed. Use "
    "repeat_interleave."
)
def absmax_tiled(packed, absmax, table, shape, block_size):
    scales = absmax.repeat(block_size)[: shape[0] * shape[1]]
    return _levels(packed, table, shape) * scales.view(shape)


@mutant(
    "the blocks are counted in bytes, so each absmax serves twice as many weights as it should. A block is block_size "
    "weights, which are half as many bytes."
)
def blocks_of_bytes(packed, absmax, table, shape, block_size):
    count = shape[0] * shape[1]
    index = torch.arange(count) // 2 // block_size
    return _levels(packed, table, shape) * absmax[index].view(shape)


@mutant(
    "the blocks begin anew in every row. They were cut from the flattened matrix: a block may run on into the next row."
)
def blocks_within_rows(packed, absmax, table, shape, block_size):
    per_row = -(-shape[1] // block_size)
    index = torch.arange(shape[0])[:, None] * per_row + torch.arange(shape[1]) // block_size
    return _levels(packed, table, shape) * absmax[index.clamp(max=len(absmax) - 1)]


@mutant(
    "absmax is reshaped to (out, blocks per row), or the codes to (blocks, block_size): that fits only where rows or "
    "blocks are full. Give every weight its absmax in the long row, cut to the number of weights."
)
def only_full_blocks(packed, absmax, table, shape, block_size):
    levels = _levels(packed, table, shape).view(-1, block_size)
    return (levels * absmax[:, None]).view(shape)


@mutant(
    "the short last block stays 0, because the loop runs weights // block_size times. It has codes and an absmax like "
    "all others."
)
def short_block_left_at_zero(packed, absmax, table, shape, block_size):
    weights = dequantize(packed, absmax, table, shape, block_size)
    weights.view(-1)[weights.numel() // block_size * block_size :] = 0.0
    return weights


@mutant(
    "the spare half is taken for a weight where their number is odd, and then the shape does not fit. Keep the first "
    "out * in codes."
)
def spare_half_kept(packed, absmax, table, shape, block_size):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    scales = absmax.repeat_interleave(block_size)
    scales = torch.cat([scales, scales[-1:]])[: codes.numel()]
    return (table[codes.long()] * scales).view(shape)


@mutant(
    "the first weight of each block is multiplied by the absmax of the block before: the borders are off by one. "
    "Weight j of the long row belongs to block j // block_size."
)
def borders_off_by_one(packed, absmax, table, shape, block_size):
    index = (torch.arange(shape[0] * shape[1]) - 1).clamp(min=0) // block_size
    return _levels(packed, table, shape) * absmax[index].view(shape)


@mutant("all weights are multiplied by one absmax, the largest. Each block has its own.")
def one_absmax_for_all(packed, absmax, table, shape, block_size):
    return _levels(packed, table, shape) * absmax.max()


@mutant("the levels come back without their absmax, all between -1 and 1.")
def absmax_forgotten(packed, absmax, table, shape, block_size):
    return _levels(packed, table, shape)


@mutant("the levels are divided by the absmax. That is what quantizing did; the way back multiplies.")
def divided_by_absmax(packed, absmax, table, shape, block_size):
    return _levels(packed, table, shape) / spread(absmax, block_size, shape)


@mutant(
    "the codes are read as numbers of a linear grid, (code - 8) * absmax / 7. A code of a codebook is a place in the "
    "table and nothing else."
)
def linear_codes(packed, absmax, table, shape, block_size):
    return (_codes(packed, shape).float() - 8) / 7 * spread(absmax, block_size, shape)


@mutant(
    "8 is subtracted from the codes before they go into the table. Negative places count from its end in Python, so "
    "the halves of the table change places without an error. The code is the place."
)
def signed_places(packed, absmax, table, shape, block_size):
    return table[_codes(packed, shape) - 8] * spread(absmax, block_size, shape)


@mutant(
    "the argument table is not used; all codes are read as NF4. FP4 has the same bytes, the same absmax and another "
    "table."
)
def always_nf4(packed, absmax, table, shape, block_size):
    return dequantize(packed, absmax, NF4, shape, block_size)


@mutant(
    "the table is sorted first. Its order is part of the format: in FP4 code 2 is 0.667 and code 6 is 0.167. Sorting "
    "is for the search on the way in, and then the code has to be mapped back."
)
def table_sorted(packed, absmax, table, shape, block_size):
    return dequantize(packed, absmax, table.sort().values, shape, block_size)


@mutant("the matrix is filled column after column. The codes lie row after row: view(out, in), without a transpose.")
def column_after_column(packed, absmax, table, shape, block_size):
    return dequantize(packed, absmax, table, shape[::-1], block_size).T


@mutant("the weights are in one long row. They have the shape that was asked for.")
def flattened(packed, absmax, table, shape, block_size):
    return dequantize(packed, absmax, table, shape, block_size).flatten()


@mutant(
    "table and absmax are brought to 16 bits before they are multiplied, so every weight is off by up to a thousandth, "
    "and small ones vanish. Multiply in float32 and convert the product, if at all."
)
def product_in_16_bits(packed, absmax, table, shape, block_size):
    return (_levels(packed, table.half(), shape) * spread(absmax.half(), block_size, shape)).float()


def weight_by_weight(packed, absmax, table, shape, block_size):
    """Right, by loops over Python's own numbers."""
    octets, levels, largest = packed.tolist(), table.tolist(), absmax.tolist()
    weights = []
    for j in range(shape[0] * shape[1]):
        code = octets[j // 2] % 16 if j % 2 else octets[j // 2] // 16
        weights.append(levels[code] * largest[j // block_size])
    return torch.tensor(weights).reshape(shape)


def fill_every_second(packed, absmax, table, shape, block_size):
    """Right, by writing levels into an empty row, and block by block through views of it."""
    row = torch.empty(2 * packed.numel())
    row[0::2] = table[(packed >> 4).int()]
    row[1::2] = table[(packed & 15).int()]
    row = row[: shape[0] * shape[1]]
    for block, largest in zip(row.split(block_size), absmax, strict=True):
        block *= largest
    return row.view(*shape)


def table_of_pairs(packed, absmax, table, shape, block_size):
    """Right, with a table of 256 pairs of levels, one for each byte; in float64, as an array."""
    import numpy as np

    levels = table.double().numpy()
    pairs = np.stack([np.repeat(levels, 16), np.tile(levels, 16)], axis=1)
    row = pairs[packed.numpy()].ravel()[: shape[0] * shape[1]]
    scales = absmax.double().numpy()[np.arange(row.size) // block_size]
    return (row * scales).astype("float32").reshape(shape)


QUESTION = Question(
    id="codebook.dequantize",
    title="From bytes to weights",
    reference=dequantize,
    cases=cases,
    properties=(weights_are_float32, weights_are_level_times_absmax),
    mutants=(
        weights_in_16_bits,  # first: what is wrong in its types only looks like this one
        swapped_halves,
        all_high_halves_first,
        high_half_not_shifted,
        codes_as_a_mask,
        absmax_tiled,
        blocks_of_bytes,
        blocks_within_rows,
        only_full_blocks,
        short_block_left_at_zero,
        spare_half_kept,
        borders_off_by_one,
        one_absmax_for_all,
        absmax_forgotten,
        divided_by_absmax,
        linear_codes,
        signed_places,
        always_nf4,
        table_sorted,
        column_after_column,
        flattened,
        product_in_16_bits,
    ),
    alternatives=(weight_by_weight, fill_every_second, table_of_pairs),
    hints=(
        "Three steps: bytes to codes, codes to levels, levels to weights. After the first one, how many codes do you "
        "have, and how many do you need? Do all three in the long row, and think of the shape last.",
        "packed >> 4 and packed & 15 are the two codes of each byte; torch.stack(..., dim=1).flatten() puts them side "
        "by side. table[codes.long()] looks all of them up at once: as an index a uint8 tensor would be read as a "
        "mask. absmax.repeat_interleave(block_size) gives every weight its absmax, and a few too many at the end.",
        "count = shape[0] * shape[1]; codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()[:count]; scales "
        "= absmax.repeat_interleave(block_size)[:count]; then (table[codes.long()] * scales).view(shape).",
    ),
    explanation=(
        "This is all that a kernel does before it multiplies: a shift, a mask, a lookup and a product. The lookup is "
        "what a linear grid does not need, and why NF4 costs more instructions than INT4: 16 levels have to lie in "
        "registers or shared memory. The table may be any. bitsandbytes keeps FP4 in the order of its bits, so the "
        "levels of its codes 0 to 7 are 0, 0.0052, 0.667, 1, 0.333, 0.5, 0.167 and 0.25; who sorts them reads "
        "other weights. In code, one index expression does for NF4, FP4 and every table of 16 levels."
    ),
)
