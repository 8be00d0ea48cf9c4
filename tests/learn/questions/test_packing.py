"""The packing questions against the library and against the words of checkpoints."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlab.formats import packing
from qlab.learn.judge import examine
from qlab.learn.observe import plain
from qlab.learn.questions import question

PACK4, UNPACK4, PACK3 = (question(f"linear.{name}") for name in ("pack4", "unpack4", "pack3"))


def codes_below(limit: int) -> st.SearchStrategy[torch.Tensor]:
    lists = st.lists(st.integers(0, limit - 1), min_size=1, max_size=70)
    return lists.map(lambda values: torch.tensor(values, dtype=torch.uint8))


@given(codes_below(16))
def test_four_bits_are_those_of_the_library(codes: torch.Tensor) -> None:
    expected = packing.pack(codes[None], bits=4)[0]
    for answer in (PACK4.reference, *PACK4.alternatives):
        assert torch.equal(plain(answer(codes)), expected), answer.__name__
    for answer in (UNPACK4.reference, *UNPACK4.alternatives):
        assert torch.equal(plain(answer(expected, len(codes))), codes), answer.__name__


@given(codes_below(8))
def test_three_bits_are_those_of_the_library(codes: torch.Tensor) -> None:
    expected = packing.pack(codes[None], bits=3)[0]
    for answer in (PACK3.reference, *PACK3.alternatives):
        assert torch.equal(plain(answer(codes)), expected), answer.__name__


def test_the_numbers_of_lesson_02() -> None:
    codes = torch.tensor([3, 15, 0, 9], dtype=torch.uint8)
    assert [f"{byte:08b}" for byte in PACK4.reference(codes).tolist()] == ["11110011", "10010000"]
    assert PACK3.reference(torch.tensor([5, 1, 7, 0, 2, 6, 3, 4], dtype=torch.uint8)).tolist() == [205, 33, 143]


@pytest.mark.parametrize(("one", "bits"), [(PACK4, 4), (PACK3, 3)], ids=["pack4", "pack3"])
def test_words_of_compressed_tensors_have_these_bytes(one, bits: int) -> None:
    """As the explanations say."""
    compressors = pytest.importorskip("compressed_tensors.compressors")
    codes = torch.randint(0, 2**bits, (64,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    signed = (codes.short() - 2 ** (bits - 1)).to(torch.int8)
    words = compressors.pack_to_int32(signed[None], bits)
    assert words.dtype == torch.int32
    assert torch.equal(words.view(torch.uint8).flatten(), one.reference(codes))


def test_the_order_of_awq_is_that_of_its_words() -> None:
    """Nibble i of a word of AWQ holds code 0 2 4 6 1 3 5 7."""
    [mutant] = [mutant for mutant in PACK4.mutants if mutant.name == "order_of_awq"]
    codes = torch.arange(8, dtype=torch.uint8)
    word = sum(code << 4 * i for i, code in enumerate((0, 2, 4, 6, 1, 3, 5, 7)))
    assert mutant.answer(codes).tolist() == list(word.to_bytes(4, "little"))


def test_a_wrong_byte_is_shown_in_bits() -> None:
    [cut] = [mutant for mutant in PACK3.mutants if mutant.name == "border_codes_cut"]
    verdict = examine(PACK3, cut.answer, 0)
    assert verdict.finding is not None and verdict.finding.got is not None and verdict.finding.expected is not None
    assert len(verdict.finding.got) == len(verdict.finding.expected) == 8
    assert set(verdict.finding.got + verdict.finding.expected) <= {"0", "1"}


def test_shifting_floats_is_an_error_and_not_an_empty_function() -> None:
    """torch raises NotImplementedError there, as stubs do."""
    verdict = examine(PACK4, lambda codes: codes[0::2].float() << 4, 0)
    assert verdict.outcome == "error" and "not implemented for 'Float'" in str(verdict)
