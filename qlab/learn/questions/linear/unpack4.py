"""linear.unpack4: the inverse of linear.pack4."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant


def unpack4(packed, n):
    """Take 4-bit codes out of bytes that hold two each, the first of the two in the low half.

    packed: uint8 (ceil(n / 2),).
    n: how many codes there are, 1 or more, odd or even.

    Returns uint8 (n,), every code below 16.
    """
    low, high = packed & 15, packed >> 4
    return torch.stack([low, high], dim=1).flatten()[:n]


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def packed(n: int) -> tuple[torch.Tensor, int]:
        octets = torch.randint(0, 256, (-(-n // 2),), generator=random, dtype=torch.uint8)
        octets[0] |= 0x90  # a high half that a signed shift would spoil
        if n % 2:
            octets[-1] = octets[-1] & 15 | 1  # the spare half is 0, the last code is not
        return octets, n

    return [
        Case("one byte, two codes", packed(2)),
        Case("an even number of codes", packed(16)),
        Case("an odd number of codes", packed(7)),
        Case("a single code", packed(1)),
        Case("a row of a layer", packed(256)),
        Case("an odd row", packed(101)),
        Case("nothing but the highest code", (torch.full((5,), 255, dtype=torch.uint8), 10)),
    ]


def as_many_codes_as_asked(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "codes", torch.uint8, expected.shape)


def codes_have_four_bits(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.codes_between(got, "codes", 0, 15)


def low_half_comes_first(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.equal(got[0::2], "codes 0, 2, 4, ... from the low halves", expected[0::2])


def high_half_comes_second(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.equal(got[1::2], "codes 1, 3, 5, ... from the high halves", expected[1::2])


def _interleave(low: Any, high: Any, n: int) -> Any:
    return torch.stack([low, high], dim=1).flatten()[:n]


@mutant("the high half is read first. In this layout the first code of a byte is in the low half.")
def swapped_halves(packed, n):
    return _interleave(packed >> 4, packed & 15, n)


@mutant(
    "the argument n is not used, so an odd number of codes comes back with one too many: the spare half is not a code."
)
def n_ignored(packed, n):
    return _interleave(packed & 15, packed >> 4, 2 * len(packed))


@mutant("an odd number of codes comes back with one too few. The last byte still holds one code.")
def last_code_lost(packed, n):
    return unpack4(packed, n // 2 * 2)


@mutant("the low half is not masked: the byte as a whole is taken for the first code. & 15 keeps its four low bits.")
def low_half_not_masked(packed, n):
    return _interleave(packed, packed >> 4, n)


@mutant("the high half is masked but not shifted down, so it comes back 16 times too large.")
def high_half_not_shifted(packed, n):
    return _interleave(packed & 15, packed & 0xF0, n)


@mutant(
    "the bytes are shifted as signed numbers, so a high half of 8 or more drags ones in from the left. Shift them as "
    "uint8, or mask the result with 15."
)
def sign_extended(packed, n):
    return _interleave(packed & 15, (packed.view(torch.int8) >> 4).view(torch.uint8), n)


@mutant("all low halves come first and all high halves after them. The two codes of a byte are neighbours.")
def all_low_halves_first(packed, n):
    return torch.cat([packed & 15, packed >> 4])[:n]


@mutant("only the low halves are read, each of them twice. The second code of a byte is in the high half.")
def low_half_twice(packed, n):
    return _interleave(packed & 15, packed & 15, n)


@mutant("the mask is 7, which keeps three bits. Four bits need 15.")
def mask_of_three_bits(packed, n):
    return _interleave(packed & 7, packed >> 4 & 7, n)


@mutant("the high half is shifted down by 3, which leaves a bit of the low half in it.")
def shift_by_three(packed, n):
    return _interleave(packed & 15, packed >> 3 & 15, n)


@mutant("the bytes themselves come back. Every byte holds two codes.")
def bytes_for_codes(packed, n):
    return packed[:n].clone()


@mutant("the codes come back from the last to the first.")
def from_the_end(packed, n):
    return unpack4(packed, n).flip(0)


@mutant("the codes come back as signed numbers from -8 to 7. The bytes hold unsigned codes from 0 to 15.")
def signed_codes(packed, n):
    codes = unpack4(packed, n).to(torch.int8)
    return torch.where(codes > 7, codes - 16, codes)


@mutant("the codes are right, but not their type. They are uint8.")
def eight_bytes_each(packed, n):
    return unpack4(packed, n).long()


def loop_over_codes(packed, n):
    """Right, code by code, by division and remainder."""
    octets = packed.tolist()
    return torch.tensor([octets[i // 2] // 16 ** (i % 2) % 16 for i in range(n)], dtype=torch.uint8)


def fill_every_second(packed, n):
    """Right, by writing into an empty tensor; the high half is what is left without the low one."""
    codes = torch.zeros(2 * packed.numel(), dtype=torch.uint8)
    codes[0::2] = packed % 16
    codes[1::2] = (packed - packed % 16) // 16
    return codes[:n].clone()


def bits_in_numpy(packed, n):
    """Right, by way of single bits, as an array."""
    import numpy as np

    bits = np.unpackbits(packed.numpy(), bitorder="little").reshape(-1, 4)
    return np.packbits(bits, axis=1, bitorder="little")[:n, 0]


QUESTION = Question(
    id="linear.unpack4",
    title="And back again",
    reference=unpack4,
    cases=cases,
    properties=(
        as_many_codes_as_asked,
        codes_have_four_bits,
        low_half_comes_first,
        high_half_comes_second,
    ),
    mutants=(
        swapped_halves,
        n_ignored,
        last_code_lost,
        low_half_not_masked,
        high_half_not_shifted,
        sign_extended,
        all_low_halves_first,
        low_half_twice,
        mask_of_three_bits,
        shift_by_three,
        bytes_for_codes,
        from_the_end,
        signed_codes,
        eight_bytes_each,
    ),
    alternatives=(loop_over_codes, fill_every_second, bits_in_numpy),
    hints=(
        "Every byte gives two codes. What has to be done to a byte to see only its low half, and what to see only its "
        "high half?",
        "byte & 15 is the low half, byte >> 4 the high one. They have to alternate in the result, and where n is odd, "
        "the last high half is no code.",
        "low = packed & 15; high = packed >> 4; torch.stack([low, high], dim=1) puts the two of a byte next to each "
        "other; flatten it and keep the first n.",
    ),
    explanation=(
        "The bytes do not know how many codes they hold: 3 codes and 4 codes both take 2 bytes. So the shape is stored "
        "beside them, and n is an argument. The shift is safe without a mask because uint8 is unsigned. The int32 "
        "words of checkpoints are signed, and there the topmost code needs the mask: a shift to the right fills up "
        "with the sign."
    ),
)
