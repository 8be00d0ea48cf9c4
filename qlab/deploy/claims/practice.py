"""Claims on what a laboratory does. Nothing computes them; what has been published decides, or leaves them open."""

from __future__ import annotations

from .ledger import NONE_FOUND, Assumptions, Evidence, claim, said, value


@claim(
    "C126",
    sources=("000:53",),
    says="DeepMind likes to begin with PTQ when it tries things out.",
    verdict="contested",
    instead="I know of no source for that habit. What Google has published is QAT for Gemma.",
)
def c126(given: Assumptions) -> Evidence:
    numbers = {"removed": value("gemma3-qat"), "steps": said("gemma3-qat", r"about ([\d,]+) steps")}
    because = (
        "No source was found for this habit. Google has published Gemma 3 in INT4 after about {steps:,.0f} steps of "
        "QAT, which took {removed:.0f}% off what PTQ had cost in perplexity, and Gemma 4 with QAT as well. That says "
        "what was released, and not what was tried first."
    )
    return Evidence("contested", because, numbers, "cited", ("gemma3-qat", "gemma4-qat"), (NONE_FOUND,))
