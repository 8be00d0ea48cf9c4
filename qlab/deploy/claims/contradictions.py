"""Where the course's source texts contradict each other, or themselves, and how the ledger settles it.

A resolution is a template that the numbers of judged claims fill: {C004[loaded]:.1f} is `loaded` of C004's evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .assumptions import Assumptions
from .ledger import find, places


@dataclass(frozen=True)
class Side:
    """What some places say: "001:49" is text 1, line 49."""

    says: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Contradiction:
    """A topic, two sides that cannot both hold as they stand, and the claims whose numbers settle it."""

    topic: str
    sides: tuple[Side, Side]
    claims: tuple[str, ...]
    resolution: str

    def settled(self, given: Assumptions | None = None) -> str:
        """The resolution, filled with the numbers that the claims have under `given` (None: the default)."""
        numbers: Mapping[str, Any] = {id: find(id).function(given or Assumptions()).numbers for id in self.claims}
        return self.resolution.format(**numbers)

    def to_dict(self, given: Assumptions | None = None) -> dict[str, Any]:
        """Plain strings and lists."""
        return {
            "topic": self.topic,
            "sides": [{"says": side.says, "made_in": list(side.sources)} for side in self.sides],
            "claims": list(self.claims),
            "resolution": self.settled(given),
        }

    def in_words(self, given: Assumptions | None = None) -> str:
        """Both sides and the resolution, on two lines."""
        one, other = (f"{side.says} ({places(side.sources)})" for side in self.sides)
        return f"{self.topic}: {one}, or: {other}.\n      {self.settled(given)} [{', '.join(self.claims)}]"

    def __str__(self) -> str:
        return self.in_words()


CONTRADICTIONS = (
    Contradiction(
        "accuracy of INT4",
        (Side("2 to 5 % are lost", ("000:23", "001:12")), Side("less than 1 %", ("002:20", "002:29", "002:91"))),
        ("C069",),
        "Both happen. A 70B loses {C069[low_70b]:.1f} to {C069[ceiling_70b]:.1f} %, an 8B {C069[gptq_8b]:.1f} to "
        "{C069[awq_8b]:.1f} %, a 1B {C069[mmlu_1b]:.0f} % of its MMLU.",
    ),
    Contradiction(
        "speed of decoding in INT4",
        (Side("often no faster, sometimes slower", ("000:69",)), Side("3 to 4x as fast", ("002:75",))),
        ("C050", "C057"),
        "{C057[low]:.1f} to {C057[high]:.1f}x for one request with a short context and fused kernels; "
        "{C050[h200_8b]:.2f} to {C050[h200_70b]:.2f}x at batch 8 with long prompts, {C050[long]:.2f}x with 129 "
        "thousand tokens of input. Above 3x only per GPU, or where 16 bits leave too little for the KV cache.",
    ),
    Contradiction(
        "what it means that decoding waits for memory",
        (Side("4 bits do not help", ("000:69", "001:45")), Side("4 bits help", ("002:18",))),
        ("C053",),
        "They help: reading the weights of a 70B takes {C053[bf16]:.0f} ms per token in 16 bits and {C053[int4]:.0f} "
        "in INT4.",
    ),
    Contradiction(
        "speed of 8 bits",
        (Side("5x, in a headline", ("001:39",)), Side("1.5 to 2x, three lines later", ("001:42",))),
        ("C048", "C049"),
        "{C048[fused_low]:.1f} to {C048[fused_high]:.1f}x with fused kernels, and no more than {C049[int8]:.2f}x per "
        "token. Up to {C049[served_8]:.1f}x of throughput only where 16 bits leave too little for the KV cache.",
    ),
    Contradiction(
        "number format of 4 bits",
        (Side("NF4, which is not linear", ("000:23", "001:13")), Side("evenly spaced levels", ("004:9",))),
        ("C093",),
        "What is served is evenly spaced; NF4 is bitsandbytes'. On normal weights in groups of 64 both are equally "
        "fine: {C093[nf4]:.1f} dB, and {C093[asymmetric]:.1f} for INT4 with zero-points.",
    ),
    Contradiction(
        "size of 4 bits against 8",
        (Side("it is not half", ("000:33",)), Side("70 GB and 35 GB", ("000:37-39",))),
        ("C006",),
        "The weights shrink by {C006[ratio]:.2f}x.",
    ),
    Contradiction(
        "cost",
        (Side("4 bits cost more", ("000:81", "000:83")), Side("4 bits where cost counts", ("001:58", "004:2"))),
        ("C121",),
        "Kernel and GPU decide: {C121[l40s_w4a8]:.2f} to {C121[l40s_w4a16]:.2f} USD per million tokens in 4 bits, "
        "{C121[a100_w8a8]:.2f} in 8 bits on an A100.",
    ),
    Contradiction(
        "formula of the zero-point",
        (Side("scale times w, plus z", ("000:17", "001:10")), Side("(x - z) / scale", ("002:49",))),
        ("C091",),
        "Two conventions: scale as a multiplier or as a divisor, z as an integer code or as a number. The usual one is "
        "clamp(round(x / scale) + z); with the scale of one put into the formula of the other, {C091[multiplier]} "
        "codes in use become {C091[divisor]}.",
    ),
    Contradiction(
        "a 70B in INT8 on 64 to 80 GB",
        (
            Side("it fits with ease", ("000:37", "001:49", "003:8")),
            Side("what comes on top of the weights is serious", ("000:41",)),
        ),
        ("C011", "C021"),
        "It does not load on 64 GB: four V100 show {C011[visible]:.1f} GB, the weights are {C011[loaded]:.1f}. On one "
        "GPU of 80 GB it is tight: {C021[tokens]:,} tokens are left.",
    ),
    Contradiction(
        "embeddings",
        (
            Side("leave them in 16 bits, they are small", ("002:93",)),
            Side("35 GB, for which they must have 4", ("000:39", "001:21", "003:4")),
        ),
        ("C004",),
        "Not both: with embedding and head in 16 bits it is {C004[loaded]:.1f} GB.",
    ),
)
