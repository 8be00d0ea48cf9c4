"""Claims on what a laboratory does. Nothing computes them; what has been published decides, or leaves them open."""

from __future__ import annotations

from .ledger import NONE_FOUND, Assumptions, Evidence, claim, said, value


@claim(
    "C126",
    sources=("000:53",),
    says="DeepMind likes to begin with PTQ when it tries things out.",
    verdict="contested",
    instead="Plausible, as PTQ costs little. Cite what Google has published on QAT for Gemma in place of a habit.",
)
def c126(given: Assumptions) -> Evidence:
    numbers = {"removed": value("gemma3-qat"), "steps": said("gemma3-qat", r"about ([\d,]+) steps")}
    because = (
        "No source was found for this habit. What is published is the opposite, checkpoints from QAT: about "
        "{steps:,.0f} steps for Gemma 3 in INT4, which took {removed:.0f}% off what PTQ had cost in perplexity, and "
        "Gemma 4 after it."
    )
    return Evidence("contested", because, numbers, "cited", ("gemma3-qat", "gemma4-qat"), (NONE_FOUND,))
