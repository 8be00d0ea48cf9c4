"""Checks of a norm and the layers behind it, for questions that move a factor for each channel from one to the other.

Such a question takes (gain, bias, weights, ...) and returns (gain, bias, weights): those of the norm, whose output is
h = gain * n + bias, and of all layers that read h. An RMSNorm has no bias; it is None.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import properties as p
from ..question import Case, Finding


def returns_gain_bias_weights(case: Case, got: Any, expected: Any) -> Finding | None:
    if finding := p.parts(got, "gain", "bias", "weights"):
        return finding
    weights = case.args[2]
    if not isinstance(got[2], tuple):
        return Finding(f"weights: return a tuple of {len(weights)} tensors, one for each weight that came in")
    if len(got[2]) != len(weights):
        return Finding(f"weights: {len(got[2])} came back; there must be as many as came in, {len(weights)}")
    return None


def types_and_shapes_stay(case: Case, got: Any, expected: Any) -> Finding | None:
    gain, bias, weights = case.args[:3]
    named = [("gain", got[0], gain), *((f"weights[{i}]", w, weights[i]) for i, w in enumerate(got[2]))]
    if bias is None and got[1] is not None:
        return Finding("bias: this norm has none, and there is nowhere to keep one; return None")
    if bias is not None:
        named.append(("bias", got[1], bias))
    findings = (p.tensor(new, name, torch.float32, tuple(old.shape)) for name, new, old in named)
    return next(filter(None, findings), None)


def output_is_unchanged(case: Case, got: Any, expected: Any) -> Finding | None:
    """On states that a norm could have made; to a share of the terms of each output, which may cancel."""
    gain, bias, weights = case.args[:3]
    random = torch.Generator().manual_seed(1)
    n = torch.randn(16, len(gain), generator=random, dtype=torch.float64)

    def hidden(n: torch.Tensor, gain: Any, bias: Any) -> torch.Tensor:
        h: torch.Tensor = n * gain.double() + (0.0 if bias is None else bias.double())
        return h

    before, after = hidden(n, gain, bias), hidden(n, got[0], got[1])
    terms = hidden(n.abs(), gain.abs(), None if bias is None else bias.abs())
    for number, (old, new) in enumerate(zip(weights, got[2], strict=True)):
        exact = before @ old.double().T
        size = terms @ old.double().abs().T
        finding = p.values_near(after @ new.double().T, f"the output of layer {number}", exact, 1e-5 * size, size)
        if finding:
            return Finding(finding.what, finding.index, finding.expected, finding.got)
    return None
