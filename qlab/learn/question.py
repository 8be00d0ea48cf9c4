"""What a graded question is: data that says which answers are right, which are wrong, and what each wrong one means.

A question does not compare an answer with one expected answer. It declares properties that every right answer has,
whatever its rounding of ties or its inner layout, and it proves their strength: its mutants, answers that people really
give, must all fail, and its alternatives, right answers by other routes, must all pass (`qlab mutants`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OUTCOMES = ("passed", "failed", "not attempted", "error")


@dataclass(frozen=True)
class Launch:
    """How a Triton kernel is called: as so many programs, and with pointers to tensors.

    Args:
        grid: the number of programs along one to three axes.
        names: of the kernel's parameters, in their order.
        writes: the names of the tensors that the kernel fills. In a case's arguments they hold what no answer holds.
    """

    grid: tuple[int, ...]
    names: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One call of the learner's function: what is special about it, in words, and its arguments.

    Arguments are plain: tensors, numbers, strings, booleans, None, and tuples and dicts of these. Where the answer is
    a kernel, `launch` says how it is started; what it then did, as `launch.run` tells it, takes the place of a result.
    """

    name: str
    args: tuple[Any, ...]
    launch: Launch | None = None


@dataclass(frozen=True)
class Finding:
    """What is wrong with one answer, and where it is worst.

    Args:
        what: a sentence: "the codes have dtype int64; they must be uint8".
        index: of the worst element, where the answer is a tensor.
        expected: what belongs there, in words or as a number.
        got: what the answer has there.
        error: how far it is off, in `unit`; `bound` is how far it may be.
    """

    what: str
    index: tuple[int, ...] | None = None
    expected: str | None = None
    got: str | None = None
    error: float | None = None
    bound: float | None = None
    unit: str = "steps"


# A property looks at one case, the answer, and the reference's answer; None says that it holds.
# Its name is what the kill table prints.
Property = Callable[[Case, Any, Any], Finding | None]


@dataclass(frozen=True)
class Mutant:
    """A wrong answer that people give: the code, and what the learner who gave it should read.

    `answer` is called like the reference. `misconception` follows the words "It looks like this:".
    """

    name: str
    answer: Callable[..., Any]
    misconception: str


def mutant(misconception: str) -> Callable[[Callable[..., Any]], Mutant]:
    """Decorate a wrong answer with the misconception that it stands for; the function becomes a `Mutant`."""
    return lambda answer: Mutant(answer.__name__, answer, misconception)


@dataclass(frozen=True)
class Question:
    """One graded question.

    Args:
        id: "linear.zero_point": the set's short name and the question's own.
        title: as in the heading of its card.
        reference: a right answer; its name and signature are those of the stub in the notebook. Answers are functions,
            or all of them are kernels, made by `triton.jit`.
        cases: from a seed to the calls that are made, odd ones included. Another seed gives other numbers and the
            same kinds of cases.
        properties: checked in this order; the first that fails is reported.
        mutants: at least eight wrong answers, no two of them alike on all cases.
        alternatives: at least two right answers by another route.
        hints: three, from a nudge to the last step before the code.
        explanation: what to learn from the reference; shown under its source by `solution`.
    """

    id: str
    title: str
    reference: Callable[..., Any]
    cases: Callable[[int], list[Case]]
    properties: tuple[Property, ...]
    mutants: tuple[Mutant, ...]
    alternatives: tuple[Callable[..., Any], ...]
    hints: tuple[str, str, str]
    explanation: str

    @property
    def function(self) -> str:
        """The name of the function that the learner writes."""
        return self.reference.__name__

    @property
    def parameters(self) -> list[str]:
        """The names of that function's parameters."""
        return list(inspect.signature(as_python(self.reference)).parameters)

    @property
    def grade_id(self) -> str:
        return grade_id_of(self.id)


def as_python(answer: Any) -> Any:
    """The Python function of an answer: of a kernel, what `triton.jit` was put around."""
    return getattr(answer, "fn", answer)


def grade_id_of(question_id: str) -> str:
    """A question's id as nbgrader allows it: without dots."""
    return question_id.replace(".", "-")
