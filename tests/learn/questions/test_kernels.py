"""The kernel puzzles: their data, against the library and bitsandbytes, and what their texts claim."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl

from qlab.deploy import roofline
from qlab.formats import activations, affine, codebook
from qlab.kernels import INTERPRETED, configs, planes, weight_only
from qlab.learn import desk, launch
from qlab.learn.execute import read
from qlab.learn.judge import arguments, examine
from qlab.learn.question import Case, Question
from qlab.learn.questions import exercise_set, question
from qlab.learn.questions.kernels import shared

ROOT = Path(__file__).parents[3]
IDS = exercise_set("09").questions
SCALE, UNPACK, INT8, INT4, NF4, TOKENS, GEMV = map(question, IDS)
needs_the_interpreter = pytest.mark.skipif(not INTERPRETED, reason="a compiled kernel does not tell its reads")


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)  # bitsandbytes warns of a kernel that is not needed here


def did(kernel: Any, case: Case) -> dict[str, Any]:
    assert case.launch
    got = launch.run(kernel, case.launch, case.args)
    assert not any(places.numel() for verb in ("reads", "writes") for places in got[verb].values())
    return got


def answers(one: Question) -> tuple[Any, ...]:
    return one.reference, *one.alternatives


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- the examples on the cards ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cards() -> dict[str, str]:
    cells = read(ROOT / "solutions" / "09_triton_dequant.ipynb").cells
    return {cell.id: cell.source for cell in cells}


EXAMPLES: dict[str, Any] = {
    "kernels.scale_rows": [[2, 4, 6, 8, 10], [60, 70, 80, 90, 100], [-11, -12, -13, -14, -15]],
    "kernels.unpack4": [[1, -7, 7, -8, 0], [2, -1, -5, 4, -3]],
    "kernels.dequantize_int8": [[-25, 6.25, 7, 17, 38.75], [-5.9375, 0, -12.5, 1.6875, -14.25]],
    "kernels.dequantize_int4": [[-3.5, 4, 0, 0.5, 0, 2.25], [0, -16, -14, 10, 5, 6]],
    "kernels.dequantize_nf4": [0.9117, -0.9117, 0, 0.0726, 0.4253, -0.4096, 0.5883],
    "kernels.quantize_tokens": [[50, -26, 127, 4, -8, 20], [3, 10, 0, -27, -127, 52]],
    "kernels.gemv_int4": [7, 4.5],
}


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("seed", [0, 5])
def test_the_example_of_the_card_comes_first_and_is_right(name: str, seed: int, cards: dict[str, str]) -> None:
    one = question(name)
    case = one.cases(seed)[0]
    assert case.name == "the example of the card" and case.launch
    got = did(one.reference, case)[case.launch.writes[0]]
    torch.testing.assert_close(got.double(), torch.tensor(EXAMPLES[name]).double(), rtol=0, atol=6e-5)
    text = cards[f"{one.grade_id}-card"]
    assert f"grid is ({', '.join(map(str, case.launch.grid))}{',' * (len(case.launch.grid) == 1)})" in text
    for number in torch.tensor(EXAMPLES[name]).flatten().tolist():
        assert f"{number:g}" in text


def test_bytes_on_the_cards_are_those_of_the_cases(cards: dict[str, str]) -> None:
    for one, rows in ((UNPACK, 2), (INT4, 1), (NF4, 1), (GEMV, 1)):
        packed = shared.argument(one.cases(0)[0], "packed")
        wanted = packed.reshape(-1, packed.shape[-1])[:rows].flatten().tolist()
        shown = re.findall(r"`([0-9A-F]{2})`", cards[f"{one.grade_id}-card"])
        assert list(dict.fromkeys(shown)) == list(dict.fromkeys(f"{byte:02X}" for byte in wanted))


def test_the_launch_that_the_notebook_shows(cards: dict[str, str]) -> None:
    """The example of question 1, as a learner pastes it."""
    [code] = re.findall(r"```python\n(.*?)```", cards["title"], re.DOTALL)
    space: dict[str, Any] = {"torch": torch, "scale_rows": SCALE.reference, "print": lambda y: None}
    if not INTERPRETED:
        code = code.replace("print(y)", "").replace("])", '], device="cuda")').replace("nan)", 'nan, device="cuda")')
    exec(code, space)
    assert space["y"].tolist() == EXAMPLES["kernels.scale_rows"]


def test_arguments_of_a_launch_in_words() -> None:
    words = arguments(GEMV, GEMV.cases(0)[0])
    assert "y: float32 (2,) to be written, out: 2, COLUMNS: 12" in words and words.endswith("grid: (1,)")
    assert "nan" not in words


def test_a_solution_is_a_kernel(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBGRADER_EXECUTION", "1")  # nothing is recorded
    desk.solution("kernels.gemv_int4")
    printed = capsys.readouterr().out
    assert "@triton.jit\ndef gemv_int4(" in printed and "tl.store(y + n" in printed


# --- against the library and bitsandbytes -----------------------------------------------------------------------------


def test_strided_rows_are_those_of_torch() -> None:
    whole = normal(40, 30)
    for view in (whole[3:20, 5:28], whole.T[2:9], whole[::3, ::2], whole[:, 7:8]):
        rows, columns = view.shape
        x = whole.flatten()[view.storage_offset() :]
        s = normal(rows, seed=1)
        case = shared.launched(
            "", (-(-columns // 16), -(-rows // 8)), x=x, s=s, y=shared.unwritten(rows, columns), rows=rows,
            columns=columns, stride_row=view.stride(0), stride_column=view.stride(1), TALL=8, WIDE=16,
        )  # fmt: skip
        for answer in answers(SCALE):
            assert torch.equal(did(answer, case)["y"], view * s[:, None])


def test_high_halves_first_are_those_of_bitsandbytes() -> None:
    w = normal(6, 64)
    weight = codebook.quantize(w, "nf4", 64)
    codes = shared.unwritten(6, 64, dtype=torch.int8)
    packed = weight.packed.view(6, 32)
    functional = pytest.importorskip("bitsandbytes.functional")
    assert torch.equal(functional.quantize_4bit(w, blocksize=64, quant_type="nf4")[0].flatten(), weight.packed)
    case = shared.launched("", (6, 2), ("codes",), packed=packed, codes=codes, columns=64, BLOCK=16)
    for answer in answers(UNPACK):
        assert torch.equal(did(answer, case)["codes"] + 8, weight.codes().to(torch.int8))


def test_int8_is_that_of_the_library() -> None:
    weight = affine.quantize(normal(9, 50) + 0.3, bits=8, group_size="channel", symmetric=False)
    zeros = (weight.zero_points().int() - 128).to(torch.int8).flatten()  # its codes are unsigned
    case = shared.launched(
        "", (2, 9), ("w",), codes=(weight.codes().int() - 128).to(torch.int8), scales=weight.scales.flatten(),
        zeros=zeros, w=shared.unwritten(9, 50, dtype=torch.float16), columns=50, BLOCK=32,
    )  # fmt: skip
    assert len(set(zeros.tolist())) > 1
    for answer in answers(INT8):
        assert torch.equal(did(answer, case)["w"], weight.dequantize(torch.float16))


@pytest.mark.parametrize("group", [32, 16, 96])
def test_int4_is_that_of_the_library(group: int) -> None:
    weight = affine.quantize(normal(11, 96) + 0.3, bits=4, group_size=group, symmetric=False)
    case = shared.launched(
        "", (2, 2), ("w",), packed=weight.packed, scales=weight.scales, zeros=weight.zero_points(),
        w=shared.unwritten(11, 96), out=11, columns=96, group=group, TALL=8, WIDE=64,
    )  # fmt: skip
    for answer in answers(INT4):
        assert torch.equal(did(answer, case)["w"], weight.dequantize(torch.float32))


def test_double_quantization_is_that_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    w = normal(300, 64)  # 300 blocks: a second, short nest
    theirs, state = functional.quantize_4bit(w, blocksize=64, compress_statistics=True, quant_type="nf4")
    second = state.state2
    case = shared.launched(
        "", (-(-w.numel() // 4096),), ("w",), packed=theirs.flatten(), absmax=state.absmax, levels=second.code,
        nested=second.absmax, table=state.code, w=shared.unwritten(w.numel()), count=w.numel(),
        offset=float(state.offset), SIZE=64, NEST=second.blocksize, BLOCK=4096,
    )  # fmt: skip
    decoded = functional.dequantize_4bit(theirs, state).flatten()
    for answer in answers(NF4):
        torch.testing.assert_close(did(answer, case)["w"], decoded, rtol=1e-6, atol=1e-7)


def test_tokens_are_those_of_the_library() -> None:
    x = normal(5, 100) * torch.tensor([1, 1e-4, 30, 0, 1])[:, None]
    codes, scales = activations.quantize(x, activations.Activations())
    for answer in answers(TOKENS):
        block = 16
        case = shared.launched(
            "", (5,), ("codes", "scales"), x=x, codes=shared.unwritten(5, 100, dtype=torch.int8),
            scales=shared.unwritten(5), COLUMNS=100, BLOCK=block,
        )  # fmt: skip
        got = did(answer, case)
        assert torch.equal(got["codes"], codes)
        torch.testing.assert_close(got["scales"][[0, 1, 2, 4]], scales.flatten()[[0, 1, 2, 4]], rtol=1e-6, atol=0)


@needs_the_interpreter
def test_the_product_is_that_of_the_library() -> None:
    weight = affine.quantize(normal(20, 256) + 0.3, bits=4, group_size=32, symmetric=False)
    x = normal(256, seed=1).half()
    case = shared.launched(
        "", (3,), packed=weight.packed, scales=weight.scales, zeros=weight.zero_points(), x=x,
        y=shared.unwritten(20), out=20, COLUMNS=256, GROUP=32, TALL=8, BYTES=64,
    )  # fmt: skip
    theirs = weight_only.linear(x.float()[None], planes.repack(weight))[0][0]
    size = weight.dequantize(torch.float32).abs() @ x.float().abs()
    for answer in answers(GEMV):
        assert bool(((did(answer, case)["y"] - theirs).abs() <= 2e-6 * size).all())


# --- that the cases are what their names say --------------------------------------------------------------------------


@pytest.mark.parametrize("name", IDS)
def test_a_check_is_small(name: str) -> None:
    """In the interpreter the time goes with the programs: three times a dozen mutants and more are run on these."""
    for seed in range(3):
        assert sum(torch.tensor(case.launch.grid).prod().item() for case in question(name).cases(seed)) <= 16


def test_the_long_sums_do_not_overflow_in_float16() -> None:
    """They lose digits: a sum that is infinite would be found by anybody."""
    for seed in range(10):
        case = next(case for case in GEMV.cases(seed) if case.name == "many products of one sign")
        y = did(GEMV.reference, case)["y"]
        assert bool((y > 64).all()) and bool((y < 65504).all())


def test_differences_leave_int8() -> None:
    for case in INT8.cases(0):
        if "ends" in case.name or "card" in case.name:
            difference = shared.argument(case, "codes").int() - shared.argument(case, "zeros").int()[:, None]
            assert difference.max() > 127 and difference.min() < -128


# --- mistakes as learners write them ----------------------------------------------------------------------------------


@triton.jit
def without_other(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    """All masks, and no `other`: what is masked off is anything."""
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        inside = (n < out) & (b < COLUMNS // 2)
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale, zero = tl.load(scales + at, mask=inside).to(tl.float32), tl.load(zeros + at, mask=inside).to(tl.float32)
        even = tl.load(x + 2 * b, mask=b < COLUMNS // 2).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=b < COLUMNS // 2).to(tl.float32)
        total += (((byte & 15).to(tl.float32) - zero) * even + ((byte >> 4).to(tl.float32) - zero) * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@needs_the_interpreter
def test_a_sum_over_masked_loads_without_other_fails() -> None:
    """Triton's own interpreter gives zeros there, and a GPU does not promise them."""
    verdict = examine(GEMV, without_other, 0)
    assert verdict.outcome == "failed" and verdict.broken == "everything_is_written"
    assert verdict.mutant == "loads_without_other"
    assert "NaN: one was read, outside of a tensor, or where a mask is false and the load has no `other`" in (
        " ".join(str(verdict).split())
    )


@triton.jit
def first_block_of_rows(packed, codes, columns, BLOCK: tl.constexpr):
    """The lesson's kernel, low half first and without rows, with the row put in."""
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    count = (columns + 1) // 2
    byte = tl.load(packed + tl.program_id(0) * count + j, mask=j < count, other=0)
    first = codes + tl.program_id(0) * columns
    tl.store(first + 2 * j, (byte & 15).to(tl.int8) - 8, mask=2 * j < columns)
    tl.store(first + 2 * j + 1, (byte >> 4).to(tl.int8) - 8, mask=2 * j + 1 < columns)


@triton.jit
def scale_of_k(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    """Every column has a scale, loaded with the mask of the columns."""
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, mask = tl.program_id(1) * columns, k < columns
    q = tl.load(codes + row + k, mask=mask, other=0).to(tl.float32) - tl.load(zeros + k, mask=mask, other=0)
    tl.store(w + row + k, (q * tl.load(scales + k, mask=mask, other=0)).to(tl.float16), mask=mask)


@triton.jit
def lessons_group(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    """By bytes, as the lesson does, with one scale for each row of the tile."""
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    b = tl.program_id(1) * (WIDE // 2) + tl.arange(0, WIDE // 2)[None, :]
    inside = (n < out) & (b < columns // 2)
    byte = tl.load(packed + n * (columns // 2) + b, mask=inside, other=0)
    at = n * ((columns + group - 1) // group) + tl.program_id(1) * WIDE // group
    scale = tl.load(scales + at, mask=n < out, other=0).to(tl.float32)
    zero = tl.load(zeros + at, mask=n < out, other=0).to(tl.float32)
    tl.store(w + n * columns + 2 * b, ((byte & 15).to(tl.float32) - zero) * scale, mask=inside)
    tl.store(w + n * columns + 2 * b + 1, ((byte >> 4).to(tl.float32) - zero) * scale, mask=inside)


@triton.jit
def converted_too_early(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Rounds toward zero, in other words."""
    at, top = x + tl.program_id(0) * COLUMNS, 0.0
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        top = tl.maximum(top, tl.max(tl.abs(tl.load(at + k, mask=k < COLUMNS, other=0.0)), 0))
    top = tl.where(top == 0, 127.0, top)
    tl.store(scales + tl.program_id(0), top / 127)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        q = tl.load(at + k, mask=k < COLUMNS, other=0.0) * (127 / top)
        tl.store(codes + tl.program_id(0) * COLUMNS + k, q.to(tl.int32).to(tl.int8), mask=k < COLUMNS)


@triton.jit
def axes_1_and_2(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    """Counts the axes of the grid from the wrong end: a third one there is not."""
    r = tl.program_id(2) * TALL + tl.arange(0, TALL)
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    inside = (r < rows)[:, None] & (c < columns)[None, :]
    values = tl.load(x + r[:, None] * stride_row + c[None, :] * stride_column, mask=inside)
    tl.store(y + r[:, None] * columns + c[None, :], values * tl.load(s + r, mask=r < rows)[:, None], mask=inside)


@pytest.mark.parametrize(
    ("one", "kernel", "mutant"),
    [
        (UNPACK, first_block_of_rows, "low_half_first"),
        (INT8, scale_of_k, "scales_by_column"),
        (INT4, lessons_group, "one_group_for_the_tile"),
        (TOKENS, converted_too_early, "cut_off_after_the_reciprocal"),
        (SCALE, axes_1_and_2, "rows_always_the_first"),
    ],
    ids=lambda value: getattr(value, "id", None),
)
def test_mistakes_in_other_words_have_names(one: Question, kernel: Any, mutant: str) -> None:
    verdict = examine(one, kernel, 0)
    assert verdict.outcome == "failed" and verdict.mutant == mutant, verdict


def test_a_kernel_without_jit_is_told_so() -> None:
    verdict = examine(UNPACK, UNPACK.reference.fn, 0)
    assert verdict.outcome == "error" and "write @triton.jit" in str(verdict)


def test_places_outside_are_told_in_words() -> None:
    verdict = examine(UNPACK, next(m.answer for m in UNPACK.mutants if m.name == "spare_half_stored"), 0)
    assert "The kernel writes to 1 place outside of codes, which has 10 elements; the first lies 1 behind its end." in (
        " ".join(str(verdict).split())
    )


# --- which program does what ------------------------------------------------------------------------------------------


@triton.jit
def program_0_does_it_all(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    if tl.program_id(0) + tl.program_id(1) == 0:
        for r in range(rows):
            for c in range(columns):
                tl.store(y + r * columns + c, tl.load(x + r * stride_row + c * stride_column) * tl.load(s + r))


@triton.jit
def each_program_takes_the_row(packed, codes, columns, BLOCK: tl.constexpr):
    row, size = tl.program_id(0), (columns + 1) // 2
    for start in range(0, size, BLOCK):
        j = start + tl.arange(0, BLOCK)
        byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
        place = codes + row * columns + 2 * j
        tl.store(place, (byte >> 4) - 8, mask=2 * j < columns)
        tl.store(place + 1, (byte & 15) - 8, mask=2 * j + 1 < columns)


@needs_the_interpreter
@pytest.mark.parametrize(
    ("one", "kernel", "told"),
    [
        (SCALE, program_0_does_it_all, "element 0, 4 is stored by program (0, 0), and program (1, 0) owns it"),
        (UNPACK, each_program_takes_the_row, "element 0, 0 is stored by several programs, and program (0, 0) owns it"),
    ],
    ids=lambda value: getattr(value, "id", None),
)
def test_right_values_from_the_wrong_program_fail(one: Question, kernel: Any, told: str) -> None:
    verdict = examine(one, kernel, 0)
    assert verdict.outcome == "failed" and verdict.broken == "each_program_stores_its_own"
    assert told in " ".join(str(verdict).split())


@triton.jit
def stores_nothing(packed, codes, columns, BLOCK: tl.constexpr):
    tl.load(packed + tl.program_id(0))


@needs_the_interpreter
def test_a_kernel_that_stores_nothing_is_told_so() -> None:
    assert "Nothing was stored to codes." in str(examine(UNPACK, stores_nothing, 0))


@needs_the_interpreter
def test_a_code_that_overflowed_is_not_called_missing() -> None:
    """127 / 127.5 of the largest magnitude and no clamp: 128, and in int8 -128, as what nobody has written."""
    case = TOKENS.cases(0)[0]
    right = did(TOKENS.reference, case)
    wrong = right | {"codes": torch.where(right["codes"] == 127, -128, right["codes"].int()).to(torch.int8)}
    [found] = [holds for holds in TOKENS.properties if holds(case, wrong, right)]
    assert found.__name__ == "codes_are_nearest"
    compiled = wrong | {"programs": {}}
    finding = TOKENS.properties[1](case, compiled, right)
    assert finding and "-128: not written, or overflowed" in finding.what


@triton.jit
def limited(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Another limit than those of the wrong answers that are known."""
    row, top = tl.program_id(0) * COLUMNS, 0.0
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        top = tl.maximum(top, tl.max(tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)), 0))
    scale = tl.maximum(top, 1e-6) / 127
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


def test_a_lower_limit_is_guessed() -> None:
    verdict = examine(TOKENS, limited, 0)
    assert verdict.outcome == "failed" and verdict.finding and verdict.finding.what.endswith(": a lower limit?")


# --- systems without Triton -------------------------------------------------------------------------------------------

WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
from qlab.learn import check, hint, solution

def unpack4(packed, codes, columns, BLOCK):
    codes[0] = packed[0]

hint("kernels.unpack4", 1)
solution("kernels.unpack4")
check("kernels.unpack4", unpack4)
"""


def test_without_triton_questions_are_read_and_not_attempted(tmp_path: Path) -> None:
    environment = os.environ | {"QLAB_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRITON], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "kernels.unpack4, hint 1 of 3:" in done.stdout and "@triton.jit\ndef unpack4(" in done.stdout
    assert "kernels.unpack4: not attempted\n  Kernels need Triton, which has wheels for Linux only" in done.stdout


# --- for a GPU that is not here ---------------------------------------------------------------------------------------

POINTERS = {torch.float16: "*fp16", torch.float32: "*fp32", torch.int8: "*i8", torch.uint8: "*u8"}


def compile_all() -> None:
    """Compile every right answer for a case, and print the question; needs no GPU, but no interpreter."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    for one in map(question, IDS):
        case = one.cases(0)[1]
        for kernel in answers(one):
            types, constants = {}, {}
            for parameter, value in zip(kernel.params, case.args, strict=True):
                tensor = isinstance(value, torch.Tensor)
                kind = POINTERS[value.dtype] if tensor else "fp32" if isinstance(value, float) else "i32"
                types[parameter.name] = "constexpr" if parameter.is_constexpr else kind
                if parameter.is_constexpr:
                    constants[parameter.name] = value
            compile(ASTSource(kernel, types, constants), target=GPUTarget("cuda", 90, 32))
        print(json.dumps(one.id))


def test_right_answers_compile_for_a_gpu(tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("Triton's wheel for this processor may hold no assembler")
    settings = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, __file__], env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [json.loads(line) for line in done.stdout.splitlines()] == list(IDS)


# --- the numbers of the mark scheme -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def helpers(cards: dict[str, str]) -> dict[str, Any]:
    """What the code of the open question defines."""
    [code] = re.findall(r"```python\n(.*?)```", cards["kernels-defend"], re.DOTALL)
    space: dict[str, Any] = {"print": lambda *values: None}
    exec(code, space)
    return space


def test_the_table_of_bounds_is_what_comes_out(cards: dict[str, str], helpers: dict[str, Any]) -> None:
    for outputs, inputs in ((1024, 4096), (4096, 4096), (8192, 8192)):
        [line] = [one for one in cards["kernels-defend"].splitlines() if one.startswith(f"| {outputs} x {inputs} |")]
        stated = [float(number) for number in re.findall(r"[\d.]+", line)[2:]]
        work = [roofline.product(1, outputs, inputs, bits) for bits in (16, 4.125)]
        times = [helpers["microseconds"](outputs, inputs, bits) for bits in (16, 4.125)]
        assert [bound for _, bound in times] == ["memory", "memory"]
        (wide, _), (narrow, _), issue = *times, helpers["unpacking"](outputs, inputs)
        computed = [w.bytes / 1e6 for w in work]
        computed += [computed[0] / computed[1], wide, narrow, issue, wide / (narrow + issue)]
        assert stated == pytest.approx(computed, rel=5e-3)


def test_what_the_scheme_says_of_causes(cards: dict[str, str], helpers: dict[str, Any]) -> None:
    scheme = cards["kernels-defend"]
    wide, narrow = (helpers["microseconds"](1024, 4096, bits)[0] for bits in (16, 4.125))
    large = [helpers["microseconds"](8192, 8192, bits)[0] for bits in (16, 4.125)]

    def ratio(fixed: float, a: float = wide, b: float = narrow) -> str:
        return f"{(a + fixed) / (b + fixed):.2f}"

    assert f"That is {ratio(1)} for 1 µs, {ratio(2)} for 2 µs, and 1.8 for 1.67 µs." in scheme
    assert ratio(1.67) == "1.80" and f"the same 2 µs would leave {ratio(2, *large)}" in scheme
    chosen = configs.gemv(1024, 4096 // 128, 132)
    assert (1024 // chosen.outputs, chosen.splits) == (32, 4) and 2 * 4 * 4 * 1024 / (1024 * 4096 * 4.125 / 8) < 0.0155
    assert f"{3.88 * 70 / 90:.1f} without anything being wrong" in scheme


def test_what_the_scheme_promises(cards: dict[str, str]) -> None:
    scheme = cards["kernels-defend"]
    query, key, mlp = 4096 * 4096, 1024 * 4096, 14336 * 4096
    layers, head = 32 * (2 * query + 2 * key + 3 * mlp), 128256 * 4096
    assert f"{layers / 1e9:.2f} billion weights in its layers and {head / 1e9:.2f} billion in the head" in scheme
    wide, narrow = 2 * (layers + head), layers * 4.125 / 8 + 2 * head
    assert f"{wide / 1e9:.1f} GB against {narrow / 1e9:.2f} GB a token, {wide / narrow:.2f} times" in scheme
    assert f"hold {100 * 32 * 2 * key / layers:.1f} % of the weights of a layer" in scheme
    limits = roofline.datasheet("H100-80GB")
    assert f"compute-bound from about {limits.ridge() * 4.125 / 16:.0f} tokens on" in scheme
    notes = (ROOT / "qlab" / "kernels" / "NOTES.md").read_text(encoding="utf-8")
    assert "4.6 instructions in the loop for each weight" in notes and "1.5 to 2.5 µs on the GPU" in notes


if __name__ == "__main__":
    compile_all()
