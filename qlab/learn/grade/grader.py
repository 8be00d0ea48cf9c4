"""Grade submissions, each in a box of its own, and judge the answers here."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import qlab

from ...machine import usable_cores
from ..files import printable, read_strictly, write_whole
from ..judge import Verdict, judge
from ..question import Case
from ..questions import question
from . import exchange, report
from .isolation import CHECKOUT, Box, Ended, Limits, NewBox, reach, run
from .result import Graded, Ran, Result
from .submission import Cell, Master, Merged, SubmissionError, merge, names, read_master, read_notebook, which_set

_MAX_RECORD = 2 << 20  # bytes of what the worker says about one cell
_HIDDEN_FOLDERS = (".", "__")


def grade_file(path: Path | str, **options: Any) -> Result:
    """Grade one submission; the options are those of `grade_files`."""
    if not Path(path).is_file():
        raise ValueError(f"file: there is no file {path}")
    [result] = grade_files([path], jobs=1, **options)
    return result


def grade_files(
    paths: Sequence[Path | str],
    *,
    master: Path | str | None = None,
    out: Path | str | None = None,
    isolation: str = "auto",
    force: bool = False,
    seed: int | None = None,
    limits: Limits | None = None,
    jobs: int | None = None,
    done: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Grade submissions, one result for each whatever happens to the others.

    Args:
        paths: notebooks, and folders that are searched for notebooks.
        master: the master of all of them; by default that of each one's exercise set, from `solutions/`.
        out: the folder for the results, which are written as soon as each is there; None writes nothing.
        isolation: "auto", "namespaces" or "watchdog"; see `isolation`.
        force: also as root without namespaces.
        seed: of the inputs; by default a new one. The result holds it: the same seed grades again alike.
        limits: for each submission.
        jobs: submissions that are graded at the same time; by default one for each core.
        done: called with each result, in the order in which they come.

    Raises:
        ValueError: a path, the master or an option is no use; an isolation that cannot be had.
    """
    files = find(paths)
    if missing := [name for name in ("ipykernel", "jupyter_client") if find_spec(name) is None]:
        raise ImportError(f"grading needs {' and '.join(missing)}: pip install 'qlab[lab]'")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs: at least 1, not {jobs}")
    if seed is not None and not 0 <= seed < 2**31:
        raise ValueError(f"seed: a whole number from 0 to 2^31 - 1, not {seed}")
    level = reach(isolation, force)
    seed = secrets.randbelow(2**31) if seed is None else seed
    masters = Masters(None if master is None else read_master(Path(master)))
    stop = threading.Event()

    def one(file: Path, name: Path) -> Result:
        result = _grade(file, name, masters, level, seed, limits or Limits(), stop)
        if out is not None and not stop.is_set():
            report.write(result, Path(out))
        if done is not None:
            done(result)
        return result

    if out is not None:
        remove_partial(Path(out))
    with ThreadPoolExecutor(jobs or usable_cores()) as pool:
        futures = [pool.submit(one, file, name) for (file, _), name in zip(files, names(files), strict=True)]
        try:
            return [future.result() for future in futures]
        except BaseException:  # Ctrl-C: nothing may run on
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def find(paths: Sequence[Path | str]) -> list[tuple[Path, Path]]:
    """Every notebook that the paths name, with the folder that it was found in.

    Hidden folders are left out, and links inside of folders are not followed.

    Raises:
        ValueError: a path does not exist, or there is no notebook.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            for folder, folders, files in os.walk(path):
                folders[:] = sorted(name for name in folders if not name.startswith(_HIDDEN_FOLDERS))
                for name in sorted(files):
                    if name.endswith(".ipynb") and not name.startswith("."):
                        found.setdefault(Path(folder) / name, path)
        elif os.path.lexists(path):
            found.setdefault(path, path.parent)
        else:
            raise ValueError(f"file: there is no {path}")
    if not found:
        raise ValueError(f"file: no notebook in {', '.join(map(str, paths)) or 'no path'}")
    return list(found.items())


class Masters:
    """The masters, each read once."""

    def __init__(self, only: Master | None = None) -> None:
        self._only = only
        self._read: dict[str, Master] = {}
        self._lock = threading.Lock()

    def of(self, name: Callable[[], str]) -> Master:
        """The master for a submission; `name` tells its set, and is asked only where several come in question."""
        if self._only:
            return self._only
        with self._lock:
            key = name()
            if key not in self._read:
                path = CHECKOUT / "solutions" / f"{key}.ipynb"
                if not path.exists():
                    raise SubmissionError(f"this installation has no master of {key}; name it with --master")
                self._read[key] = read_master(path)
            return self._read[key]


def remove_partial(out: Path) -> None:
    """Remove what a grader that was killed left half-written; no result has such a name."""
    for kind in ("html", "json", "csv"):
        for partial in out.rglob(f".*.{kind}.partial"):
            partial.unlink(missing_ok=True)


def cases_of(question_id: str, seed: int) -> list[Case]:
    """The calls that are graded: of two seeds, so that luck with one of them is no point."""
    asked = question(question_id)
    return [*asked.cases(seed), *asked.cases(seed + 1)]


def _grade(
    file: Path, name: Path, masters: Masters, level: str, seed: int, limits: Limits, stop: threading.Event
) -> Result:
    result = Result(str(file), name, seed=seed, isolation=level)
    try:
        submission = read_notebook(file)
        master = masters.of(lambda: which_set(submission, file))
        merged = merge(submission, master)
        with NewBox() as box, box.open_answers() as folder:
            cases = _fill(box, master, merged, seed, limits)
            ended = run(box, level, limits, stop)
            ran, answers = _look_into(folder, master, merged)
            last_words = box.last_words()
        verdicts = {one: _verdict(one, cases[one], answers[one], merged, ran, ended, limits) for one in master.points}
    except SubmissionError as error:
        return replace(result, error=str(error))
    except Exception as error:  # a class of forty does not stop at the one that finds a bug of ours
        return replace(result, error=f"the grader failed: {type(error).__name__}: {printable(str(error), 300)}")
    graded = tuple(
        Graded(one, question(one).title, worth if verdicts[one].passed else 0.0, worth, verdicts[one])
        for one, worth in master.points.items()
    )
    notes = list(merged.notes)
    if submission.version and submission.version != qlab.__version__:
        notes.append(f"it was made for version {submission.version} of the library; this is {qlab.__version__}")
    if ended.reason:
        notes.append(f"it was ended: {ended.reason}")
    elif ended.code:
        notes.append(f"it broke off with exit code {ended.code}" + (f" ({last_words})" if last_words else ""))
    return replace(
        result,
        exercise=master.name,
        version=submission.version,
        questions=graded,
        for_a_person=tuple(master.for_a_person.items()),
        notes=tuple(notes),
        seconds=round(ended.seconds, 2),
        cells=ran,
    )


def _fill(box: Box, master: Master, merged: Merged, seed: int, limits: Limits) -> dict[str, list[Case]]:
    """Put the notebook and the inputs into the box; what is right stays outside."""
    cases = {one: cases_of(one, seed) for one in master.points}
    for one, calls in cases.items():
        exchange.write_cases(box.inputs, question(one).grade_id, calls)
    cells = [{"kind": c.kind, "source": c.source, "collects": c.question is not None} for c in merged.cells]
    plan = {"cell_seconds": limits.cell_seconds, "cells": cells}
    write_whole(box.inputs / "plan.json", json.dumps(plan))
    return cases


def _look_into(folder: int, master: Master, merged: Merged) -> tuple[tuple[Ran, ...], dict[str, Any]]:
    """What came back: the cells as they ran, and for each question its observations, or an error, or None."""
    ran = tuple(_record(cell, f"cell-{number}.json", folder) for number, cell in enumerate(merged.cells))
    answers: dict[str, Any] = {}
    for one in master.points:
        try:
            answers[one] = exchange.read_observations(question(one).grade_id, folder)
        except FileNotFoundError:
            answers[one] = None
        except exchange.ExchangeError as error:
            answers[one] = error
    return ran, answers


def _record(cell: Cell, name: str, folder: int) -> Ran:
    try:
        match json.loads(read_strictly(name, _MAX_RECORD, folder)):
            case {
                "status": "ok" | "error" | "timeout" | "died" as status,
                "failed": str() as failed,
                "outputs": list() as raw,
            }:
                outputs = tuple(
                    {"kind": kind, "text": text if kind == "png" else printable(text, 25_000)}
                    for output in raw[:50]
                    for kind, text in [_output(output)]
                )
                return Ran(cell, status, printable(failed, 300), outputs)
    except (OSError, ValueError, RecursionError):
        pass
    return Ran(cell)


def _output(raw: Any) -> tuple[str, str]:
    match raw:
        case {"kind": "text" | "error" | "png" as kind, "text": str() as text}:
            return kind, text
    return "text", ""


def _verdict(
    one: str, cases: list[Case], answer: Any, merged: Merged, ran: tuple[Ran, ...], ended: Ended, limits: Limits
) -> Verdict:
    """The judge's verdict; an error where there is nothing to judge."""
    if not isinstance(answer, list):
        return Verdict(one, "error", message=_no_answer(one, answer, ran, ended, limits))
    try:
        verdict = judge(question(one), cases, answer)
    except Exception as error:  # the properties are written for answers, and this may be anything
        return Verdict(one, "error", message=f"The answer cannot be judged ({type(error).__name__}).")
    # A function that is missing because its cell broke is an error, and its author wants to know where.
    if verdict.outcome == "not attempted" and answer and "no function" in answer[0].message:
        for number in merged.answer_cells[one]:
            if ran[number].status != "ok" and ran[number].cell.kind == "code":
                return Verdict(one, "error", message=f"{_how(ran[number], limits)}, so there is no function to grade.")
    return verdict


def _no_answer(one: str, answer: Any, ran: tuple[Ran, ...], ended: Ended, limits: Limits) -> str:
    if isinstance(answer, Exception):
        return f"What came back cannot be read: {answer}."
    collecting = next(cell for cell in ran if cell.cell.question == one)
    match collecting.status:
        case "timeout":
            return f"Your function did not come back within {limits.cell_seconds:g} s."
        case "died":
            return "Python ended while your function ran: it left the process, or it ran out of memory."
        case "error":
            return f"Your function could not be called: {collecting.failed}."
        case "ok":
            return "No answer came back."
    return f"It was not reached: {ended.reason or 'the notebook broke off before it'}."


def _how(ran: Ran, limits: Limits) -> str:
    match ran.status:
        case "timeout":
            return f"A cell of this question ran longer than {limits.cell_seconds:g} s"
        case "died":
            return "A cell of this question ended Python"
        case "error":
            return f"A cell of this question raised {ran.failed.strip() or 'an exception'}"
    return "A cell of this question was not run"
