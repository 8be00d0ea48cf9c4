"""linear.pack3: 3-bit codes in one stream of bits, lowest bit first."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant


def pack3(codes):
    """Pack 3-bit codes into one stream of bits, without gaps.

    codes: uint8 (n,), every code below 8; n is 1 or more.

    Code j takes the bits 3 * j to 3 * j + 2 of the stream, its lowest bit first.

    Returns uint8 (ceil(3 * n / 8),): byte k holds the bits 8 * k to 8 * k + 7 of the
    stream, the first of them as its lowest. Bits left over in the last byte are 0.
    """
    bits = codes[:, None] >> torch.arange(3) & 1  # (n, 3)
    stream = torch.nn.functional.pad(bits.flatten(), (0, -bits.numel() % 8)).view(-1, 8)  # (bytes, 8)
    return (stream << torch.arange(8)).sum(dim=1).to(torch.uint8)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def codes(count: int) -> tuple[torch.Tensor]:
        drawn = torch.randint(0, 8, (count,), generator=random, dtype=torch.uint8)
        drawn[-1] = drawn[-1] | 4  # the last bit of the stream is not a 0 that nobody would miss
        return (drawn,)

    return [
        Case("eight codes in three bytes", (torch.randperm(8, generator=random).to(torch.uint8),)),
        Case("two codes in one byte", codes(2)),
        Case("three codes, the third across two bytes", codes(3)),
        Case("a single code", codes(1)),
        Case("six codes", codes(6)),
        Case("a row of a layer", codes(256)),
        Case("a row that is no multiple of eight", codes(101)),
        Case("nothing but the highest code", (torch.full((16,), 7, dtype=torch.uint8),)),
    ]


def three_bits_per_code(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "packed", torch.uint8, expected.shape)


def first_two_codes_in_place(case: Case, got: Any, expected: Any) -> Finding | None:
    """The six bits that need no thought about borders: which end of the byte and of the code comes first."""
    return p.equal_bytes(got[:1] & 63, "the first six bits of the first byte", expected[:1] & 63)


def codes_in_one_stream(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.equal_bytes(got, "packed", expected)


def _octets(bits: Any) -> Any:
    """A stream of bits (bits,) cut into bytes, the first bit lowest."""
    stream = torch.nn.functional.pad(bits, (0, -bits.numel() % 8)).view(-1, 8)
    return (stream << torch.arange(8)).sum(dim=1).to(torch.uint8)


@mutant(
    "the stream is written from the highest bit on, as people write numbers. Here the first code starts at the lowest "
    "bit of the first byte."
)
def highest_bit_first(codes):
    import numpy as np

    bits = (codes[:, None] >> torch.tensor([2, 1, 0]) & 1).numpy()
    return np.packbits(bits.flatten().astype("uint8"))


@mutant("the bytes are filled from the low end, but every code is turned round: its highest bit comes first.")
def codes_turned_round(codes):
    return _octets((codes[:, None] >> torch.tensor([2, 1, 0]) & 1).flatten())


@mutant("every code takes four bits, one of them always 0: a 3-bit model as large as a 4-bit model.")
def slots_of_four_bits(codes):
    codes = torch.nn.functional.pad(codes, (0, len(codes) % 2))
    return codes[0::2] | codes[1::2] << 4


@mutant(
    "every byte holds two codes and leaves two bits empty, because a third code does not fit. It may lie across "
    "two bytes."
)
def two_codes_per_byte(codes):
    codes = torch.nn.functional.pad(codes, (0, len(codes) % 2))
    return codes[0::2] | codes[1::2] << 3


@mutant("every code still has a byte of its own. Nothing is saved.")
def one_byte_per_code(codes):
    return codes.clone()


@mutant(
    "eight codes make a 24-bit word, and its three bytes are stored from the highest to the lowest. The lowest "
    "comes first."
)
def bytes_of_a_word_turned_round(codes):
    packed = pack3(codes)
    whole = torch.nn.functional.pad(packed, (0, -len(packed) % 3)).view(-1, 3)
    return whole.flip(1).flatten()[: len(packed)]


@mutant(
    "what does not fit is lost: the third and the sixth of eight codes lie across two bytes, and the part that belongs "
    "into the second byte was shifted out of the first."
)
def border_codes_cut(codes):
    packed = torch.zeros(-(-3 * len(codes) // 8), dtype=torch.uint8)
    for j, code in enumerate(codes):
        packed[3 * j // 8] |= code << 3 * j % 8
    return packed


@mutant(
    "the codes are shifted as uint8, so every bit past the eighth is lost and only the first byte is filled. Convert "
    "them to a wider type, or to Python's int, before the shift."
)
def shifted_in_uint8(codes):
    stream = sum(code << 3 * j if 3 * j < 8 else code & 0 for j, code in enumerate(codes))
    return torch.nn.functional.pad(stream[None], (0, -(-3 * len(codes) // 8) - 1))


@mutant(
    "the stream is one int64, which has room for 21 codes; the codes after them are lost. Use Python's int, which "
    "grows, or a tensor of bits."
)
def one_int64(codes):
    packed = pack3(codes[:22])[:8]  # 64 bits: 21 codes, and a bit of the next
    return torch.nn.functional.pad(packed, (0, -(-3 * len(codes) // 8) - len(packed)))


@mutant("three bytes come back, always. That is right for eight codes; n codes need ceil(3 * n / 8) bytes.")
def three_bytes_always(codes):
    return torch.nn.functional.pad(pack3(codes), (0, 3))[:3]


@mutant("eight codes share an int32 word, of which a quarter is empty. The result is bytes, and all of them are full.")
def words_of_32_bits(codes):
    eights = torch.nn.functional.pad(codes, (0, -len(codes) % 8)).view(-1, 8).int()
    return (eights << torch.arange(0, 24, 3)).sum(dim=1).int()


@mutant(
    "ten codes share a 32-bit word and two bits of it stay empty, 3.2 bits per code. The stream has no gaps: 32 codes "
    "fill three words."
)
def ten_codes_per_word(codes):
    tens = torch.nn.functional.pad(codes, (0, -len(codes) % 10)).view(-1, 10).long()
    words = (tens << torch.arange(0, 30, 3)).sum(dim=1)
    return (words[:, None] >> torch.arange(0, 32, 8) & 255).flatten().to(torch.uint8)


@mutant("only whole groups of eight codes are packed; the codes after the last whole group are dropped.")
def last_codes_dropped(codes):
    return pack3(codes[: len(codes) // 8 * 8])


@mutant(
    "the codes are filled up to a multiple of eight, and the bytes of the filling are kept. n codes need "
    "ceil(3 * n / 8) bytes."
)
def filling_kept(codes):
    return pack3(torch.nn.functional.pad(codes, (0, -len(codes) % 8)))


@mutant("the number of bytes is rounded down, 3 * n // 8, so the last bits of the stream are gone.")
def last_byte_dropped(codes):
    return pack3(codes)[: 3 * len(codes) // 8]


@mutant("only two bits of every code are kept. Three bits need a mask of 7, not of 3.")
def two_bits_kept(codes):
    return pack3(codes & 3)


@mutant(
    "all lowest bits come first, then all middle bits, then all highest bits. The three bits of a code are neighbours."
)
def planes_of_bits(codes):
    return _octets((codes[:, None] >> torch.arange(3) & 1).T.flatten())


@mutant("the values are right, but not their type. The result has to be uint8.")
def eight_bytes_each(codes):
    return pack3(codes).long()


def one_large_integer(codes):
    """Right, as one number whose bytes are read from the low end."""
    stream = sum(int(code) << 3 * j for j, code in enumerate(codes))
    return torch.tensor(list(stream.to_bytes(-(-3 * len(codes) // 8), "little")), dtype=torch.uint8)


def words_of_24_bits(codes):
    """Right, eight codes at a time: a word of 24 bits, cut into three bytes, and the filling cut off."""
    eights = torch.nn.functional.pad(codes.int(), (0, -len(codes) % 8)).view(-1, 8)
    words = sum(eights[:, j] << 3 * j for j in range(8))
    packed = torch.stack([words & 255, words >> 8 & 255, words >> 16], dim=1).flatten()
    return packed[: (3 * len(codes) + 7) // 8].to(torch.uint8)


def bits_in_numpy(codes):
    """Right, by numpy's own functions for bits, as an array."""
    import numpy as np

    bits = np.unpackbits(codes.numpy()[:, None], axis=1, count=3, bitorder="little")
    return np.packbits(bits.reshape(-1), bitorder="little")


def a_buffer_of_bits(codes):
    """Right, as a writer of files would do it: collect bits, and hand out a byte whenever there are eight."""
    packed, buffer, filled = [], 0, 0
    for code in codes.tolist():
        buffer |= code << filled
        filled += 3
        while filled >= 8:
            packed.append(buffer & 255)
            buffer >>= 8
            filled -= 8
    if filled:
        packed.append(buffer)
    return torch.tensor(packed, dtype=torch.uint8)


QUESTION = Question(
    id="linear.pack3",
    title="Three bits do not divide eight",
    reference=pack3,
    cases=cases,
    properties=(three_bits_per_code, first_two_codes_in_place, codes_in_one_stream),
    mutants=(
        highest_bit_first,
        codes_turned_round,
        slots_of_four_bits,
        two_codes_per_byte,
        one_byte_per_code,
        bytes_of_a_word_turned_round,
        border_codes_cut,
        shifted_in_uint8,
        one_int64,
        three_bytes_always,
        words_of_32_bits,
        ten_codes_per_word,
        last_codes_dropped,
        filling_kept,
        last_byte_dropped,
        two_bits_kept,
        planes_of_bits,
        eight_bytes_each,
    ),
    alternatives=(one_large_integer, words_of_24_bits, bits_in_numpy, a_buffer_of_bits),
    hints=(
        "Forget the bytes for a moment and write all bits into one long row. At which position does code j begin? "
        "Only then cut the row into bytes.",
        "Bit i of code j is code >> i & 1, and it is bit 3 * j + i of the stream. Bit m of the stream has the value "
        "2^(m % 8) in byte m // 8. Fill the stream up with zeros to a multiple of 8.",
        "codes[:, None] >> torch.arange(3) & 1 is a matrix (n, 3). Flatten it, pad it with zeros to a multiple of 8, "
        "view it as (bytes, 8), shift its columns by torch.arange(8), and sum each row; then convert to uint8.",
    ),
    explanation=(
        "A stream has no room for exceptions: the third and the sixth of eight codes lie across two bytes, and the "
        "formula does not care. 3 bits per code are 3 bits per code, not 4 (slots of half a byte) and not 3.2 (ten in "
        "a 32-bit word). The shift by torch.arange makes int64, so no bit is lost on the way; in uint8 a shift drops "
        "what leaves the byte, without a word. Newer versions of compressed-tensors write the same stream into int32 "
        "words, which on a little-endian machine have these very bytes."
    ),
)
