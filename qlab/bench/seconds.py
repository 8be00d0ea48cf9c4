"""The seconds that the course promises, measured: `python -m qlab.bench.seconds` (`make bench`).

Every run is a fresh process, so a warm cache inside one cannot flatter the next. The median is compared with
the promise. The exit code is 0 also when a promise is broken: on a busy or slow machine that is news and no error.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..machine import usable_cores

LESSONS = Path("notebooks")
MASTER = Path("solutions/02_linear.ipynb")  # handed in as it is, it is the submission of a student who has all right
CLASS = 40

_QLAB = [sys.executable, "-m", "qlab.cli"]
_IMPORT = "import time; start = time.perf_counter(); import qlab; print(time.perf_counter() - start)"
_EVALUATE = """
import time, qlab
model, tokenizer = qlab.load("nano")
start = time.perf_counter()
qlab.evaluate(model, tokenizer=tokenizer, progress=False)
print(time.perf_counter() - start)
"""
# About 76,000 steps with 35 requests in the batch on average, percentiles included.
_SERVE = """
import time
from qlab.deploy.serving.simulation import serve
from qlab.deploy.serving.traffic import lognormal, requests
start = time.perf_counter()
sent = requests(8, 10_000, lognormal(512, 1, high=4096), lognormal(256, 1, high=2048))
seconds = lambda prefill, decoding, cached: 0.01 + 5e-5 * prefill + 1e-5 * decoding + 1e-7 * cached
serve(sent, seconds, kv_tokens=110_000).to_dict()
print(time.perf_counter() - start)
"""
# In memory: the file of the lesson stays as it is.
_LESSON = """
import sys, time, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
start = time.perf_counter()
nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": sys.argv[2]}}).execute()
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Promise:
    """Something that is to take at most `bar` seconds; `measure` runs it once and returns its seconds."""

    name: str
    bar: float
    repeats: int
    measure: Callable[[], float]


@dataclass(frozen=True)
class Result:
    """The measured seconds of one promise, in the order in which they were measured."""

    name: str
    bar: float
    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def verdict(self) -> str:
        return "kept" if self.median <= self.bar else "broken"


def promises(lessons: Path = LESSONS) -> list[Promise]:
    """All promises: the import, the commands, the grader, and every lesson in the folder."""
    command = [*_QLAB, "memory", "Llama-3-70B"]
    planned = "plan --model Llama-3-70B --workload recommend --latency 200ms --qps 50"
    fixed = [
        Promise("import qlab", 0.3, 5, lambda: _printed(_IMPORT)),
        Promise("qlab memory Llama-3-70B, whole command", 0.5, 5, lambda: _wall_clock(command)),
        Promise("qlab plan, whole command", 3, 5, lambda: _wall_clock([*_QLAB, *planned.split()])),
        Promise("10,000 requests to a simulated server", 2, 3, lambda: _printed(_SERVE)),
        Promise("qlab.evaluate on nano", 30, 3, lambda: _printed(_EVALUATE)),
        Promise("qlab mutants, all questions", 180, 1, lambda: _wall_clock([*_QLAB, "mutants"])),
        Promise("qlab grade, one submission of set 02", 10, 3, lambda: _graded(1)),
        Promise(f"qlab grade, a class of {CLASS}", 5 * CLASS, 1, lambda: _graded(CLASS)),
    ]

    def lesson(path: Path) -> Promise:
        return Promise(f"lesson {path.stem}", 45, 1, lambda: _printed(_LESSON, str(path), str(path.parent)))

    return [*fixed, *(lesson(path) for path in sorted(lessons.glob("*.ipynb")))]


def run(promise: Promise) -> Result:
    """Measure one promise as often as it asks for.

    Raises:
        RuntimeError: what was to be measured failed; the message ends with its own last line.
    """
    return Result(promise.name, promise.bar, [promise.measure() for _ in range(promise.repeats)])


def _printed(code: str, *arguments: str) -> float:
    """Seconds that a Python program prints about itself, as its last line."""
    return float(_output([sys.executable, "-c", code, *arguments]).split()[-1])


def _wall_clock(command: list[str]) -> float:
    start = time.perf_counter()
    _output(command)
    return time.perf_counter() - start


def _graded(students: int) -> float:
    """Seconds of the whole command over that many right submissions, a folder for each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(students):
            (folder / "submitted" / f"student_{number:02d}").mkdir(parents=True)
            shutil.copy(MASTER, folder / "submitted" / f"student_{number:02d}")
        return _wall_clock([*_QLAB, "grade", str(folder / "submitted"), "--out", str(folder / "graded")])


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m qlab.bench.seconds", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--lessons", type=Path, default=LESSONS, help="the folder of the lessons (default: notebooks)")
    options = parser.parse_args(arguments)

    results = []
    for promise in promises(options.lessons):
        try:
            results.append(run(promise))
        except RuntimeError as error:
            print(f"error: {promise.name}: {error}", file=sys.stderr)
            return 2
        if not options.json:
            print(_line(results[-1]), flush=True)
    if options.json:
        rows = [asdict(result) | {"median": result.median, "verdict": result.verdict} for result in results]
        print(json.dumps({"cores": usable_cores(), "results": rows}, indent=2))
    else:
        broken = [result.name for result in results if result.verdict == "broken"]
        print(
            f"On {usable_cores()} cores: " + (f"broken: {', '.join(broken)}." if broken else "every promise is kept.")
        )
    return 0


def _line(result: Result) -> str:
    runs = "one run" if len(result.seconds) == 1 else f"median of {len(result.seconds)} runs"
    return f"{result.name:<40} {result.median:8.2f} s  at most {result.bar:>4} s: {result.verdict} ({runs})"


if __name__ == "__main__":
    sys.exit(main())
