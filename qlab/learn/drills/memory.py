"""Drills on the size of weights: parameters, bytes at some precision, GB and GiB, what stays in 16 bits."""

from __future__ import annotations

import random

from qlab.deploy import fits, memory, parse_precision

from ..quantities import parse
from .kind import Drill, Kind, short, with_unit
from .subjects import UTILIZATION, a, billion, card, gb, gib, mb, model, outside

_LESSON = "01_memory_math"


def _weights(rng: random.Random, level: int) -> Drill:
    shapes = model(rng)
    if level == 1:
        name = rng.choice(("fp32", "bf16", "int8", "int4"))
        bits = parse_precision(name).bits
        whole = memory(shapes, name, batch=0, embeddings=name).weights
        return Drill(
            f"{shapes.name} has {billion(shapes.parameters)} parameters. Suppose that each of them takes {bits} bits, "
            "and nothing else is stored. How many GB are the weights?",
            whole / 1e9,
            (
                f"A parameter of {bits} bits is {bits} bits / 8 = {short(bits / 8)} bytes",
                f"{billion(shapes.parameters)} x {short(bits / 8)} bytes = {short(whole)} bytes",
                f"1 GB is 10^9 bytes: {short(whole)} bytes = {gb(whole)}",
            ),
            "GB",
        )
    bits, group = rng.choice(((4, 32), (4, 64), (4, 128), (3, 64), (3, 128), (8, 32), (8, 64)))
    zeros = level == 3
    name = f"int{bits}-g{group}{'-asym' if zeros else ''}"
    found = memory(shapes, name, batch=0)
    rest = found.weights - found.linears
    per_weight = bits + (16 + bits * zeros) / group
    shared = f"a 16-bit scale and a zero-point of {bits} bits" if zeros else "a 16-bit scale"
    ask, size = ("GiB", found.weights / 2**30) if level == 3 else ("GB", found.weights / 1e9)
    sum_up = f"{gb(found.linears)} + {gb(rest)} = {gb(found.weights)}"
    return Drill(
        f"{shapes.name} has {billion(shapes.linear_parameters)} weights in the matrices of its layers, stored in "
        f"{bits} bits with {shared} for every {group} weights. Its other {billion(outside(shapes))} parameters, "
        f"embedding and head above all, stay in 16 bits. How many {ask} are the weights?",
        size,
        (
            f"Bits for a weight of the layers: {bits} + {f'(16 + {bits})' if zeros else '16'}/{group} = "
            f"{short(per_weight, 6)}",
            f"Layers: {billion(shapes.linear_parameters)} x {short(per_weight, 6)} bits = {gb(found.linears)}",
            f"The rest: {billion(outside(shapes))} x 16 bits = {gb(rest)}",
            *((sum_up, f"{gb(found.weights)} = {gib(found.weights)}") if level == 3 else (sum_up,)),
        ),
        ask,
        tolerance=0.01,
        slips={
            "You left out the scales: they come on top of the codes.": size
            * (shapes.linear_parameters * bits / 8 + rest) / found.weights,
            "You stored embedding and head in few bits, too. They stay in 16.": size
            * (shapes.parameters * per_weight / 8) / found.weights,
        },
    )  # fmt: skip


def _gib(rng: random.Random, level: int) -> Drill | None:
    where = card(rng)
    if level == 1:
        return Drill(
            f"CUDA shows {gib(where.visible_bytes)} of memory on {a(where.name)}. How many GB, of 10^9 bytes, are "
            "that?",
            where.visible_bytes / 1e9,
            (
                f"A GiB is 2^30 bytes = {short(2**30 / 1e9)} GB",
                "A GB is smaller than a GiB, so there are more of them",
                f"{short(where.visible_bytes / 2**30)} x {short(2**30 / 1e9)} GB = {gb(where.visible_bytes)}",
            ),
            "GB",
        )
    shapes = model(rng)
    size = memory(shapes, rng.choice(("bf16", "int8-channel", "int4-g128")), batch=0).weights
    if level == 2:
        return Drill(
            f"The weights of a checkpoint of {shapes.name} take {gb(size)}. How many GiB does a tool show that counts "
            "in units of 2^30 bytes?",
            parse(f"{size} bytes").to("GiB").value,
            (
                f"A GiB is 2^30 bytes = {short(2**30 / 1e9)} GB",
                "A GiB is larger than a GB, so there are fewer of them",
                f"{short(size / 1e9)} / {short(2**30 / 1e9)} = {gib(size)}",
            ),
            "GiB",
        )
    fit = fits(shapes, where, precision="int4-g128", batch=0, overhead_gb=0)
    if fit.budget < 0.2 * where.visible_bytes:  # a small difference of two large numbers
        return None
    usable = fit.budget + fit.breakdown.weights
    return Drill(
        f"CUDA shows {gib(where.visible_bytes)} on {a(where.name)}. A server may use {UTILIZATION * 100:.0f} % of "
        f"that, and holds weights of {gb(fit.breakdown.weights)}. How many GB are left?",
        fit.budget / 1e9,
        (
            f"In one unit first: {gib(where.visible_bytes)} = {gb(where.visible_bytes)}",
            f"The server may use {UTILIZATION} x {gb(where.visible_bytes)} = {gb(usable)}",
            f"{gb(usable)} - {gb(fit.breakdown.weights)} = {gb(fit.budget)}",
        ),
        "GB",
        slips={
            "You took GB from GiB. Convert to one unit before you subtract.": UTILIZATION * where.visible_bytes / 2**30
            - fit.breakdown.weights / 1e9,
        },
    )


def _parameters(rng: random.Random, level: int) -> Drill:
    shapes = model(rng)
    hidden, inner, size = shapes.hidden_size, shapes.intermediate_size, shapes.head_dim
    query, kv = shapes.attention_heads * size, shapes.kv_heads * size
    parts = {
        group: sum(m.rows * m.columns for m in shapes.matrices() if m.group == group) for group in ("attention", "mlp")
    }
    mlp = f"The MLP has gate, up and down: 3 x {hidden:,} x {inner:,} = {short(parts['mlp'])}"
    attention = (
        f"Attention: q and o have 2 x {hidden:,} x {query:,} = {short(2 * hidden * query)}",
        f"k and v have 2 x {hidden:,} x {kv:,} = {short(2 * hidden * kv)}",
    )
    if level == 1:
        return Drill(
            f"A layer of {shapes.name} has an MLP of three matrices, gate, up and down, between a hidden size of "
            f"{hidden:,} and an inner size of {inner:,}. How many parameters has the MLP of one layer?",
            parts["mlp"],
            (
                f"Each of the three matrices has {hidden:,} x {inner:,} = {short(hidden * inner)}",
                "Gate and up widen, down narrows; biases there are none, so three of equal size",
                f"3 x {short(hidden * inner)} = {with_unit(parts['mlp'], 'parameter')}",
            ),
            "parameter",
            slips={"There are three matrices in a gated MLP: gate, up and down.": 2 * hidden * inner},
        )
    heads = f"{shapes.attention_heads} query heads and {shapes.kv_heads} KV heads of size {size}"
    if level == 2:
        return Drill(
            f"A layer of {shapes.name} has a hidden size of {hidden:,}, {heads}. How many parameters have its four "
            "attention matrices q, k, v and o together, biases not counted?",
            parts["attention"],
            (
                f"All query heads together are {shapes.attention_heads} x {size} = {query:,} wide, all KV heads {kv:,}",
                *attention,
                f"{short(2 * hidden * query)} + {short(2 * hidden * kv)} = "
                f"{with_unit(parts['attention'], 'parameter')}",
            ),
            "parameter",
            slips={"k and v have only the KV heads, which are fewer than the query heads.": 4 * hidden * query},
        )
    table = shapes.embedding_parameters
    layer = parts["attention"] + parts["mlp"]
    return Drill(
        f"{shapes.name}: {shapes.layers} layers, hidden size {hidden:,}, {heads}, a gated MLP of inner size {inner:,}, "
        f"a vocabulary of {shapes.vocab_size:,} tokens, embedding and head apart. How many parameters has it, norms "
        "and biases left out?",
        shapes.parameters,
        (
            *attention,
            mlp,
            f"A layer has {short(2 * hidden * query)} + {short(2 * hidden * kv)} + {short(parts['mlp'])} = "
            f"{short(layer)}",
            f"All layers: {shapes.layers} x {short(layer)} = {short(shapes.layers * layer)}",
            f"Embedding and head: 2 x {shapes.vocab_size:,} x {hidden:,} = {short(2 * table)}",
            f"{short(shapes.layers * layer)} + {short(2 * table)} = {with_unit(shapes.parameters, 'parameter')}",
        ),
        "parameter",
        slips={
            "You left out the head: it has as many rows as the embedding.": shapes.parameters - table,
            "You left out embedding and head.": shapes.parameters - 2 * table,
        },
    )


def _compression(rng: random.Random, level: int) -> Drill:
    shapes = model(rng)
    bits, group = rng.choice((3, 4, 8)), rng.choice((32, 64, 128))
    how = parse_precision(f"int{bits}-g{group}")
    per_weight = how.bits_per_weight(group, group)
    first = f"Bits per weight: {bits} + 16/{group} = {short(per_weight, 6)}"
    if level == 1:
        return Drill(
            f"A weight matrix goes from 16 bits to {bits} bits, with a 16-bit scale for every {group} weights. How "
            "many times smaller does it get?",
            16 / per_weight,
            (
                "Every group of weights shares one scale, so a weight bears a part of it",
                first,
                f"16 / {short(per_weight, 6)} = {with_unit(16 / per_weight, 'x')}",
            ),
            "x",
            tolerance=0.01,
            slips={"That is the ratio of the codes. The scales are stored, too.": 16 / bits},
        )
    wide, narrow = memory(shapes, "bf16", batch=0), memory(shapes, how, batch=0)
    rest = narrow.weights - narrow.linears
    ratio = wide.weights / narrow.weights
    percent = 100 * (1 - 1 / ratio)
    asked, answer, name = (
        ("How many times smaller is the checkpoint?", ratio, "x")
        if level == 2
        else ("How many percent of the memory of the weights does that save?", percent, "%")
    )
    last = (
        f"{gb(wide.weights)} / {gb(narrow.weights)} = {with_unit(ratio, 'x')}"
        if level == 2
        else f"1 - {gb(narrow.weights)} / {gb(wide.weights)} = {with_unit(percent, '%')}"
    )
    return Drill(
        f"{shapes.name} has {billion(shapes.linear_parameters)} weights in its layers and {billion(outside(shapes))} "
        f"other parameters. The layers go from 16 bits to {bits} bits with a 16-bit scale for every {group} weights; "
        f"the rest stays in 16 bits. {asked}",
        answer,
        (
            f"Before: ({short(shapes.linear_parameters / 1e9)} + {short(outside(shapes) / 1e9)}) billion x 16 bits = "
            f"{gb(wide.weights)}",
            first,
            f"Layers after: {billion(shapes.linear_parameters)} x {short(per_weight, 6)} bits = {gb(narrow.linears)}",
            f"With the rest: {gb(narrow.linears)} + {gb(rest)} = {gb(narrow.weights)}",
            last,
        ),
        name,
        slips={"You let embedding and head shrink as well. They stay in 16 bits.": 16 / per_weight}
        if level == 2
        else {"That is the share that is left, not the one that is saved.": 100 / ratio},
    )


def _outside(rng: random.Random, level: int) -> Drill:
    shapes = model(rng)
    found = memory(shapes, "int4-g128", batch=0)
    rows, columns = shapes.embedding_shape
    size = found.embedding + found.head
    lines = (
        f"Embedding and head have one row for each token of the vocabulary: 2 x {rows:,} x {columns:,} = "
        f"{short(2 * rows * columns)}",
        f"In 16 bits: {short(2 * rows * columns)} x 2 bytes = {gb(size)}",
    )
    text = (
        f"{shapes.name} has a vocabulary of {rows:,} tokens and a hidden size of {columns:,}. Embedding and head are "
        "two tables, both in 16 bits."
    )
    if level == 1:
        return Drill(
            f"{text} How many GB are they together?",
            size / 1e9,
            ("Quantizers leave both tables alone, so they count in full", *lines),
            "GB",
            slips={"There are two tables: the embedding, and the head.": size / 2e9},
        )
    share = 100 * size / found.weights
    return Drill(
        f"{text} The layers are in 4 bits with groups of 128, which brings all weights to {gb(found.weights)}. How "
        "many percent of that are embedding and head?",
        share,
        (*lines, f"{gb(size)} / {gb(found.weights)} = {with_unit(share, '%')}"),
        "%",
        slips={"There are two tables: the embedding, and the head.": share / 2},
    )


def _matrix(rng: random.Random, level: int) -> Drill:
    rows, columns = rng.choice((4096, 5120, 8192)), rng.choice((4096, 11008, 14336, 28672))
    count = rows * columns
    first = f"The matrix has {rows:,} x {columns:,} = {count:,} weights"
    text = f"A weight matrix has {rows:,} rows and {columns:,} columns."
    if level < 3:
        bits, group = (8, columns) if level == 1 else (rng.choice((3, 4)), rng.choice((32, 64, 128)))
        name = "int8-channel" if level == 1 else f"int{bits}-g{group}"
        how = parse_precision(name)
        size, scales = how.matrix_bytes(rows, columns), how.overhead_bytes(rows, columns)
        owner = "row" if level == 1 else f"group of {group} weights along a row"
        number = f"{rows:,}" if level == 1 else f"{rows:,} x {columns:,}/{group}"
        return Drill(
            f"{text} It is stored in {bits} bits, with a 16-bit scale for each {owner}. How many MB is it?",
            size / 1e6,
            (
                first,
                f"Codes: {count:,} x {bits} bits = {mb(size - scales)}",
                f"Scales: {number} x 2 bytes = {mb(scales)}",
                f"{mb(size - scales)} + {mb(scales)} = {mb(size)}",
            ),
            "MB",
        )
    how = parse_precision("nf4")
    size, blocks = how.matrix_bytes(rows, columns), count // 64
    return Drill(
        f"{text} It is stored in NF4: 4-bit codes, and a 32-bit absmax for every block of 64 weights. How many MB is "
        "it?",
        size / 1e6,
        (
            first,
            f"Codes: {count:,} x 4 bits = {mb(count / 2)}",
            f"Blocks: {count:,} / 64 = {blocks:,}",
            f"Their absmax: {blocks:,} x 4 bytes = {mb(4 * blocks)}",
            f"{mb(count / 2)} + {mb(4 * blocks)} = {mb(size)}",
        ),
        "MB",
        slips={"You left out the absmax of the blocks.": count / 2e6},
    )


KINDS = (
    Kind("memory.weights", "the size of a model's weights", _LESSON, _weights),
    Kind("memory.gib", "GB and GiB", _LESSON, _gib),
    Kind("memory.parameters", "parameters from shapes", _LESSON, _parameters),
    Kind("memory.compression", "how much smaller a model gets", _LESSON, _compression),
    Kind("memory.outside", "embedding and head, which stay in 16 bits", _LESSON, _outside, levels=(1, 2)),
    Kind("memory.matrix", "the bytes of one matrix, scales included", "02_linear_quantization", _matrix),
)
