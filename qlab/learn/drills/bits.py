"""Drills on bits per weight: what scales and zero-points add, from either end, and what a card can afford."""

from __future__ import annotations

import random

from qlab.deploy import fits, memory, parse_precision

from .kind import Drill, Kind, short, with_unit
from .subjects import OVERHEAD_GB, UTILIZATION, a, billion, card, gb, gib, model, outside, rules

_LESSON = "02_linear_quantization"
_GROUPS = (16, 32, 64, 128, 256)


def _per_weight(rng: random.Random, level: int) -> Drill:
    if level == 3:
        return _nf4(rng) if rng.random() < 0.2 else _mixed(rng)
    bits, group = rng.randint(2, 8), rng.choice(_GROUPS)
    zeros = level == 2
    how = parse_precision(f"int{bits}-g{group}{'-asym' if zeros else ''}")
    answer = how.bits_per_weight(8, 8 * group)  # eight groups in a row: zero-points end on a whole byte
    extra = f"a 16-bit scale and a zero-point of {bits} bits" if zeros else "a 16-bit scale"
    added = f"(16 + {bits})/{group}" if zeros else f"16/{group}"
    return Drill(
        f"Weights are stored in {bits} bits, with {extra} for every {group} of them. How many bits per weight are "
        "that?",
        answer,
        (
            f"A group holds {group} codes: {group} x {bits} = {group * bits} bits",
            f"What its weights share, divided among them: {added} = {short(answer - bits, 6)} bits for each",
            f"{bits} + {added} = {with_unit(answer, 'bit/weight')}",
        ),
        "bit/weight",
        tolerance=0.005,
        slips={"That is the width of the codes. Scales are stored, too.": bits}
        | ({"You left out the zero-point of each group.": bits + 16 / group} if zeros else {}),
    )


def _nf4(rng: random.Random) -> Drill:
    nested = rng.random() < 0.5
    rows, columns = 4096, rng.choice((4096, 8192, 11008))
    answer = parse_precision("nf4-dq" if nested else "nf4").bits_per_weight(rows, columns)
    if not nested:
        return Drill(
            "NF4 stores 4-bit codes and a 32-bit absmax for every block of 64 weights. How many bits per weight are "
            "that?",
            answer,
            (
                "A block holds 64 codes: 64 x 4 = 256 bits",
                "Its absmax is shared by 64 weights: 32/64 = 0.5 bits for each",
                f"4 + 32/64 = {with_unit(answer, 'bit/weight')}",
            ),
            "bit/weight",
            tolerance=0.005,
            slips={"The absmax has 32 bits, not 16.": 4.25, "That is the width of the codes.": 4.0},
        )
    return Drill(
        "NF4 with double quantization stores 4-bit codes, for every block of 64 weights an absmax in 8 bits, and for "
        "every 256 of these one more scale of 32 bits. How many bits per weight are that, to two decimals?",
        answer,
        (
            "The absmax of a block: 8/64 = 0.125 bits for each weight",
            "The scale of 256 blocks is shared by 256 x 64 = 16,384 weights: 32/16384 = 0.00195 bits",
            f"4 + 8/64 + 32/16384 = {with_unit(answer, 'bit/weight')}",
        ),
        "bit/weight",
        tolerance=0.005,
        slips={"That is without double quantization.": 4.5, "That is the width of the codes.": 4.0},
    )


def _mixed(rng: random.Random) -> Drill:
    """Attention and MLP at different widths."""
    shapes = model(rng)
    wide, narrow, group = rng.choice((6, 8)), rng.choice((3, 4)), rng.choice((32, 64, 128))
    answer = memory(shapes, f"int{narrow}-g{group}", batch=0, attention=f"int{wide}-g{group}").bits_per_weight
    attention = sum(m.parameters for m in shapes.matrices() if m.group == "attention")
    mlp = shapes.linear_parameters - attention
    first, second = wide + 16 / group, narrow + 16 / group
    total = attention * first + mlp * second
    return Drill(
        f"The layers of {shapes.name} have {billion(attention)} weights in attention, stored in {wide} bits, and "
        f"{billion(mlp)} in the MLP, stored in {narrow} bits; everywhere {group} weights share a 16-bit scale. How "
        "many bits per weight are that on average?",
        answer,
        (
            f"Attention: {wide} + 16/{group} = {short(first, 6)} bits, the MLP: {short(second, 6)}",
            f"Attention: {billion(attention)} x {short(first, 6)} = {billion(attention * first)} bits",
            f"The MLP: {billion(mlp)} x {short(second, 6)} = {billion(mlp * second)} bits",
            f"{billion(total)} bits / {billion(attention + mlp)} = {with_unit(answer, 'bit/weight')}",
        ),
        "bit/weight",
        tolerance=0.01,
        slips={"That is the mean of the two widths. The MLP has more weights than attention.": (first + second) / 2},
    )


def _group(rng: random.Random, level: int) -> Drill:
    """The way back: from bits per weight to the group."""
    bits, group = rng.randint(2, 8), rng.choice(_GROUPS)
    zeros = level == 2
    total = parse_precision(f"int{bits}-g{group}{'-asym' if zeros else ''}").bits_per_weight(8, 8 * group)
    shared = 16 + bits * zeros
    extra = f"a 16-bit scale and a zero-point of {bits} bits" if zeros else "a 16-bit scale"
    return Drill(
        f"A checkpoint stores codes of {bits} bits, and for each group {extra}. That comes to {short(total, 7)} bits "
        "per weight. How many weights are in a group?",
        group,
        (
            f"Beyond the codes a weight bears {short(total, 7)} - {bits} = {short(total - bits, 6)} bits",
            f"That is its part of {f'16 + {bits} = {shared}' if zeros else '16'} bits of the whole group",
            f"{shared} / {short(total - bits, 6)} = {with_unit(group, 'weight', whole=True)}",
        ),
        "weight",
        tolerance=0,
        slips={"You left out the zero-point of the group.": 16 / (total - bits)} if zeros else {},
    )


def _checkpoint(rng: random.Random, level: int) -> Drill:
    shapes = model(rng)
    found = memory(shapes, rng.choice(("int4-g128", "int4-g32", "int8-channel", "nf4", "int3-g128-asym")), batch=0)
    told = gb(found.weights) if level == 1 else gib(found.weights)
    into_bytes = (
        f"{gb(found.weights)} = {short(found.weights)} bytes"
        if level == 1
        else f"A GiB is 2^30 bytes: {gib(found.weights)} = {gb(found.weights)}"
    )
    return Drill(
        f"The files of a quantized {shapes.name} take {told}. The model has {billion(shapes.parameters)} parameters. "
        "How many bits for each parameter are that?",
        found.bits_per_parameter,
        (
            into_bytes,
            f"In bits: 8 x {short(found.weights)} = {short(8 * found.weights)}",
            f"{short(8 * found.weights)} / {billion(shapes.parameters)} = "
            f"{with_unit(found.bits_per_parameter, 'bit/parameter')}",
        ),
        "bit/parameter",
    )


def _overhead(rng: random.Random, level: int) -> Drill:
    bits, group = rng.choice((3, 4, 8)), rng.choice((16, 32, 64, 128))
    name = f"int{bits}-g{group}"
    if level == 1:
        total = parse_precision(name).bits_per_weight(1, group)
        share = 100 * (total - bits) / total
        return Drill(
            f"A matrix is stored in {bits} bits, with a 16-bit scale for every {group} weights. How many percent of "
            "its bytes are scales?",
            share,
            (
                f"Scales: 16/{group} = {short(16 / group, 6)} bits for each weight",
                f"All: {bits} + {short(16 / group, 6)} = {short(total, 6)} bits for each weight",
                f"{short(16 / group, 6)} / {short(total, 6)} = {with_unit(share, '%')}",
            ),
            "%",
            slips={"You divided by the codes alone; the question is of all bytes.": 100 * (total - bits) / bits},
        )
    shapes = model(rng)
    found = memory(shapes, name, batch=0)
    count = shapes.linear_parameters
    return Drill(
        f"{shapes.name} has {billion(count)} weights in its layers, stored in {bits} bits with a 16-bit scale for "
        f"every {group} weights. How many GB do the scales alone take?",
        found.scale_overhead / 1e9,
        (
            "The width of the codes does not matter here, only how many groups there are",
            f"Scales: {billion(count)} / {group} = {short(count / group)}",
            f"{short(count / group)} x 2 bytes = {gb(found.scale_overhead)}",
        ),
        "GB",
    )


def _affordable(rng: random.Random, level: int) -> Drill | None:
    """The bits per weight that a card has room for."""
    shapes, where = model(rng), card(rng)
    fit = fits(shapes, where, precision="int4-g128", batch=0)
    rest = fit.breakdown.weights - fit.breakdown.linears
    room = fit.budget + fit.breakdown.weights
    bits = 8 * (room - rest) / shapes.linear_parameters
    if not 1 < bits < 16:
        return None
    told = gb(where.visible_bytes) if level == 1 else gib(where.visible_bytes)
    return Drill(
        f"{shapes.name} has {billion(shapes.linear_parameters)} weights in its layers; {billion(outside(shapes))} "
        f"other parameters stay in 16 bits. On {a(where.name)} {rules(told)}. How many bits per weight may the layers "
        "take at most, without any KV cache?",
        bits,
        (
            *(() if level == 1 else (f"{gib(where.visible_bytes)} = {gb(where.visible_bytes)}",)),
            f"Room: {UTILIZATION} x {gb(where.visible_bytes)} - {OVERHEAD_GB} GB = {gb(room)}",
            f"Embedding and head: {billion(outside(shapes))} x 2 bytes = {gb(rest)}",
            f"For the layers: {gb(room)} - {gb(rest)} = {gb(room - rest)}",
            f"8 x {short((room - rest) / 1e9)} billion / {billion(shapes.linear_parameters)} = "
            f"{with_unit(bits, 'bit/weight')}",
        ),
        "bit/weight",
    )


KINDS = (
    Kind("bits.per_weight", "bits per weight, scales included", _LESSON, _per_weight),
    Kind("bits.group", "the group size behind a number of bits", _LESSON, _group, levels=(1, 2)),
    Kind("bits.checkpoint", "bits per parameter of a checkpoint", "01_memory_math", _checkpoint, levels=(1, 2)),
    Kind("bits.overhead", "what scales take", _LESSON, _overhead, levels=(1, 2)),
    Kind("bits.affordable", "the bits that a card has room for", "01_memory_math", _affordable, levels=(1, 2)),
)
