"""Decide about an answer: which of the four outcomes, what is wrong with it, and which misconception it looks like.

Observations come from `observe`, in this process or in another one. The judge looks at plain values only.
"""

from __future__ import annotations

import itertools
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch

from .observe import Foreign, Observation, observe
from .properties import as_number
from .question import Case, Finding, Mutant, Question

_WIDTH = 100
_LONG = 800  # characters of a tuple that are printed whole; of a longer one, its first _FEW items
_FEW = 3
_ALIKE_SHARE = 0.99  # of the elements: two implementations of one mistake may round a tie apart
_ALIKE_RTOL = 1e-4
_MISSING = Observation("error", message="no answer came back")


@dataclass(frozen=True)
class Verdict:
    """What the judge says about one answer. `str(verdict)` is what the learner reads."""

    question: str
    outcome: str  # one of question.OUTCOMES
    cases: int = 0  # how many were judged
    case: str | None = None  # the first one that fails, and its arguments in words
    arguments: str | None = None
    broken: str | None = None  # the property that does not hold
    finding: Finding | None = None
    mutant: str | None = None
    misconception: str | None = None
    hedged: bool = False  # the misconception explains most of the cases that fail, and not all
    message: str | None = None  # of an error, or why it was not attempted

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.question}: {self.outcome}" + (f", on all {self.cases} cases" if self.passed else "")]
        if self.message:
            lines.append(self.message)
        if self.misconception:
            where = "In most of the cases that fail it looks like this" if self.hedged else "It looks like this"
            lines.append(f"{where}: {self.misconception}")
        if self.case:
            lines.append(f"First case that fails: {self.case}" + (f" ({self.arguments})" if self.arguments else ""))
        if self.finding:
            lines += _finding_lines(self.finding)
        head, *rest = lines
        return "\n".join(
            [head, *(textwrap.fill(line, _WIDTH, initial_indent="  ", subsequent_indent="    ") for line in rest)]
        )

    def _ipython_display_(self) -> None:
        """`check` has printed it already: as the last line of a cell it is not shown again."""


@contextmanager
def _torch_as_imported() -> Iterator[None]:
    """Without the default type and the default device that a learner may have set: cases mean the same everywhere."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    elsewhere = torch.get_default_device().type != "cpu"
    try:
        with torch.device("cpu") if elsewhere else nullcontext():  # every call under a device is a little slower
            yield
    finally:
        torch.set_default_dtype(dtype)


class Judge:
    """Judges answers to one question on the same cases. What its reference and its mutants answer, it asks once."""

    def __init__(self, question: Question, cases: Sequence[Case]) -> None:
        self.question, self.cases = question, cases
        self._failures: dict[tuple[int, int], bool] = {}

    @cached_property
    def right(self) -> list[Observation]:
        """What the reference answers."""
        found = observe(self.question.reference, self.cases)
        for case, seen in zip(self.cases, found, strict=False):
            if seen.kind != "value":
                raise RuntimeError(f"{self.question.id}: the reference fails on {case.name!r}: {seen.message}")
        return found

    @cached_property
    def wrong(self) -> list[tuple[Mutant, list[Observation]]]:
        """What each mutant answers."""
        return [(mutant, observe(mutant.answer, self.cases)) for mutant in self.question.mutants]

    def examine(self, function: Any) -> Verdict:
        """Call the function in this process, and judge it."""
        return self.verdict(observe(function, self.cases))

    @_torch_as_imported()
    def verdict(self, observations: Sequence[Observation]) -> Verdict:
        """The verdict on the observations of one function over the cases (see `observe`)."""
        question, cases = self.question, self.cases
        if not observations or observations[0].kind == "not attempted":
            message = observations[0].message if observations else "there is no function yet"
            return Verdict(question.id, "not attempted", message=f"{message[:1].upper()}{message[1:]}.")
        wrong: dict[int, str | tuple[str, Finding]] = {}  # by the case's number: an error, or a property and a finding
        observations = [*observations, *[_MISSING] * (len(cases) - len(observations))]
        for number, seen in enumerate(observations[: len(cases)]):
            if seen.kind != "value":
                wrong[number] = seen.message
            elif found := self._first_finding(number, seen):
                wrong[number] = found
        if not wrong:
            return Verdict(question.id, "passed", len(cases))
        mutant, hedged = self._look_alike(observations, list(wrong)) or (None, False)
        number, problem = next(iter(wrong.items()))
        verdict = Verdict(
            question.id,
            "error" if isinstance(problem, str) else "failed",
            len(cases),
            case=cases[number].name,
            arguments=arguments(question, cases[number]),
            mutant=mutant.name if mutant else None,
            misconception=mutant.misconception if mutant else None,
            hedged=hedged,
        )
        if isinstance(problem, str):
            return replace(verdict, message=f"{problem[:1].upper()}{problem[1:]}.")
        return replace(verdict, broken=problem[0], finding=problem[1])

    def _first_finding(self, number: int, seen: Observation) -> tuple[str, Finding] | None:
        if seen.changed_input:
            return "input_unchanged", Finding("the function changes its argument in place; work on a copy")
        if seen.value is None:
            return "returns_a_value", Finding("the function returns None: a return is missing at its end")
        if isinstance(seen.value, Foreign):
            return "returns_a_value", Finding(
                f"the function returns a value of type {seen.value.type_name}, which cannot be compared"
            )
        case, expected = self.cases[number], self.right[number].value
        found = _broken(self.question, case, seen.value, expected)
        if found and isinstance(seen.value, tuple) and 1 < len(seen.value) <= 4:
            for order in itertools.permutations(seen.value):
                if not _broken(self.question, case, order, expected):
                    return "order_of_values", Finding("the values are right, but they come in another order")
        return found

    def _look_alike(self, observations: Sequence[Observation], wrong: Sequence[int]) -> tuple[Mutant, bool] | None:
        """The mutant that answers as the learner did, and whether it explains only most of the cases that fail."""
        answers = list(enumerate(self.wrong))
        if found := self._most_alike(answers, observations, wrong, types=True):
            return found
        # A mistake beside a wrong dtype is still that mistake, so now by values only; and where nothing but the type
        # is wrong, only a mutant that has the values right tells anything.
        right = self.right
        values = [number for number in wrong if not _same_values(observations[number], right[number])]
        if values:
            return self._most_alike(answers, observations, values, types=False)
        if all(alike(observations[number].value, right[number].value) for number in wrong):
            return None  # neither values nor types: the argument was changed
        answers = [one for one in answers if all(map(_same_values, one[1][1], right))]
        return self._most_alike(answers, observations, wrong, types=False)

    def _most_alike(
        self,
        answers: Sequence[tuple[int, tuple[Mutant, Sequence[Observation]]]],
        observations: Sequence[Observation],
        wrong: Sequence[int],
        types: bool,
    ) -> tuple[Mutant, bool] | None:
        """The mutant that is alike on most of the cases that fail, then on most of all cases."""
        best: tuple[int, int] = (0, 0)
        found = None
        for index, (mutant, theirs) in answers:
            pairs = enumerate(zip(theirs, observations, strict=False))
            same = {number for number, (a, b) in pairs if _alike_observations(a, b, types)}
            # Where the mutant itself is right, being like it explains no failure.
            explained = sum(self._fails(index, number) for number in same.intersection(wrong))
            if (explained, len(same)) > best:
                best, found = (explained, len(same)), mutant
        # Some cases that agree may be chance: many mistakes give 0 for the same odd case.
        if found is None or not best[0] or 3 * best[0] < 2 * len(wrong):
            return None
        return found, best[0] < len(wrong)

    def _fails(self, index: int, number: int) -> bool:
        """Whether a mutant fails a case itself."""
        if (index, number) not in self._failures:
            seen = self.wrong[index][1][number]
            self._failures[index, number] = seen.kind != "value" or bool(self._first_finding(number, seen))
        return self._failures[index, number]


def judge(question: Question, cases: Sequence[Case], observations: Sequence[Observation]) -> Verdict:
    """The verdict on the observations of one function over these cases (see `observe`)."""
    return Judge(question, cases).verdict(observations)


def examine(question: Question, function: Any, seed: int) -> Verdict:
    """Call the function on the cases of one seed, and judge it."""
    return Judge(question, cases_of(question, seed)).examine(function)


@_torch_as_imported()
def cases_of(question: Question, seed: int) -> list[Case]:
    """The cases of a seed, whatever default type or device the learner has set."""
    return question.cases(seed)


def arguments(question: Question, case: Case) -> str:
    """The arguments of a case in words: "x: float32 (6,) from 0.8 to 1.2, bits: 8"."""
    words = {name: _brief(value) for name, value in zip(question.parameters, case.args, strict=False)}
    if case.launch:
        for name in case.launch.writes:
            words[name] = f"{_shape(case.args[case.launch.names.index(name)])} to be written"
        words["grid"] = _brief(case.launch.grid)
    return ", ".join(f"{name}: {text}" for name, text in words.items())


def _broken(question: Question, case: Case, got: Any, expected: Any) -> tuple[str, Finding] | None:
    """The first property that does not hold."""
    for holds in question.properties:
        try:
            finding = holds(case, got, expected)
        except Exception as error:  # a value so odd that no property foresaw it: no right answer gets here
            finding = Finding(f"the answer cannot be read: {type(error).__name__} in {holds.__name__}")
        if finding:
            return holds.__name__, finding
    return None


def _same_values(a: Observation, b: Observation) -> bool:
    return _alike_observations(a, b, types=False)


def _alike_observations(a: Observation, b: Observation, types: bool) -> bool:
    if a.kind != b.kind or (types and a.changed_input != b.changed_input):
        return False
    if a.kind == "error":
        return _error(a.message) == _error(b.message)
    return alike(a.value, b.value, types)


def _error(message: str) -> str:
    """What was raised, without the place, and without names and numbers that differ from function to function."""
    if "ZeroDivisionError" in message:
        return "ZeroDivisionError"  # /, // and % of ints and of floats each have words of their own
    return re.sub(r"\w+\(\)|-?\d+", "", message.partition(" (line ")[0])


def alike(a: Any, b: Any, types: bool = True) -> bool:
    """Whether two answers are the same up to float rounding and a stray tie; `types`: their types count, too."""
    if not types:
        a, b = _as_tensor(a), _as_tensor(b)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or (types and a.dtype != b.dtype):
            return False
        if a.is_complex() or b.is_complex():
            return a.dtype == b.dtype and bool(torch.equal(a, b))
        floats = a.is_floating_point() or b.is_floating_point()
        a, b = a.double(), b.double()
        whole = (a == a.round()) & (b == b.round())  # counts, which are exact
        bound = (_ALIKE_RTOL if floats else 0.0) * torch.maximum(a.abs(), b.abs()).nan_to_num(posinf=0.0) * ~whole
        close = (a == b) | ((a - b).abs() <= bound) | (a.isnan() & b.isnan())
        return a.numel() == 0 or float(close.double().mean()) >= _ALIKE_SHARE
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(alike(x, y, types) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key], types) for key in a)
    if isinstance(a, float) and isinstance(b, float):
        if a.is_integer() and b.is_integer():
            return a == b
        return math.isclose(a, b, rel_tol=_ALIKE_RTOL) or (math.isnan(a) and math.isnan(b))
    return type(a) is type(b) and bool(a == b)


def _as_tensor(value: Any) -> Any:
    """Numbers, and tensors that hold one number, as tensors of one kind; all else as it is."""
    if isinstance(value, torch.Tensor):
        return value.reshape(()) if value.numel() == 1 else value
    number = as_number(value)
    return value if number is None else torch.tensor(float(number), dtype=torch.float64)


def _brief(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        kind = _shape(value)
        if value.numel() == 0:
            return kind
        if value.numel() <= 8 and value.ndim == 1:
            return f"{kind} [{', '.join(f'{item:g}' for item in value.tolist())}]"
        known = value[value == value]
        if known.numel() == 0:
            return f"{kind} of NaN"
        return f"{kind} from {known.min().item():.4g} to {known.max().item():.4g}"
    if isinstance(value, tuple):
        whole = f"({', '.join(map(_brief, value))}{',' * (len(value) == 1)})"
        if len(whole) <= _LONG or len(value) <= _FEW:
            return whole
        return f"({', '.join(map(_brief, value[:_FEW]))}, … {len(value):,} in all)"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_brief(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if type(value) is int else repr(value)


def _shape(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _finding_lines(finding: Finding) -> list[str]:
    lines = [finding.what[:1].upper() + finding.what[1:] + "."]
    if finding.got is not None:
        values = f"expected {finding.expected}, got {finding.got}."
        place = "" if finding.index is None else f"Worst element, index {', '.join(map(str, finding.index))}: "
        lines.append(place + (values if place else values[:1].upper() + values[1:]))
    if finding.error is not None:
        percent = " %" if finding.unit == "%" else ""
        bound = "" if finding.bound is None else f"; at most {finding.bound:.3g}{percent} is allowed"
        lines.append(f"Error: {finding.error:.4g} {finding.unit}{bound}.")
    return lines
