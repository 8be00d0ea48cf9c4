"""The codebook questions against bitsandbytes and the library, the numbers that their texts print, and near misses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlab.formats import codebook
from qlab.learn.judge import examine
from qlab.learn.observe import plain
from qlab.learn.questions import question
from qlab.learn.questions.codebook import tables

NAMES = ("nearest", "blockwise", "nf4_levels", "pack_high_first", "dequantize", "bits_per_weight", "double_quant")
NEAREST, BLOCKWISE, LEVELS, PACK, DEQUANTIZE, BITS, DOUBLE = (question(f"codebook.{name}") for name in NAMES)
SHAPES = [(4, 64), (3, 50), (5, 77), (1, 1), (16, 160), (1, 63)]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def answers(asked: Any) -> list[Any]:
    """The reference and the alternatives, as the judge sees what they return."""
    return [lambda *args, answer=answer: plain(answer(*args)) for answer in (asked.reference, *asked.alternatives)]


def mutant(asked: Any, name: str) -> Any:
    [found] = [each for each in asked.mutants if each.name == name]
    return found.answer


def absmax_of_normal_weights() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four million normal weights, their values in blocks of 64, and the absmax."""
    w = normal(4096, 1024)
    return w, *BLOCKWISE.reference(w, 64)


# --- against bitsandbytes and the library -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bitsandbytes() -> Any:
    return pytest.importorskip("bitsandbytes.functional")


def test_the_tables_are_those_of_bitsandbytes(bitsandbytes: Any) -> None:
    for name, table in (("nf4", tables.NF4), ("fp4", tables.FP4)):
        assert torch.equal(table, bitsandbytes.get_4bit_type(name, device="cpu"))
        assert torch.equal(table, codebook.CODES[name])
    torch.testing.assert_close(tables.dynamic_map(), bitsandbytes.create_dynamic_map(), rtol=0, atol=1e-7)


def test_levels_from_quantiles_are_nf4(bitsandbytes: Any) -> None:
    nf4 = bitsandbytes.get_4bit_type("nf4", device="cpu")
    for answer in answers(LEVELS):
        torch.testing.assert_close(torch.as_tensor(answer(4, 0.9677083)), nf4, rtol=0, atol=2e-7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("block_size", [32, 64])
def test_blocks_codes_and_bytes_are_those_of_bitsandbytes(
    bitsandbytes: Any, shape: tuple[int, int], block_size: int
) -> None:
    w = normal(*shape, seed=sum(shape))
    packed, state = bitsandbytes.quantize_4bit(w, blocksize=block_size, quant_type="nf4")
    for normalize in answers(BLOCKWISE):
        values, absmax = normalize(w, block_size)
        assert torch.equal(absmax, state.absmax)
        for nearest, pack in zip(answers(NEAREST), [*answers(PACK), PACK.reference], strict=True):
            assert torch.equal(pack(nearest(values, tables.NF4), 7), packed.flatten())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("data_type", ["nf4", "fp4"])
def test_weights_are_those_of_bitsandbytes(bitsandbytes: Any, shape: tuple[int, int], data_type: str) -> None:
    packed, state = bitsandbytes.quantize_4bit(normal(*shape), blocksize=32, quant_type=data_type)
    expected = bitsandbytes.dequantize_4bit(packed, state)
    table = {"nf4": tables.NF4, "fp4": tables.FP4}[data_type]
    for answer in answers(DEQUANTIZE):
        got = answer(packed.flatten(), state.absmax, table, shape, 32)
        torch.testing.assert_close(got, expected.view(shape), rtol=1e-6, atol=0)


@pytest.mark.parametrize("blocks", [1, 100, 256, 700])
def test_absmax_in_8_bits_are_those_of_bitsandbytes_or_nearer(bitsandbytes: Any, blocks: int) -> None:
    w = normal(blocks, 64)
    _, state = bitsandbytes.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=True)
    absmax = w.abs().amax(dim=1)
    table = state.state2.code
    for answer in answers(DOUBLE):
        codes, scales, offset = answer(absmax, table)
        assert math.isclose(float(offset), state.offset.item(), rel_tol=1e-6)
        torch.testing.assert_close(scales, state.state2.absmax, rtol=1e-6, atol=1e-7)
        if blocks == 1:  # the scale is 0: bitsandbytes takes code 0, and every code stands for the offset
            assert codes.tolist() == [127]
            continue
        # It rounds to one of 65536 points first, and so takes a neighbor now and then.
        apart = (codes.int() - state.absmax.int()).abs()
        assert apart.max() <= 1 and (apart > 0).float().mean() < 0.01
        each = scales.repeat_interleave(256)[:blocks]
        ours, theirs = ((table[c.long()] * each + offset - absmax).abs() for c in (codes, state.absmax))
        assert (ours <= theirs + 1e-6).all()


@pytest.mark.parametrize("shape", [*SHAPES, (130, 131)])
@pytest.mark.parametrize("double_quant", [False, True])
def test_bits_are_the_bytes_that_are_held(bitsandbytes: Any, shape: tuple[int, int], double_quant: bool) -> None:
    packed, state = bitsandbytes.quantize_4bit(
        normal(*shape), blocksize=64, quant_type="nf4", compress_statistics=double_quant
    )
    held = [packed, state.absmax, *([state.state2.absmax, state.offset] if double_quant else [])]
    expected = 8 * sum(tensor.nbytes for tensor in held) / math.prod(shape)
    for answer in answers(BITS):
        assert math.isclose(answer(*shape, 64, double_quant), expected, rel_tol=1e-12)
    assert codebook.quantize(normal(*shape), "nf4", 64, double_quant).bits_per_weight == pytest.approx(expected)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.integers(0, 2**32))
def test_there_and_back_is_the_library(rows: int, columns: int, block_size: int, seed: int) -> None:
    w = normal(rows, columns, seed=seed)
    values, absmax = BLOCKWISE.reference(w, block_size)
    packed = PACK.reference(NEAREST.reference(values, tables.NF4), 7)
    theirs = codebook.quantize(w, "nf4", block_size)
    back = DEQUANTIZE.reference(packed, absmax, tables.NF4, (rows, columns), block_size)
    # Division and multiplication by the reciprocal may fall on two sides of a border; both are nearest.
    bound = tables.spread((absmax * 0.152).double(), block_size, w.shape)
    assert ((back - w).abs() <= bound).all()
    torch.testing.assert_close((back - w).abs(), (theirs.dequantize() - w).abs(), rtol=1e-4, atol=1e-6)


# --- what the cards and the explanations say --------------------------------------------------------------------------


def test_the_values_of_the_card_on_nearest() -> None:
    x = torch.tensor([0.29, -0.30, 0.04, 0.5, -0.86, 1.0])
    assert NEAREST.reference(x, tables.NF4).tolist() == [10, 4, 8, 12, 0, 15]
    assert torch.round((x + 1) * 7.5).tolist() == [10, 5, 8, 11, 1, 15]
    borders = (tables.NF4[:-1] + tables.NF4[1:]) / 2
    printed = [0.0398, 0.1203, 0.2035, 0.2920, 0.3893, 0.5017, 0.6428, 0.8615]
    assert [round(border, 4) for border in borders[7:].tolist()] == printed
    gaps = tables.NF4.diff()
    assert round(gaps[7].item(), 2) == 0.08 and round(gaps[-1].item(), 2) == 0.28  # the message on even grids
    assert round(gaps.max().item() / 2, 3) == round(gaps[0].item() / 2, 3) == 0.152


def test_the_rows_of_the_card_on_blocks() -> None:
    w = torch.tensor([[0.2, -0.8, 0.4, 0.1], [0.6, 0.3, -0.1, 0], [0.05, 0.2, -0.4, 0.1]])
    values, absmax = BLOCKWISE.reference(w, 5)
    torch.testing.assert_close(absmax, torch.tensor([0.8, 0.3, 0.4]))
    expected = [0.25, -1, 0.5, 0.125, 0.75, 1, -0.333, 0, 0.167, 0.667, -1, 0.25]
    assert [round(value, 3) for value in values.flatten().tolist()] == expected


def test_the_levels_of_the_card() -> None:
    expected = [-1, -0.568, -0.266, 0, 0.198, 0.409, 0.657, 1]
    assert [round(level, 3) for level in LEVELS.reference(3, 0.9).tolist()] == expected


def test_the_bytes_of_the_card_and_their_weights() -> None:
    packed = PACK.reference(torch.tensor([[12, 3, 15]], dtype=torch.uint8), 7)
    assert packed.tolist() == [195, 247] == [0xC3, 0xF7]
    weights = DEQUANTIZE.reference(packed, torch.tensor([0.5, 0.2]), tables.NF4, (1, 3), 2)
    assert [round(weight, 4) for weight in weights[0].tolist()] == [0.2204, -0.1975, 0.2]
    printed = [0, 0.0052, 0.6667, 1, 0.3333, 0.5, 0.1667, 0.25]
    assert [round(level, 4) for level in tables.FP4.tolist()] == [*printed, *(-level for level in printed)]


def test_the_bits_of_the_card_and_of_the_explanation() -> None:
    assert BITS.reference(10, 15, 64, False) == 4.64 and round(BITS.reference(10, 15, 64, True), 3) == 4.587
    assert BITS.reference(4096, 14336, 64, False) == 4.5 and round(BITS.reference(4096, 14336, 64, True), 3) == 4.127


def test_the_absmax_of_the_card() -> None:
    table, absmax = tables.even_map(), torch.tensor([0.1, 0.2, 0.3, 0.6])
    codes, scales, offset = DOUBLE.reference(absmax, table)
    assert codes.tolist() == [43, 85, 128, 255] and round(offset, 6) == round(scales.item(), 6) == 0.3
    assert [round(level, 4) for level in table[codes.long()].tolist()] == [-0.6641, -0.3359, 0, 1]
    back = table[codes.long()] * scales + offset
    assert [round(value, 4) for value in back.tolist()] == [0.1008, 0.1992, 0.3, 0.6]


def test_what_the_explanation_says_of_the_table_without_zero() -> None:
    w, values, absmax = absmax_of_normal_weights()
    popular = mutant(LEVELS, "middles_of_equal_areas")(4, 0.9677083)
    assert round(popular.abs().min().item(), 3) == 0.042
    for table, error in ((tables.NF4, 0.0728), (popular, 0.0725)):
        back = table[NEAREST.reference(values, table).long()] * tables.spread(absmax, 64, w.shape)
        assert round((back - w).abs().mean().item(), 4) == error
    assert round(absmax.mean().item(), 1) == 2.6
    used = torch.bincount(NEAREST.reference(values, tables.NF4).flatten().int(), minlength=16) / w.numel()
    assert round(used[0].item(), 2) == round(used[15].item(), 2) == 0.02 and round(used[7].item(), 2) == 0.09
    assert math.isclose((1 - 1 / 30 + 1 - 1 / 32) / 2, 0.9677083, abs_tol=1e-7)


def test_what_the_explanation_says_of_the_offset() -> None:
    w, values, absmax = absmax_of_normal_weights()
    assert round((absmax.mean() / absmax.std()).item()) == 6
    levels = tables.NF4[NEAREST.reference(values, tables.NF4).long()]

    def measured(answer: Any, table: torch.Tensor, digits: int = 2) -> tuple[int, float, float]:
        """How many levels are used, the mean error of an absmax, and the error of the weights, both in per cent."""
        codes, scales, offset = answer(absmax, table)
        back = table[codes.long()] * scales.repeat_interleave(256)[: len(absmax)] + offset
        weights = levels * tables.spread(back, 64, w.shape)
        return (
            len(codes.unique()),
            round(100 * ((back - absmax).abs() / absmax).mean().item(), digits),
            round(100 * ((weights - w).norm() / w.norm()).item(), 2),
        )

    plain_error = levels * tables.spread(absmax, 64, w.shape) - w
    assert round(100 * (plain_error.norm() / w.norm()).item(), 2) == 9.2
    assert measured(DOUBLE.reference, tables.dynamic_map()) == (245, 0.16, 9.2)
    assert measured(mutant(DOUBLE, "without_an_offset"), tables.dynamic_map(), 1)[:2] == (52, 0.6)
    assert measured(DOUBLE.reference, tables.even_map())[1] == 0.12


# --- near misses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_either_code_is_right_halfway_between_two_levels(seed: int) -> None:
    def upper(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return torch.searchsorted((table[:-1] + table[1:]) / 2, x, right=True).to(torch.uint8)

    [ties] = [case for case in NEAREST.cases(seed) if case.name == "halfway between two levels"]
    assert not torch.equal(upper(*ties.args), NEAREST.reference(*ties.args))
    assert examine(NEAREST, upper, seed).passed


@pytest.mark.parametrize("floor", [1e-5, 1e-8, 1e-12, 1e-30])
def test_a_floor_under_the_absmax_fails(floor: float) -> None:
    def blocks(w: torch.Tensor, block_size: int) -> Any:
        parts = w.flatten().split(block_size)
        absmax = torch.stack([part.abs().max() for part in parts]).clamp(min=floor)
        return w / tables.spread(absmax, block_size, w.shape), absmax

    def maxima(absmax: torch.Tensor, table: torch.Tensor) -> Any:
        codes, scales, offset = DOUBLE.reference(absmax, table)
        return codes, scales.clamp(min=floor), offset

    for asked, answer in ((BLOCKWISE, blocks), (DOUBLE, maxima)):
        for seed in range(3):
            verdict = examine(asked, answer, seed)
            if floor > 1e-30:
                assert verdict.outcome == "failed" and verdict.finding is not None, verdict
            else:  # next to nothing may stand for 0, as in the short last block of bitsandbytes
                assert verdict.passed, verdict


@pytest.mark.parametrize("seed", range(3))
def test_variants_of_a_mistake_are_told_the_same(seed: int) -> None:
    """Learners do not write the catalogued lines, and are understood all the same."""

    def table_into_bucketize(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return torch.bucketize(x, table).to(torch.uint8)

    def scipys_quantiles_in_one_run(bits: int, outermost: float) -> torch.Tensor:
        levels = torch.special.ndtri(torch.linspace(1 - outermost, outermost, 2**bits))
        return levels / levels.abs().max()

    def low_half_first_by_numbers(codes: torch.Tensor, zero_code: int) -> torch.Tensor:
        row = [*codes.flatten().tolist(), zero_code]
        pairs = zip(row[0 : codes.numel() : 2], row[1::2], strict=True)
        return torch.tensor([first + 16 * second for first, second in pairs], dtype=torch.uint8)

    def deviation_by_torch(w: torch.Tensor, block_size: int) -> Any:
        parts = w.flatten().split(block_size)
        deviation = torch.stack([part.pow(2).mean().sub(part.mean() ** 2).sqrt() for part in parts])
        return w / tables.spread(torch.where(deviation > 0, deviation, 1.0), block_size, w.shape), deviation

    def scales_by_unsqueeze(packed: Any, absmax: Any, table: Any, shape: Any, block_size: int) -> Any:
        codes = torch.stack([packed >> 4, packed & 15], dim=-1).reshape(-1)[: math.prod(shape)]
        return (table[codes.long()].reshape(-1, block_size) * absmax.unsqueeze(-1)).reshape(shape)

    for asked, answer, expected in (
        (NEAREST, table_into_bucketize, "next_level_up"),
        (LEVELS, scipys_quantiles_in_one_run, "one_run_of_quantiles"),
        (PACK, low_half_first_by_numbers, "low_half_first"),
        (BLOCKWISE, deviation_by_torch, "standard_deviation"),
        (DEQUANTIZE, scales_by_unsqueeze, "only_full_blocks"),
    ):
        assert examine(asked, answer, seed).mutant == expected


def test_a_wrong_code_is_shown_with_its_level_and_its_value() -> None:
    verdict = examine(NEAREST, mutant(NEAREST, "even_grid"), 0)
    assert verdict.finding is not None and verdict.case == "the values of the card"
    assert verdict.finding.index == (3,)
    assert verdict.finding.expected == "12, the level 0.4407, for the value 0.5"
    assert verdict.finding.got == "11, the level 0.3379"
    assert "Error: 0.1621 between value and level; at most 0.0593 is allowed." in str(verdict)
