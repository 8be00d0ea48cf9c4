"""linear.pack4: two 4-bit codes in every byte, the first in the low half."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant


def pack4(codes):
    """Pack 4-bit codes, two in a byte, the first of the two in the low half.

    codes: uint8 (n,), every code below 16; n is 1 or more, odd or even.
    Returns uint8 (ceil(n / 2),). Where n is odd, the high half of the last byte is 0.
    """
    if len(codes) % 2:
        codes = torch.cat([codes, codes.new_zeros(1)])
    low, high = codes[0::2], codes[1::2]
    return low | high << 4


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def codes(count: int) -> torch.Tensor:
        return torch.randint(0, 16, (count,), generator=random, dtype=torch.uint8)

    return [
        Case("two codes", (torch.randperm(16, generator=random)[:2].to(torch.uint8),)),
        Case("every code once", (torch.randperm(16, generator=random).to(torch.uint8),)),
        Case("an odd number of codes", (torch.cat([codes(6), codes(1).clamp(min=1)]),)),
        Case("a single code", (codes(1).clamp(min=1),)),
        Case("a row of a layer", (codes(256),)),
        Case("an odd row", (torch.cat([codes(100), codes(1).clamp(min=1)]),)),
        Case("nothing but the highest code", (torch.full((10,), 15, dtype=torch.uint8),)),
    ]


def two_codes_share_a_byte(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "packed", torch.uint8, expected.shape)


def first_code_is_in_the_low_half(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.equal(got & 15, "low halves", expected & 15)


def second_code_is_in_the_high_half(case: Case, got: Any, expected: Any) -> Finding | None:
    pairs = len(case.args[0]) // 2
    return p.equal(got[:pairs] >> 4, "high halves", expected[:pairs] >> 4)


def spare_half_is_zero(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.equal_bytes(got, "packed", expected)


def _even(codes: Any) -> Any:
    return torch.nn.functional.pad(codes, (0, len(codes) % 2))


@mutant(
    "the halves are swapped: the first code is in the high half. The bytes look fine, and every pair of weights "
    "changes places when somebody else reads them."
)
def swapped_halves(codes):
    codes = _even(codes)
    return codes[0::2] << 4 | codes[1::2]


@mutant("the last code is dropped where their number is odd. It needs a byte, too: ceil(n / 2), not n // 2.")
def odd_code_dropped(codes):
    even = codes[: len(codes) // 2 * 2]
    return even[0::2] | even[1::2] << 4


@mutant(
    "an odd number of codes is filled up with the last code again. The layout wants 0 there, so that equal codes "
    "give equal bytes."
)
def spare_half_repeats(codes):
    if len(codes) % 2:
        codes = torch.cat([codes, codes[-1:]])
    return codes[0::2] | codes[1::2] << 4


@mutant(
    "codes[0::2] and codes[1::2] differ in length where n is odd, so they cannot be combined. Add one code of 0 first."
)
def odd_length_does_not_fit(codes):
    return codes[0::2] | codes[1::2] << 4


@mutant("every code still has a byte of its own. Nothing is saved: 4-bit codes in bytes take as much as 8-bit codes.")
def one_byte_per_code(codes):
    return codes.clone()


@mutant(
    "both codes are combined first and shifted then, (low | high) << 4. Only the high code is shifted: "
    "low | (high << 4), which Python also reads from low | high << 4."
)
def shifted_together(codes):
    codes = _even(codes)
    return (codes[0::2] | codes[1::2]) << 4


@mutant("low + high << 4 adds first and shifts then: + binds more tightly than <<. Write low | high << 4.")
def added_and_shifted(codes):
    codes = _even(codes)
    return codes[0::2] + codes[1::2] << 4


@mutant("the two codes are combined without a shift, so they lie on top of each other.")
def shift_forgotten(codes):
    codes = _even(codes)
    return codes[0::2] | codes[1::2]


@mutant(
    "the first half of the codes is in the low halves and the second half in the high halves. Blocks of llama.cpp "
    "are laid out like that; here neighbours share a byte."
)
def first_and_second_half(codes):
    codes = _even(codes)
    low, high = codes.chunk(2) if len(codes) > 1 else (codes, codes)
    return low | high << 4


@mutant(
    "within every eight codes the order is 0 2 4 6 1 3 5 7, that of AWQ's kernels. Here the codes stay in their order."
)
def order_of_awq(codes):
    words = torch.nn.functional.pad(codes, (0, -len(codes) % 8)).view(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]].flatten()
    return (words[0::2] | words[1::2] << 4)[: -(-len(codes) // 2)]


@mutant("the bytes come in the opposite order, the last pair first. The first pair belongs into the first byte.")
def bytes_from_the_end(codes):
    return pack4(codes).flip(0)


@mutant("the high code is multiplied by 15. Four bits have 16 values, so a shift by 4 is a factor of 16.")
def factor_of_fifteen(codes):
    codes = _even(codes)
    return codes[0::2] + codes[1::2] * 15


@mutant(
    "8 is subtracted from every code, as from a signed one. These codes are unsigned; the offset of 8 belongs to the "
    "zero-point, not to the bytes."
)
def signed_codes(codes):
    codes = _even((codes - 8) & 15)
    return codes[0::2] | codes[1::2] << 4


@mutant("the values are right, but not their type. The result has to be uint8: one byte for two codes.")
def four_bytes_each(codes):
    return pack4(codes).int()


def loop_over_bytes(codes):
    """Right, a byte at a time, in Python's own integers."""
    values = [*codes.tolist(), 0]
    return torch.tensor([values[i] + 16 * values[i + 1] for i in range(0, len(codes), 2)], dtype=torch.uint8)


def one_large_integer(codes):
    """Right, as one number in base 16 whose bytes are read from the low end; an array comes back."""
    import numpy as np

    number = sum(int(code) << 4 * i for i, code in enumerate(codes))
    return np.frombuffer(number.to_bytes(-(-len(codes) // 2), "little"), dtype=np.uint8)


def matrix_of_pairs(codes):
    """Right, as a product of pairs with (1, 16)."""
    packed = torch.zeros(-(-len(codes) // 2) * 2, dtype=torch.int64)
    packed[: len(codes)] = codes.long()
    return (packed.view(-1, 2) @ torch.tensor([1, 16])).to(torch.uint8)


QUESTION = Question(
    id="linear.pack4",
    title="Two codes in a byte",
    reference=pack4,
    cases=cases,
    properties=(
        two_codes_share_a_byte,
        first_code_is_in_the_low_half,
        second_code_is_in_the_high_half,
        spare_half_is_zero,
    ),
    mutants=(
        swapped_halves,
        odd_code_dropped,
        spare_half_repeats,
        odd_length_does_not_fit,
        one_byte_per_code,
        shifted_together,
        added_and_shifted,
        shift_forgotten,
        first_and_second_half,
        order_of_awq,
        bytes_from_the_end,
        factor_of_fifteen,
        signed_codes,
        four_bytes_each,
    ),
    alternatives=(loop_over_bytes, one_large_integer, matrix_of_pairs),
    hints=(
        "Which codes go into the low halves, and which into the high halves? Two slices with a step give you both.",
        "A shift by 4 moves a code into the high half; | puts two halves together. If n is odd, the last code has no "
        "partner: give it one before you take the slices.",
        "If n is odd, append one code of 0 with torch.cat. Then low = codes[0::2], high = codes[1::2], and the bytes "
        "are low | (high << 4). All of it stays uint8: 15 << 4 is 240.",
    ),
    explanation=(
        "A byte has two halves, and an order has to be chosen. Low half first is what GPTQ and compressed-tensors do "
        "in their int32 words: code j of a word starts at bit 4 * j, and on a little-endian machine the bytes of such "
        "a word are exactly these. Others chose otherwise: llama.cpp splits a block in two, AWQ interleaves. The bytes "
        "alone do not tell, so a reader who guesses wrong gets plausible weights in the wrong places."
    ),
)
