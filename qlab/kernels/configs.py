"""Which path a product takes, and with which tiles: plain functions of its shape, to be read and tested.

Triton's own autotuner measures at run time, differs from run to run and does not work in the interpreter. The tables
here are written by hand: the numbers say where they come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

# Tokens from which on the weight is dequantized once and multiplied by cuBLAS. Published: AutoAWQ changes at 1024,
# vLLM's AWQ at 256. Not yet measured here.
DEQUANTIZE_FROM = 512
SPLIT_UP_TO = 64  # tokens for which one wave of programs along the outputs leaves most of a GPU idle


@dataclass(frozen=True)
class Tiles:
    """How the work is cut into programs."""

    tokens: int  # in a program; 1: no tensor cores
    outputs: int  # in a program
    tiles: int  # of the weight along the inputs, read at once
    splits: int  # programs that share the inputs of one output
    warps: int
    stages: int


@dataclass(frozen=True)
class Int8Tiles:
    """The same for a product of integers."""

    tokens: int
    outputs: int
    inputs: int  # read at once
    together: int  # rows of programs that run side by side
    warps: int
    stages: int


@cache
def processors(device: torch.device) -> int:
    """Streaming multiprocessors; 1 for the interpreter."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def path(tokens: int) -> str:
    """The one that is taken for so many: gemv, split-k, gemm or dequantize."""
    if tokens == 1:
        return "gemv"
    if tokens <= SPLIT_UP_TO:
        return "split-k"
    return "gemm" if tokens < DEQUANTIZE_FROM else "dequantize"


def gemv(outputs: int, tiles: int, processors: int) -> Tiles:
    """One token. Every program should find some loads to have in flight, and every processor two programs or more."""
    width = 32 if processors > 1 else 128
    together = 1 if tiles == 1 else 2 if tiles == 2 else 4  # a power of two
    splits = _splits(-(-outputs // width), -(-tiles // together), processors)
    return Tiles(1, width, together, splits, 4, 2)


def matmul(tokens: int, outputs: int, tiles: int, processors: int, split: bool) -> Tiles:
    """Any number of tokens; `split` cuts the inputs, for few of them."""
    if processors == 1:  # the interpreter: its time goes with the number of programs
        return Tiles(64 if tokens > 16 else 16, 128, 1, min(2, tiles) if split else 1, 4, 1)
    if split:
        width = 64
        rows = 16 if tokens <= 16 else 32 if tokens <= 32 else 64
        return Tiles(rows, width, 1, _splits(-(-outputs // width), tiles, processors), 4, 3)
    return Tiles(128, 64, 1, 1, 4, 3)


def int8(tokens: int, outputs: int, processors: int) -> Int8Tiles:
    """int8 times int8, any number of tokens."""
    if processors == 1:  # the interpreter
        return Int8Tiles(64 if tokens > 16 else 16, 128, 128, 1, 4, 1)
    if tokens <= 64:
        return Int8Tiles(16 if tokens <= 16 else 64, 64, 256, 1, 4, 4)
    return Int8Tiles(128, 256, 64, 8, 8, 4)  # 128 inputs at once: registers spill on sm_80


def _splits(programs: int, steps: int, processors: int) -> int:
    """Parts into which the inputs are cut: a power of two, until there are four programs for a processor."""
    splits = 1
    while programs * splits < 4 * processors and steps >= 4 * splits and splits < 32:
        splits *= 2
    return splits
