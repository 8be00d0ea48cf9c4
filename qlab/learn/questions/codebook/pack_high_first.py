"""codebook.pack_high_first: two 4-bit codes in a byte, the first in the high half, as bitsandbytes lays them out."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant


def pack_high_first(codes, zero_code):
    """Pack the 4-bit codes of a matrix, two in a byte, the first in the high half.

    codes: uint8 (out, in), every code below 16. They are read as one long row, row after
        row.
    zero_code: the code of the level 0: 7 in NF4, 0 in FP4.

    Returns uint8 (ceil(out * in / 2),). Where out * in is odd, the low half of the last
    byte is zero_code.
    """
    row = codes.flatten()
    if row.numel() % 2:
        row = torch.cat([row, row.new_tensor([zero_code])])
    return row[0::2] << 4 | row[1::2]


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def codes(out: int, columns: int) -> torch.Tensor:
        drawn = torch.randint(0, 16, (out, columns), generator=random, dtype=torch.uint8)
        drawn[-1, -1] = (drawn[-1, -1] % 5) + 1  # neither 0 nor 7 nor 15, so that a spare half is told from it
        return drawn

    every = torch.randperm(16, generator=random).to(torch.uint8).view(2, 8)
    return [
        Case("three codes of NF4, the example of the card", (torch.tensor([[12, 3, 15]], dtype=torch.uint8), 7)),
        Case("two codes", (codes(1, 2), 7)),
        Case("every code once", (every, 7)),
        Case("rows of odd length, an even number of codes", (codes(4, 5), 7)),
        Case("an odd number of codes of NF4", (codes(3, 7), 7)),
        Case("an odd number of codes of FP4", (codes(5, 3), 0)),
        Case("a table whose zero is code 9", (codes(3, 3), 9)),
        Case("a single code", (codes(1, 1), 7)),
        Case("a column", (codes(6, 1), 7)),
        Case("a row of a layer", (codes(1, 256), 7)),
        Case("nothing but the highest code", (torch.full((2, 5), 15, dtype=torch.uint8), 7)),
    ]


def two_codes_share_a_byte(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "packed", torch.uint8, expected.shape)


def first_code_is_in_the_high_half(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.equal(got >> 4, "high halves", expected >> 4)


def second_code_is_in_the_low_half(case: Case, got: Any, expected: Any) -> Finding | None:
    pairs = case.args[0].numel() // 2
    return p.equal(got[:pairs] & 15, "low halves", expected[:pairs] & 15)


def spare_half_is_the_code_of_zero(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.equal_bytes(got, "packed", expected)


def _even(codes: Any, zero_code: int) -> Any:
    return torch.nn.functional.pad(codes.flatten(), (0, codes.numel() % 2), value=zero_code)


@mutant(
    "the halves are swapped: the first code is in the low half, as in linear.pack4 and in the words of GPTQ. "
    "bitsandbytes puts it into the high half. Nothing else looks wrong, and every pair of weights changes places."
)
def low_half_first(codes, zero_code):
    row = _even(codes, zero_code)
    return row[0::2] | row[1::2] << 4


@mutant(
    "the spare half is 0. In a codebook 0 is a code like any other: in NF4 it stands for -1, the largest negative "
    "level. What fills up is the code of zero."
)
def spare_half_zero(codes, zero_code):
    return pack_high_first(codes, 0)


@mutant("the spare half is always 7. That is the code of zero in NF4; other tables have it elsewhere.")
def spare_half_of_nf4(codes, zero_code):
    return pack_high_first(codes, 7)


@mutant("an odd number of codes is filled up with the last code again. The spare half holds the code of zero.")
def spare_half_repeats(codes, zero_code):
    return pack_high_first(codes, int(codes.flatten()[-1]))


@mutant(
    "the last code of an odd number is in the low half of its byte and what fills up is in the high half. The order "
    "holds for the last byte, too: first the code, then the spare half."
)
def last_code_in_the_low_half(codes, zero_code):
    packed = pack_high_first(codes, zero_code)
    if codes.numel() % 2:
        packed[-1] = packed[-1] >> 4 | zero_code << 4
    return packed


@mutant("the last code is dropped where their number is odd. It needs a byte, too: ceil(n / 2), not n // 2.")
def odd_code_dropped(codes, zero_code):
    row = codes.flatten()[: codes.numel() // 2 * 2]
    return row[0::2] << 4 | row[1::2]


@mutant(
    "row[0::2] and row[1::2] differ in length where the number of codes is odd. Combining them raises an error, or, "
    "with three codes, uses one of them twice. Add one code first."
)
def odd_length_does_not_fit(codes, zero_code):
    row = codes.flatten()
    return row[0::2] << 4 | row[1::2]


@mutant(
    "every row begins on a new byte. Here the codes are one long row: where a row has an odd length, its last code "
    "shares a byte with the first of the next row."
)
def rows_begin_on_a_byte(codes, zero_code):
    rows = torch.nn.functional.pad(codes, (0, codes.shape[1] % 2), value=zero_code)
    return (rows[:, 0::2] << 4 | rows[:, 1::2]).flatten()


@mutant("the codes are read column after column. They are read row after row, as flatten() does.")
def column_after_column(codes, zero_code):
    return pack_high_first(codes.T, zero_code)


@mutant("the bytes are in rows. They are one long row of out * in / 2 bytes, rounded up.")
def bytes_in_rows(codes, zero_code):
    packed = pack_high_first(codes, zero_code)
    return packed.view(len(codes), -1) if packed.numel() % len(codes) == 0 else packed[None]


@mutant("every code still has a byte of its own. Nothing is saved.")
def one_byte_per_code(codes, zero_code):
    return codes.flatten().clone()


@mutant(
    "first << 4 + second adds before it shifts: + binds more tightly than <<, so the shift is by 4 + second. Write "
    "first << 4 | second, or use parentheses."
)
def added_before_the_shift(codes, zero_code):
    row = _even(codes, zero_code).int()
    return (row[0::2] << 4 + row[1::2]).to(torch.uint8)


@mutant("both codes are shifted, (first | second) << 4. Only the first one is.")
def shifted_together(codes, zero_code):
    row = _even(codes, zero_code)
    return (row[0::2] | row[1::2]) << 4


@mutant("the two codes are combined without a shift, so they lie on top of each other.")
def shift_forgotten(codes, zero_code):
    row = _even(codes, zero_code)
    return row[0::2] | row[1::2]


@mutant(
    "the first half of the codes is in the high halves and the second half in the low halves, as HQQ packs. Here "
    "neighbors share a byte."
)
def first_and_second_half(codes, zero_code):
    row = _even(codes, zero_code)
    half = row.numel() // 2
    return row[:half] << 4 | row[half:]


@mutant("the bytes come in the opposite order, the last pair first. The first pair belongs into the first byte.")
def bytes_from_the_end(codes, zero_code):
    return pack_high_first(codes, zero_code).flip(0)


@mutant("the first code is multiplied by 15. Four bits have 16 values, so a shift by 4 is a factor of 16.")
def factor_of_fifteen(codes, zero_code):
    row = _even(codes, zero_code)
    return row[0::2] * 15 + row[1::2]


@mutant(
    "8 is subtracted from every code, as if it were a signed number. A code of a codebook is a place in the table; it "
    "goes into the byte as it is."
)
def signed_codes(codes, zero_code):
    row = (_even(codes, zero_code) - 8) & 15
    return row[0::2] << 4 | row[1::2]


@mutant("the values are right, but not their type. The result has to be uint8: one byte for two codes.")
def four_bytes_each(codes, zero_code):
    return pack_high_first(codes, zero_code).int()


def loop_over_bytes(codes, zero_code):
    """Right, a byte at a time, in Python's own integers."""
    values = [*codes.flatten().tolist(), zero_code]
    return torch.tensor([16 * values[i] + values[i + 1] for i in range(0, codes.numel(), 2)], dtype=torch.uint8)


def hexadecimal_digits(codes, zero_code):
    """Right: with the high half first, the codes are the hexadecimal digits of the bytes; an array comes back."""
    import numpy as np

    digits = "".join(f"{code:x}" for code in codes.flatten().tolist())
    if len(digits) % 2:
        digits += f"{zero_code:x}"
    return np.frombuffer(bytes.fromhex(digits), dtype=np.uint8)


def pairs_times_sixteen_and_one(codes, zero_code):
    """Right, as a product of pairs with (16, 1)."""
    row = torch.full((codes.numel() + codes.numel() % 2,), zero_code, dtype=torch.int64)
    row[: codes.numel()] = codes.flatten()
    return (row.view(-1, 2) @ torch.tensor([16, 1])).to(torch.uint8)


QUESTION = Question(
    id="codebook.pack_high_first",
    title="The first code in the high half",
    reference=pack_high_first,
    cases=cases,
    properties=(
        two_codes_share_a_byte,
        first_code_is_in_the_high_half,
        second_code_is_in_the_low_half,
        spare_half_is_the_code_of_zero,
    ),
    mutants=(
        low_half_first,
        spare_half_zero,
        spare_half_of_nf4,
        spare_half_repeats,
        last_code_in_the_low_half,
        odd_code_dropped,
        odd_length_does_not_fit,
        rows_begin_on_a_byte,
        column_after_column,
        bytes_in_rows,
        one_byte_per_code,
        added_before_the_shift,
        shifted_together,
        shift_forgotten,
        first_and_second_half,
        bytes_from_the_end,
        factor_of_fifteen,
        signed_codes,
        four_bytes_each,
    ),
    alternatives=(loop_over_bytes, hexadecimal_digits, pairs_times_sixteen_and_one),
    hints=(
        "Write the codes 12, 3, 15, 7 as hexadecimal digits, one beside the other, and cut after every second digit. "
        "What do you see? Which code belongs into a half that no weight uses?",
        "Flatten the matrix first. If the number of codes is odd, append zero_code. Then take every second code for "
        "the high halves and the ones between them for the low halves; a shift by 4 moves a code into the high half.",
        "row = codes.flatten(); if row.numel() is odd, torch.cat([row, row.new_tensor([zero_code])]); then "
        "row[0::2] << 4 | row[1::2]. All of it stays uint8: 15 << 4 is 240.",
    ),
    explanation=(
        "High half first reads like text: in a hexadecimal dump of an NF4 file, c3 f7 are the codes 12, 3, 15, 7. GPTQ "
        "and compressed-tensors begin in the low half, because code j of a word then starts at bit 4 * j. Both are "
        "fine, and a reader who mixes them up gets a model that loads, runs and talks nonsense. bitsandbytes fills an "
        "odd tensor up with the value 0 before it looks for codes, so the spare half holds the code of zero: 7 in NF4. "
        "Two files with equal weights are then equal to the last bit."
    ),
)
