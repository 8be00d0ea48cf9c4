"""Draw the figure of the README from nano's recorded scores: `python -m qlab.plots`."""

from __future__ import annotations

import json
from pathlib import Path

from .quantization import damage_by_workload

ROOT = Path(__file__).parents[2]
SCORES = ROOT / "qlab" / "models" / "nano" / "scores.json"
FIGURE = ROOT / "figures" / "damage_by_workload.png"
SHOWN = {
    "16-bit": "16-bit",
    "INT8 channel": "8 bits",
    "INT4 channel": "4 bits",
    "INT3 channel": "3 bits",
    "INT2 g32 asymmetric": "2 bits, groups of 32, zero-points",
}


def damage_of_nano() -> bytes:
    """The README's figure as PNG bytes."""
    scores = json.loads(SCORES.read_text(encoding="utf-8"))["scores"]
    measured = {label: scores[name]["accuracy"] for name, label in SHOWN.items()}
    values, errors = (
        {label: {w: e[part] for w, e in accuracy.items()} for label, accuracy in measured.items()}
        for part in ("value", "stderr")
    )
    return damage_by_workload(
        values, errors, title="nano, round to nearest, one scale per row; at 2 bits one per 32 weights"
    ).png()


if __name__ == "__main__":
    FIGURE.parent.mkdir(exist_ok=True)
    FIGURE.write_bytes(damage_of_nano())
    print(f"wrote {FIGURE.relative_to(ROOT)}")
