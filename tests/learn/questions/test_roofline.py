"""Set 10 against what it is about: qlab.deploy.roofline, the bench's estimates, and the numbers in its own text."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest

from qlab.bench.decode import estimate
from qlab.deploy import gpu, memory, parse_precision, spec
from qlab.deploy.roofline import Limits, Work, datasheet, dequantized, product
from qlab.learn.judge import examine
from qlab.learn.questions import all_ids, question
from qlab.learn.questions.memory.configs import drawn, published
from qlab.learn.questions.roofline.break_even import UNPACKED
from qlab.learn.questions.roofline.devices import layer, limits

MASTER = Path(__file__).parents[3] / "solutions" / "10_speed_on_gpu.ipynb"
IDS = [one for one in all_ids() if one.startswith("roofline.")]
GPUS = ("T4", "L4", "A100-80GB", "H100-80GB")

work, bound, ridge_tokens, speedup_limit, break_even, tokens_per_second, believable = (
    question(name).reference for name in IDS
)


def cell(cell_id: str) -> str:
    [found] = [each for each in json.loads(MASTER.read_text(encoding="utf-8"))["cells"] if each["id"] == cell_id]
    return "".join(found["source"])


# --- the references against the library -------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["int4-g128", "int4-g128-asym", "int8-channel", "int3-g48-asym", "bf16"])
def test_work_is_that_of_deploy(precision: str) -> None:
    """Eight groups, and eight of which the last is short: rows end on whole bytes, as the library packs row by row."""
    stored = parse_precision(precision)
    for outputs, inputs in ((96, 8 * (stored.group_size or 120)), (8192, 15 * (stored.group_size or 120) // 2)):
        size = {"group": stored.group_size, "channel": inputs, "none": 0}[stored.scales]
        assert size is not None
        zeros = stored.bits if stored.zero_points else 0
        moved, operations = work(7, outputs, inputs, stored.bits, size, zeros, 8, 16)
        weight = stored.matrix_bytes(outputs, inputs)
        assert weight == outputs * (inputs * stored.bits + (-(-inputs // size) if size else 0) * (16 + zeros)) / 8
        theirs = product(7, outputs, inputs, 8 * weight / (outputs * inputs), x_bits=8)
        assert moved == pytest.approx(theirs.bytes, rel=1e-12) and operations == theirs.operations


@pytest.mark.parametrize("name", GPUS)
def test_bound_is_that_of_deploy(name: str) -> None:
    card = gpu(name)
    rate = card.fp16_tensor_tflops
    assert rate is not None
    for tokens in (1, 16, 150, 4096):
        for bits in (4.125, 8, 16):
            done = product(tokens, 4096, 14336, bits)
            theirs = datasheet(name).time(done)
            for printed, sparse in ((rate, False), (2 * rate, True)):
                seconds, limit = bound(done.bytes, done.operations, card.bandwidth_gb_per_s, printed, sparse)
                assert seconds == pytest.approx(theirs.seconds, rel=1e-12) and limit == theirs.bound


def test_equal_times_are_memory_as_in_deploy() -> None:
    equal = [case for case in question("roofline.bound").cases(5) if "equal times" in case.name]
    assert len(equal) == 3
    for case in equal:
        moved, operations, bandwidth, printed, sparse = case.args
        device = Limits(bandwidth * 1e9, {"fp16": printed * 1e12 / (2 if sparse else 1)})
        assert moved / device.bandwidth == operations / device.rates["fp16"]
        assert bound(*case.args)[1] == device.time(Work(moved, operations)).bound == "memory"


@pytest.mark.parametrize("seed", range(5))
def test_the_ridge_lies_where_deploy_changes_its_word(seed: int) -> None:
    for case in question("roofline.ridge_tokens").cases(seed):
        outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate = case.args
        device = Limits(bandwidth, {"fp16": rate})

        def limit(tokens: int, sizes: Any = (outputs, inputs, weight_bits, x_bits, y_bits), on: Any = device) -> str:
            return on.time(product(tokens, *sizes)).bound

        fewest = ridge_tokens(*case.args)
        if fewest == 0:
            assert [limit(10**power) for power in range(8)] == ["memory"] * 8, case.name
        else:
            assert limit(fewest) == "compute", case.name
            assert fewest == 1 or limit(fewest - 1) == "memory", case.name


@pytest.mark.parametrize("seed", range(3))
def test_speedup_is_that_of_deploy(seed: int) -> None:
    for case in question("roofline.speedup_limit").cases(seed):
        matrices, tokens, weight_bits, bandwidth, rate = case.args
        device = Limits(bandwidth, {"fp16": rate})
        times = [
            sum(device.time(product(tokens, *shape, bits)).seconds for shape in matrices) for bits in (16, weight_bits)
        ]
        assert speedup_limit(*case.args) == pytest.approx(times[0] / times[1], rel=1e-12), case.name


def test_without_unpacking_small_weights_never_lose_and_dequantized_first_they_always_do() -> None:
    device = datasheet("A100-80GB")
    free = (8192, 8192, 4.125, 64, math.inf, device.bandwidth, device.rates["fp16"], 2000)
    assert break_even(*free) == 0
    for tokens in (1, 16, 256, 4096):
        plain = device.time(product(tokens, 8192, 8192)).seconds
        assert device.time(dequantized(8192, 8192, 4.125)).seconds + plain > plain
        assert device.time(product(tokens, 8192, 8192, 4.125)).seconds <= plain


@pytest.mark.parametrize("seed", range(3))
def test_break_even_is_where_the_times_of_deploy_cross(seed: int) -> None:
    for case in question("roofline.break_even").cases(seed):
        outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most = case.args
        device, once = Limits(bandwidth, {"fp16": rate}), outputs * inputs / unpack_rate
        slower = []
        for tokens in range(1, most + 1):
            small, plain = (product(tokens, outputs, inputs, bits) for bits in (weight_bits, 16))
            busy = small.operations / rate + -(-tokens // block) * once
            if max(small.bytes / bandwidth, busy) > device.time(plain).seconds:
                slower.append(tokens)
        assert break_even(*case.args) == (slower[0] if slower else 0), case.name


@pytest.mark.parametrize("bits", [4.125, 8, 16])
@pytest.mark.parametrize("name", ["Llama-3-8B", "Llama-3-70B", "Llama-2-7B", "SmolLM2-135M"])
def test_tokens_per_second_are_those_of_the_bench(name: str, bits: float) -> None:
    """The bench puts a step together from measured seconds; here it gets those of the roofline."""
    model = spec(name)
    for card in ("A100-80GB", "T4"):
        device = datasheet(card)
        for batch, context in ((1, 3000), (64, 500), (300, 100)):
            seconds = {
                (kernel, rows, columns, batch, "float16"): device.time(product(batch, rows, columns, width)).seconds
                for kernel, width, shapes in (
                    ("small", bits, [(m.rows, m.columns) for m in model.matrices()]),
                    ("dense", 16, [model.embedding_shape]),
                )
                for rows, columns in shapes
            }
            theirs = estimate(model, "small", "float16", batch, context, seconds, device.bandwidth)
            assert theirs is not None
            ours = tokens_per_second(published(name), bits, batch, context, *limits(card))
            assert ours == pytest.approx(theirs.tokens_per_s, rel=1e-12)


def test_the_step_reads_what_the_memory_of_deploy_holds() -> None:
    """With one request and nothing but memory: all weights once, but for the embedding and the norms, and the cache."""
    held = memory("Llama-3-70B", "int4-g128", batch=1, context=4096)
    device = (1e12, 1e30)
    step = 1 / tokens_per_second(published("Llama-3-70B"), 4.125, 1, 4096, *device)
    activations = sum(m.copies * 2 * (m.rows + m.columns) for m in spec("Llama-3-70B").matrices())
    activations += 2 * sum(spec("Llama-3-70B").embedding_shape)
    assert step * 1e12 == pytest.approx(held.linears + held.head + held.kv_cache + activations, rel=1e-12)


def test_believable_is_the_part_of_the_nearer_ceiling() -> None:
    for case in question("roofline.believable").cases(4):
        measurements, bandwidth, rate, slack = case.args
        device = Limits(bandwidth, {"fp16": rate})
        least = [device.time(Work(moved, done)).seconds for moved, done, _ in measurements]
        fractions, impossible = believable(*case.args)
        assert fractions == pytest.approx([a / m[2] for a, m in zip(least, measurements, strict=True)], rel=1e-12)
        assert impossible == [i for i, m in enumerate(measurements) if least[i] / m[2] > 1 + slack]


# --- nothing is decided by the rounding of floats ---------------------------------------------------------------------


def ridge_by_intensity(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    def above(tokens):
        bits = outputs * inputs * weight_bits + tokens * (inputs * x_bits + outputs * y_bits)
        return 2 * tokens * outputs * inputs / (bits / 8) > rate / bandwidth

    if not above(2.0**80):
        return 0
    high = 1
    while not above(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if above(middle) else (middle, high)
    return high


def ridge_in_microseconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    weight = 1e6 * (outputs * inputs * (weight_bits / 8) / bandwidth)
    token = 1e6 * ((inputs * (x_bits / 8) + outputs * (y_bits / 8)) / bandwidth)
    compute = 1e6 * (2 * outputs * inputs / rate)
    return 0 if compute - token <= 0 else int(weight // (compute - token)) + 1


def lost_in_ticks(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    w = outputs * inputs
    for m in range(1, most + 1):
        xy = 2 * m * inputs + 2 * m * outputs
        busy = 2 * m * w / (rate / bandwidth) + math.ceil(m / block) * w / (unpack_rate / bandwidth)
        if max(w * weight_bits / 8 + xy, busy) > max(2 * w + xy, 2 * m * w / (rate / bandwidth)):
            return m
    return 0


def lost_in_milliseconds(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    for m in range(1, most + 1):
        compute = m * inputs * outputs * 2 / rate * 1e3
        unpack = (m + block - 1) // block * (inputs * outputs / unpack_rate * 1e3)
        xy = (m * inputs + m * outputs) * 2 / bandwidth * 1e3
        read16, read = inputs * outputs * 2 / bandwidth * 1e3, inputs * outputs / 8 * weight_bits / bandwidth * 1e3
        if max(read + xy, compute + unpack) - max(read16 + xy, compute) > 0:
            return m
    return 0


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("ridge_tokens", (ridge_by_intensity, ridge_in_microseconds)),
        ("break_even", (lost_in_ticks, lost_in_milliseconds)),
    ],
)
def test_no_whole_number_is_decided_by_a_hair(name: str, answers: tuple[Callable[..., Any], ...]) -> None:
    """Between floats and exact fractions, and in any unit, no case may fall to the other side."""
    asked = question(f"roofline.{name}")
    for seed in range(30):
        for answer in (asked.reference, *asked.alternatives, *answers):
            verdict = examine(asked, answer, seed)
            assert verdict.passed, f"{answer.__name__}, seed {seed}: {verdict}"


@pytest.mark.parametrize("seed", range(20))
def test_ties_are_exact_and_everything_else_is_far_from_one(seed: int) -> None:
    for case in question("roofline.ridge_tokens").cases(seed):
        outputs, inputs, *bits = (Fraction(one) for one in case.args[:5])
        ridge = Fraction(case.args[6]) / Fraction(case.args[5])
        gain = 2 * outputs * inputs / ridge - (inputs * bits[1] + outputs * bits[2]) / 8
        if gain == 0 or case.name in ("the example of the card", "equal times with a whole number of tokens"):
            assert gain == 0 or (outputs * inputs * bits[0] / 8 / gain).denominator == 1, case.name
        elif gain > 0:
            crossing = outputs * inputs * bits[0] / 8 / gain
            assert abs(crossing - round(crossing)) > 1e-3, case.name
        else:
            assert -gain > outputs * inputs * Fraction(1, 10**6) / ridge, case.name
    for case in question("roofline.believable").cases(seed):
        fractions, _ = believable(*case.args)
        for fraction in fractions:
            assert case.name == "exactly at the slack" or abs(fraction - 1 - case.args[3]) > 1e-3, case.name


@pytest.mark.parametrize("seed", range(20))
def test_kernels_that_tie_do_so_one_token_before_they_lose(seed: int) -> None:
    ties = [case for case in question("roofline.break_even").cases(seed) if case.name.startswith("equal times")]
    for case in (*ties, *question("roofline.break_even").cases(seed)[:1]):
        outputs, inputs, _, block, unpack_rate, bandwidth, rate, _ = case.args
        tokens = break_even(*case.args) - 1
        plain = (2 * outputs * inputs + 2 * tokens * (outputs + inputs)) / Fraction(bandwidth)
        busy = Fraction(2 * tokens * outputs * inputs) / Fraction(rate)
        busy += -(-tokens // block) * outputs * inputs / Fraction(unpack_rate)
        assert tokens > 0 and plain == busy, case.name


def test_within_a_block_a_kernel_catches_up() -> None:
    [case] = [one for one in question("roofline.break_even").cases(3) if "fast at the end" in one.name]
    *rest, most = case.args
    alone = [break_even(*rest, tokens) == tokens for tokens in range(1, most + 1)]
    assert break_even(*case.args) == 17 and alone.index(True) == 16

    def slower(tokens: int) -> bool:
        outputs, inputs, bits, block, unpack_rate, bandwidth, rate = rest
        xy, busy = 2 * tokens * (outputs + inputs), 2 * tokens * outputs * inputs / rate
        small = max(
            (outputs * inputs * bits / 8 + xy) / bandwidth, busy + -(-tokens // block) * outputs * inputs / unpack_rate
        )
        return small > max((2 * outputs * inputs + xy) / bandwidth, busy)

    assert slower(17) and not slower(32)


# --- natural answers --------------------------------------------------------------------------------------------------


def test_other_forms_of_right_answers_pass() -> None:
    import numpy as np

    def as_arrays(measurements, bandwidth, rate, slack):
        m = np.array(measurements)
        fractions = np.maximum(m[:, 0] / bandwidth, m[:, 1] / rate) / m[:, 2]
        return fractions, np.flatnonzero(fractions > 1 + slack)

    def in_float32(matrices, tokens, weight_bits, bandwidth, rate):
        n, k = np.array(matrices, dtype=np.float32).T
        times = [
            np.maximum((n * k * bits + tokens * (n + k) * 16) / 8 / bandwidth, 2 * tokens * n * k / rate).sum()
            for bits in (16, weight_bits)
        ]
        return times[0] / times[1]

    assert examine(question("roofline.believable"), as_arrays, 0).passed
    assert examine(question("roofline.speedup_limit"), in_float32, 0).passed


def slack_as_a_divisor(measurements, bandwidth, rate, slack):
    fractions = [max(moved / bandwidth, done / rate) / seconds for moved, done, seconds in measurements]
    return fractions, [i for i, fraction in enumerate(fractions) if fraction > 1 / (1 - slack)]


def looks_at(numbers: Callable[[int, int], range], hidden: bool = True) -> Callable[..., int]:
    def lost(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
        for tokens in numbers(block, most):
            xy, operations = 2 * tokens * (inputs + outputs), 2 * tokens * outputs * inputs / rate
            busy = operations + math.ceil(tokens / block) * outputs * inputs / unpack_rate
            read = (outputs * inputs * weight_bits / 8 + xy) / bandwidth
            small = max(read, busy) if hidden else read + busy
            if small > max((2 * outputs * inputs + xy) / bandwidth, operations):
                return tokens
        return 0

    return lost


def square_attention(config, weight_bits, batch, context, bandwidth, rate):
    hidden, mlp, layers = (config[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    keys = config["num_key_value_heads"] * (hidden // config["num_attention_heads"])
    shapes = [(hidden, hidden), (keys, hidden)] * 2 + [(mlp, hidden)] * 2 + [(hidden, mlp)]

    def seconds(n, k, bits):
        return max((n * k * bits / 8 + 2 * batch * (n + k)) / bandwidth, 2 * batch * n * k / rate)

    step = layers * sum(seconds(*shape, weight_bits) for shape in shapes) + seconds(config["vocab_size"], hidden, 16)
    return batch / (step + 4 * layers * keys * context * batch / bandwidth)


def min_for_max(moved, operations, bandwidth, rate, with_sparsity):
    memory, compute = moved / (bandwidth * 1e9), operations / (rate * 1e12 / (2 if with_sparsity else 1))
    return min(memory, compute), "memory" if memory >= compute else "compute"


def counted(zeros: Callable[[int], int], rounded: Callable[[float], float] = lambda moved: moved) -> Callable[..., Any]:
    def natural(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
        groups = math.ceil(inputs / group_size) if group_size else 0
        weight = outputs * inputs * bits + outputs * groups * (16 + zeros(zero_bits))
        moved = (weight + tokens * inputs * x_bits + tokens * outputs * y_bits) / 8
        return rounded(moved), 2 * tokens * outputs * inputs

    return natural


@pytest.mark.parametrize(
    ("name", "answer", "named"),
    [
        ("work", counted(lambda zero_bits: zero_bits and 16), "zero_points_like_scales"),
        ("work", counted(lambda zero_bits: 16), "always_a_zero_point"),
        ("work", counted(lambda zero_bits: zero_bits, math.ceil), "bytes_rounded_up"),
        ("bound", min_for_max, "the_shorter_time_beside_the_limit"),
        ("break_even", looks_at(lambda block, most: range(block, most + 1, block)), "only_full_blocks"),
        ("break_even", looks_at(lambda block, most: range(1, most + 1, block)), "only_starts_of_blocks"),
        ("break_even", looks_at(lambda block, most: range(1, most + 1), hidden=False), "bytes_not_hidden"),
        ("decode_tokens_per_second", square_attention, "square_attention"),
        ("believable", slack_as_a_divisor, "slack_of_the_measurement"),
        ("ridge_tokens", lambda n, k, w, x, y, b, r: math.ceil(r / b), "ridge_of_the_device"),
        ("ridge_tokens", lambda n, k, w, x, y, b, r: int(r / b * w / 16) + 1, "activations_forgotten"),
        ("speedup_limit", lambda matrices, m, bits, b, r: 16 / bits, "quotient_of_bits"),
        ("bound", lambda moved, done, b, r, s: (moved / (b * 1e9), "memory"), "memory_alone"),
        ("bound", lambda moved, done, b, r, s: max(moved / b / 1e9, (1 + s) * done / r / 1e12), "time_alone"),
    ],
)
def test_natural_mistakes_are_named(name: str, answer: Callable[..., Any], named: str) -> None:
    assert examine(question(f"roofline.{name}"), answer, 0).mutant == named


def test_a_search_that_waits_for_the_ridge_is_warned_of() -> None:
    """On a matrix with few outputs it would run for ever: the card says so, and the first hint ends its loop."""
    never = [case for case in question("roofline.ridge_tokens").cases(0) if ridge_tokens(*case.args) == 0]
    assert len(never) > 2 and "few outputs" in never[0].name
    assert "never ends" in cell("roofline-ridge_tokens-card")
    hint = question("roofline.ridge_tokens").hints[0]
    assert "range(1, 100_000)" in hint and "return 0" in hint
    for seed in range(50):
        assert all(ridge_tokens(*case.args) < 100_000 for case in question("roofline.ridge_tokens").cases(seed))


def test_words_are_told_apart() -> None:
    def capital(*arguments):
        seconds, limit = bound(*arguments)
        return seconds, limit.capitalize()

    verdict = str(examine(question("roofline.bound"), capital, 0))
    assert 'the limit must be "memory" or "compute"' in verdict.replace("The", "the") and "'Memory'" in verdict


# --- what the notebook says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IDS)
def test_the_first_case_is_the_example_of_the_card(name: str) -> None:
    """Who fails can work it out by hand."""
    asked = question(name)
    examples = [case for case in asked.cases(7) if case.name.startswith("the example of the card")]
    assert examples and examples == asked.cases(8)[: len(examples)] == asked.cases(0)[: len(examples)]


def test_the_cards_compute_by_hand_what_the_references_compute() -> None:
    first = {name: [c.args for c in question(name).cases(0) if c.name.startswith("the example")] for name in IDS}
    said = cell("roofline-work-card")
    assert work(*first["roofline.work"][0]) == (104, 240) and "832 bits, **104**" in said and "= **240**" in said
    assert f"makes {240 / 104:.1f} operations per byte" in said
    for args in first["roofline.bound"]:
        seconds, limit = bound(*args)
        assert f"| {args[1]:,} | {seconds if limit == 'compute' else args[1] / 64e12:g} s |" in cell(
            "roofline-bound-card"
        )
        assert f'({seconds:g}, "{limit}")' in cell("roofline-bound-card")
    assert [ridge_tokens(*args) for args in first["roofline.ridge_tokens"]] == [9, 0]
    assert "answer is **9**" in cell("roofline-ridge_tokens-card") and "is **0**" in cell("roofline-ridge_tokens-card")
    ticks = Limits(1.0, {"fp16": 16.0})
    for tokens in (1, 8, 9):
        done = product(tokens, 64, 64, 4)
        row = f"| {tokens} | {done.bytes:,.0f} | {done.operations / 16:,.0f} | {ticks.time(done).bound}"
        assert row in cell("roofline-ridge_tokens-card")
    said = cell("roofline-speedup_limit-card")
    sums = [0.0, 0.0]
    for outputs in (64, 32):
        times = [ticks.time(product(10, outputs, 64, bits)).seconds for bits in (16, 4)]
        assert f"| {times[0]:,.0f} | {times[1]:,.0f} |" in said
        sums = [a + b for a, b in zip(sums, times, strict=True)]
    quotient = speedup_limit(*first["roofline.speedup_limit"][0])
    assert f"{sums[0]:,.0f} / {sums[1]:,.0f} = **{quotient:.3f}**" in said
    assert [break_even(*args) for args in first["roofline.break_even"]] == [21, 0]
    for tokens in (8, 16, 20, 21):
        plain, small = (product(tokens, 64, 64, bits) for bits in (16, 4))
        blocks, operations = -(-tokens // 8), plain.operations / 16
        row = f"| {tokens} | {plain.bytes:,.0f} | {operations:,.0f} | {small.bytes:,.0f} | "
        row += f"{operations:,.0f} + {blocks} · 1,024 = {operations + blocks * 1024:,.0f} |"
        assert row in cell("roofline-break_even-card")
    step = tokens_per_second(*first["roofline.decode_tokens_per_second"][0])
    assert f"**{step:,.3f}** tokens per second" in cell("roofline-decode_tokens_per_second-card")
    assert 2 / step * 2**20 == 8000
    fractions, impossible = believable(*first["roofline.believable"][0])
    shown = ", ".join(f"{one:.4f}".rstrip("0") for one in fractions)
    assert f"([{shown}], {impossible})" in cell("roofline-believable-card")


def test_the_data_sheets_in_the_title_are_those_of_the_data() -> None:
    for name in GPUS:
        card = gpu(name)
        row = f"| {name} | {card.bandwidth_gb_per_s:,} | {card.fp16_tensor_tflops} | {card.int8_tensor_tops:,} |"
        assert row in cell("title")
    rate = UNPACKED["H100-80GB"]
    assert f"unpacks {rate / 1e12:.1f} · 10¹² weights per second" in cell("roofline-break_even-card")


def test_points_and_minutes_in_the_title() -> None:
    rows = re.findall(r"^\| (\d) \| (.+?) \| (\d+) \| (\d+) \|$", cell("title"), re.MULTILINE)
    cells = {each["id"]: each for each in json.loads(MASTER.read_text(encoding="utf-8"))["cells"]}
    assert len(rows) == len(IDS) + 1
    for (number, title, minutes, points), name in zip(rows, [*IDS, "roofline.defend"], strict=True):
        grade_id = name.replace(".", "-")
        card = cell("roofline-defend" if name == "roofline.defend" else f"{grade_id}-card")
        assert f"## {number}. {title.partition(' (')[0]}" in card and f"| **Minutes** | {minutes} |" in card
        assert cells[grade_id]["metadata"]["nbgrader"]["points"] == int(points)
    together = [str(sum(int(row[column]) for row in rows)) for column in (2, 3)]
    assert f"| together | {' | '.join(together)} |" in cell("title")


@pytest.mark.parametrize("name", IDS)
def test_what_learners_start_from_is_narrow(name: str) -> None:
    """JupyterLab cuts longer lines off."""
    reference = question(name).reference
    assert max(map(len, inspect.getsource(reference).splitlines())) <= 100
    assert max(map(len, (reference.__doc__ or "").splitlines())) <= 92


def test_the_explanations_state_computed_numbers() -> None:
    a100, h100 = limits("A100-80GB"), limits("H100-80GB")
    intensities = [product(tokens, 8192, 28672).intensity for tokens in (1, 4096)]
    assert f"has {intensities[0]:.1f} operations per byte, and 4,096 tokens have {intensities[1]:,.0f}" in explanation(
        "work"
    )
    done = product(400, 28672, 8192)
    times = [done.bytes / h100[0], done.operations / h100[1]]
    assert times[1] / 2 < times[0] < times[1] and 2 * gpu("H100-80GB").fp16_tensor_tflops == pytest.approx(
        1979, abs=0.5
    )
    assert f"arithmetic takes {times[1] / times[0]:.1f} times as long" in explanation("bound")
    ridge = a100[1] / a100[0]
    assert f"tokens: {ridge:.0f} at 16 bits on an A100, and {ridge * 4.125 / 16:.0f} at 4.125" in explanation(
        "ridge_tokens"
    )
    down = [ridge_tokens(4096, 14336, bits, 16, 16, *a100) for bits in (16, 4.125)]
    assert f"needs {down[0]} and {down[1]}" in explanation("ridge_tokens")
    assert ridge_tokens(16, 4096, 16, 16, 16, *a100) == 0
    gains = [speedup_limit(layer("Llama-3-8B"), tokens, 4.125, *a100) for tokens in (1, 64, 4096)]
    assert f"{gains[0]:.2f} with one token, {gains[1]:.2f} with 64, {gains[2]:g} with 4,096" in explanation(
        "speedup_limit"
    )
    lost = break_even(8192, 8192, 4.125, 64, UNPACKED["A100-80GB"], *a100, 1000)
    assert f"slower from {lost} tokens on" in explanation("break_even")
    assert f"own ridge, at {ridge_tokens(8192, 8192, 16, 16, 16, *a100)}." in explanation("break_even")
    for bits in (3, 8):
        assert break_even(8192, 8192, bits, 64, UNPACKED["A100-80GB"], *a100, 1000) == lost
    for batch, text in (
        (1, "one request {:.0f} tokens per second at 16 bits and {:.0f} at 4.125, {:.2f} times"),
        (64, "64 requests {:,.0f} and {:,.0f}, {:.2f} times"),
    ):
        wide, small = (tokens_per_second(published("Llama-3-8B"), b, batch, 2048, *a100) for b in (16, 4.125))
        assert text.format(wide, small, small / wide) in explanation("decode_tokens_per_second")
    assert f"{product(1, 4096, 4096, 4.125).bytes / 1e6:.1f} MB" in explanation("believable")


def explanation(name: str) -> str:
    return question(f"roofline.{name}").explanation


# --- what the open question says --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task() -> str:
    return cell("roofline-defend")


def test_the_open_question_gives_what_the_data_say(task: str) -> None:
    [code] = re.findall(r"```python\n(.*?)```", task, re.DOTALL)
    given: dict[str, Any] = {}
    exec(code, given)
    assert given["llama"] == published("Llama-3-8B") and tuple(given["layer"]) == layer("Llama-3-8B")
    assert (given["bandwidth"], given["rate"]) == limits("A100-80GB")
    assert (given["bandwidth"], given["int8_rate"]) == limits("A100-80GB", "int8")
    assert given["unpack_rate"] == pytest.approx(UNPACKED["A100-80GB"], rel=1e-3)


def test_the_mark_scheme_is_computed(task: str) -> None:
    scheme = task.partition("### BEGIN MARK SCHEME")[2]
    model, device, batch, prompt, new = spec("Llama-3-8B"), datasheet("A100-80GB"), 64, 2048, 128
    head = device.time(product(batch, *model.embedding_shape)).seconds
    cache = 2 * model.kv_values_per_token * (prompt + new // 2) * batch / device.bandwidth

    def layers(tokens: int, bits: float, x_bits: int, rate: str) -> float:
        parts = ((m.copies, product(tokens, m.rows, m.columns, bits, x_bits)) for m in model.matrices())
        return sum(copies * device.time(done, rate).seconds for copies, done in parts)

    found = {}
    for name, recipe in {
        "FP16": (16, 16, "fp16"),
        "INT4, groups of 128": (4.125, 16, "fp16"),
        "W8A8": (8, 8, "int8"),
    }.items():
        prefill, step = layers(batch * prompt, *recipe) + head, layers(batch, *recipe) + head + cache
        found[name] = prefill, step, prefill + new * step
        row = f"| {name} | {prefill:.2f} | {1e3 * step:.1f} | {new * step:.2f} | {prefill + new * step:.2f} |"
        assert row in scheme
    plain, small, integers = found.values()
    assert small[0] == plain[0]
    assert f"Prefill is {plain[0] / plain[2]:.0%}".replace("%", " %") in scheme
    assert f"gains in decoding is {plain[1] / small[1]:.2f} times" in scheme and head + cache > plain[1] / 2
    assert f"head ({1e3 * head:.1f} ms) and the cache ({1e3 * cache:.1f} ms)" in scheme
    assert (
        f"Together **{plain[2] / small[2]:.2f}** times" in scheme
        and f"{plain[2] / small[2]:.2f} times as fast" in scheme
    )
    once = model.linear_parameters / UNPACKED["A100-80GB"]
    blocks = batch * prompt // 128
    assert f"{blocks:,} times, at {1e3 * once:.2f} ms each: **{blocks * once:.2f} s**" in scheme
    assert f"one block a step, {new * once:.2f} s" in scheme
    assert layers(batch, 4.125, 16, "fp16") == pytest.approx(2 * batch * model.linear_parameters / device.rates["fp16"])
    total = small[2] + (blocks + new) * once
    assert f"INT4 takes {total:.2f} s, {total / plain[2]:.2f} times as long" in scheme
    assert f"the report has {10.9 / 9.6:.2f}" in scheme and "FP16 takes 9.6 s" in task and "takes 10.9 s" in task
    first = sum(m.copies * device.time(dequantized(m.rows, m.columns, 4.125)).seconds for m in model.matrices())
    assert f"{1e3 * first:.1f} ms for the layers" in scheme and f"64 times, {64 * first:.2f} s" in scheme
    scores = 4 * model.layers * model.attention_heads * model.head_dim * prompt**2 / 2 * batch
    assert f"about {scores / device.rates['fp16']:.2f} s for either" in scheme

    wide, narrow = product(1, 4096, 4096), product(1, 4096, 4096, 4.125)
    times = [1e6 * device.time(done).seconds for done in (wide, narrow)]
    assert f"{narrow.bytes / 1e6:.1f} MB in 4.125 bits and at least {times[1]:.2f} µs" in scheme
    assert f"{wide.bytes / 1e6:.1f} MB in 16 bits and at least {times[0]:.1f} µs" in scheme
    fractions, impossible = believable(
        ((narrow.bytes, narrow.operations, 2.6e-6), (wide.bytes, wide.operations, 20e-6)), *limits("A100-80GB"), 0.02
    )
    assert f"is {fractions[0]:.2f} times the ceiling; 20 µs is {fractions[1]:.2f} of it" in scheme and impossible == [0]
    assert f"{20 / 2.6:.1f} times as fast" in task and f"{times[0] / times[1]:.2f} is the limit" in scheme

    assert f"a bound of {integers[2]:.2f} s and so {plain[2] / integers[2]:.2f} times as fast" in scheme
    assert f"{small[2]:.2f} s at best and {memory('Llama-3-8B', 'int4-g128').linears / 1e9:.1f} GB more" in scheme
    rates = {
        n: [tokens_per_second(published("Llama-3-8B"), bits, n, prompt, *limits("A100-80GB")) for bits in (16, 4.125)]
        for n in (1, 16)
    }
    one, many = rates[1], rates[16]
    assert f"{one[1]:.0f} against {one[0]:.0f} tokens per second, {one[1] / one[0]:.1f} times" in scheme
    assert f"16 requests {many[1] / many[0]:.2f} times" in scheme
    held = memory("Llama-3-8B", "bf16", batch=batch, context=prompt + new).total
    assert f"{held / 1e9:.1f} GB in 16 bits" in scheme


def test_drawn_models_have_heads_wider_than_their_hidden_size() -> None:
    """Else the head size computed from it would be right by chance."""
    for seed in range(50):
        config = drawn(Random(seed), 6, 2)
        assert config["num_attention_heads"] * config["head_dim"] != config["hidden_size"]
