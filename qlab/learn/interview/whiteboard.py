"""Code at the whiteboard: a function that a candidate wrote, judged by the check of the exercise it belongs to.

It runs in a process of its own, with a limit in time and nothing else: this is your own code on your own machine. The
code of strangers belongs into `qlab grade`.
"""

from __future__ import annotations

import inspect
import json
import runpy
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..question import Question, as_python, grade_id_of
from ..questions import SETS, question
from ..workspace import repository

TRIES = 3
SECONDS = 120.0  # for a judgement; a Triton kernel is interpreted where there is no GPU
LEVELS = (4, 3, 2)  # for a function that passes at the first, second, third try
ATTEMPTED = 1  # for one that never does


@dataclass(frozen=True)
class Written:
    """What became of the code for one question: the last verdict in words, and after how many tries."""

    outcome: str  # one of question.OUTCOMES
    message: str
    tries: int = 1

    @property
    def level(self) -> int:
        """From 0, for nothing attempted, to 4."""
        if self.outcome == "not attempted":
            return 0
        return LEVELS[self.tries - 1] if self.outcome == "passed" else ATTEMPTED


def stub(exercise: str) -> str:
    """Where to begin: the imports, and the function that is asked for, with its docstring as in the exercise."""
    asked = question(exercise)
    kernel = hasattr(asked.reference, "fn")
    imports = "import qlab.kernels\nimport triton\nimport triton.language as tl\n" if kernel else "import torch\n"
    return f"{imports}\n\n{_released(exercise) or _head(asked)}\n"


def _released(exercise: str) -> str | None:
    """The learner's cell of the exercise notebook; None where the package was installed without notebooks."""
    exercise_set = next(one for one in SETS if exercise in one.questions)
    try:
        path = repository() / "exercises" / f"{exercise_set.name}.ipynb"
    except ValueError:
        return None
    wanted = grade_id_of(exercise)
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        own = cell["metadata"].get("nbgrader", {})
        if cell["cell_type"] == "code" and own.get("solution") and own.get("grade_id", "").startswith(wanted):
            return "".join(cell["source"])
    return None


def _head(asked: Question) -> str:
    parameters = inspect.signature(as_python(asked.reference))
    decorated = "@triton.jit\n" if hasattr(asked.reference, "fn") else ""
    return f"{decorated}def {asked.function}{parameters}:\n    ..."


def judge(exercise: str, source: str, tries: int = 1, seconds: float = SECONDS) -> Written:
    """Run the code and check its function, as `check(exercise, function)` does in a notebook.

    Args:
        exercise: an id of the course, such as "gptq.update".
        source: Python that defines the function with the name of the exercise's own.
        tries: the number of this one, from 1.
    """
    with tempfile.TemporaryDirectory(prefix="qlab-whiteboard-") as folder:
        file = Path(folder, "answer.py")
        file.write_text(source, encoding="utf-8")
        command = [sys.executable, "-m", __name__, exercise, str(file)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return Written(
                "error", f"It ran longer than {seconds:.0f} s and was stopped; is there a loop without end?", tries
            )
    lines = done.stdout.splitlines()
    try:
        said = json.loads(lines[-1])
        return Written(said["outcome"], said["message"], tries)
    except (IndexError, ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Written("error", f"Python ended with code {done.returncode}: {last}", tries)


def main(exercise: str, file: str) -> None:
    """The process: prints the verdict as JSON in its last line."""
    from ..judge import examine

    asked = question(exercise)
    try:
        names = runpy.run_path(file)
    except BaseException as error:  # SystemExit, too: it is the candidate's code
        found = {"outcome": "error", "message": f"{type(error).__name__}: {error}"}
    else:
        if asked.function in names:
            verdict = examine(asked, names[asked.function], seed=0)
            found = {"outcome": verdict.outcome, "message": str(verdict)}
        else:
            found = {"outcome": "error", "message": f"There is no function {asked.function} in it; define one."}
    print(f"\n{json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
