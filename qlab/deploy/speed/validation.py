"""The model of time against published speeds: every row predicted, or excluded with a reason, and the errors.

`published` says what each row measured; `phases` and `efficiency` say how long it should take. The number compared is
the row's own: tokens per second, milliseconds per token, or times as fast as a baseline, for each GPU.

The parameters come from the same rows, so the error found there flatters. `leave_one_source_out` finds them again
without one source at a time and predicts that source with them: what only that source told is then not known at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ..results import Result, results
from .efficiency import HOSTS, PARAMETERS, Parameter, from_table
from .phases import decode, prefill
from .published import Excluded, Job, Reading, read

LEFT_OUT = Path(__file__).parents[1] / "data" / "left_out.json"
MISS = 0.5  # relative error beyond which a row needs an explanation


@dataclass(frozen=True)
class Comparison:
    """A published speed and what the model says."""

    reading: Reading
    predicted: float

    @property
    def published(self) -> float:
        return float(self.reading.row.value)  # type: ignore[arg-type]

    @property
    def error(self) -> float:
        """Relative, with its sign: 0.1 where 10 % too much was predicted."""
        return self.predicted / self.published - 1

    @property
    def source(self) -> str:
        return self.reading.row.source


@dataclass(frozen=True)
class Validation:
    """All rows of kind "speed": those compared, and those that could not be, with the reason."""

    comparisons: tuple[Comparison, ...]
    excluded: tuple[tuple[Result, str], ...]

    @property
    def median(self) -> float:
        """Median absolute relative error."""
        return median(abs(one.error) for one in self.comparisons)

    def within(self, error: float) -> float:
        """The part of the rows whose absolute relative error is at most this."""
        return sum(abs(one.error) <= error for one in self.comparisons) / len(self.comparisons)

    @property
    def misses(self) -> tuple[Comparison, ...]:
        """Rows with an error beyond `MISS`, the worst first."""
        found = [one for one in self.comparisons if abs(one.error) > MISS]
        return tuple(sorted(found, key=lambda one: -abs(one.error)))

    def by_source(self) -> dict[str, tuple[Comparison, ...]]:
        """The comparisons of each source."""
        sources = dict.fromkeys(one.source for one in self.comparisons)
        return {source: tuple(one for one in self.comparisons if one.source == source) for source in sources}

    def reasons(self) -> dict[str, list[str]]:
        """The ids of the excluded rows by reason."""
        found: dict[str, list[str]] = {}
        for row, reason in self.excluded:
            found.setdefault(reason, []).append(row.id)
        return found

    def __str__(self) -> str:
        lines = [
            f"{len(self.comparisons)} published speeds predicted, {len(self.excluded)} excluded.",
            f"Median absolute error {self.median:.0%}; {self.within(0.25):.0%} of the rows within 25 %, "
            f"{self.within(0.5):.0%} within 50 %.",
            "",
            f"{'rows':>4} {'median':>7} {'worst':>7}  source",
        ]
        for source, rows in self.by_source().items():
            worst = max((one.error for one in rows), key=abs)
            lines.append(f"{len(rows):>4} {median(abs(one.error) for one in rows):>7.0%} {worst:>+7.0%}  {source}")
        return "\n".join(lines)


def validate(table: Mapping[str, float] | None = None) -> Validation:
    """Predict every published speed that can be read.

    Args:
        table: parameters by name, others than those of `efficiency`.
    """
    found, excluded = readings()
    table = TABLE if table is None else table
    return Validation(tuple(Comparison(one, predict(one, table)) for one in found), excluded)


def readings() -> tuple[tuple[Reading, ...], tuple[tuple[Result, str], ...]]:
    """The rows of kind "speed" that say what they measured, and the others with the reason."""
    found, excluded = [], []
    for row in results(kind="speed"):
        try:
            found.append(read(row))
        except Excluded as reason:
            excluded.append((row, str(reason)))
    return tuple(found), tuple(excluded)


def predict(reading: Reading, table: Mapping[str, float] | None = None) -> float:
    """What the model says, in the metric of the row."""
    table = TABLE if table is None else table
    taken, job = seconds(reading.job, table), reading.job
    if reading.baseline is not None:  # requests per second and GPU, against those of the baseline
        base = reading.baseline
        return (seconds(base, table) * base.gpus / base.batch) / (taken * job.gpus / job.batch)
    if reading.row.metric == "ms":
        return 1e3 * taken / job.output
    return job.batch * job.output / taken


def seconds(job: Job, table: Mapping[str, float] | None = None) -> float:
    """The time of a job: all prompts in one pass, then a step for each token, at the mean length of the cache."""
    table = TABLE if table is None else table
    kernels, host, batch = from_table(job.kernels, table), table.get(f"host.{job.host}", 1.0), job.batch
    time = 0.0
    if job.only != "decode":
        time += prefill(
            job.model, job.precision, job.gpu, job.prompt, batch,
            tensor_parallel=job.gpus, kv_bits=job.kv_bits, kernels=kernels, host=host,
        ).seconds  # fmt: skip
    if job.only != "prefill":
        time += job.output * decode(
            job.model, job.precision, job.gpu, batch, job.prompt + job.output / 2,
            tensor_parallel=job.gpus, kv_bits=job.kv_bits, kernels=kernels, host=host,
        ).seconds  # fmt: skip
    return time


_ALL: dict[str, Parameter] = PARAMETERS | {f"host.{name}": parameter for name, parameter in HOSTS.items()}
TABLE: dict[str, float] = {name: parameter.value for name, parameter in _ALL.items()}
FITTED = tuple(name for name, parameter in _ALL.items() if parameter.fitted)
_START = {  # round numbers at which the search begins
    "read_16": 0.8, "read_8": 0.8, "read_4": 0.8, "cache": 0.8, "expanded": 2.0, "matrix_16": 0.5, "matrix_8": 0.5,
    "matrix_4": 0.5, "unpack": 0.7, "unpack_operations": 100.0, "layer": 5e-5, "step": 1e-3, "host_layer": 5e-4,
    "host_product": 5e-5, "desktop": 1.0, "small": 1.0,
}  # fmt: skip
_PARTS = ("read_16", "read_8", "read_4", "cache", "matrix_16", "matrix_8", "matrix_4", "unpack")
_MOST = 0.92  # of a data sheet's rate: about what copies and large products reach


def fit(found: Sequence[Reading], steps: Iterable[float] = (2.0, 1.5, 1.2, 1.1, 1.05, 1.02)) -> dict[str, float]:
    """The parameters that predict some rows best: least mean absolute error of the logarithm.

    One parameter after another is multiplied or divided by a step while that helps; then the steps get smaller. The
    search starts at round numbers. A stack's own parameter that none of the rows depends on is left out, so that the
    stack falls back on the numbers of its family; one of all stacks stays at its round number.
    """
    table = TABLE | {name: _START[name.partition(".")[2]] for name in FITTED}
    informed = {name: _dependent(found, name, table) for name in FITTED}
    table = {name: value for name, value in table.items() if informed.get(name, True) or name.startswith("all.")}
    errors = [_log_error(one, table) for one in found]
    for step in steps:
        moved = True
        while moved:
            moved = False
            for name in filter(informed.get, FITTED):
                for factor in (step, 1 / step):
                    changed = table | {name: table[name] * factor}
                    if name.partition(".")[2] in _PARTS and changed[name] > _MOST:
                        continue
                    after = {i: _log_error(found[i], changed) for i in informed[name]}
                    if sum(after.values()) < sum(errors[i] for i in after) - 1e-6:
                        table, moved = changed, True
                        for i, error in after.items():
                            errors[i] = error
                        break
    return table


def informs(name: str, found: Sequence[Reading] | None = None) -> tuple[str, ...]:
    """The sources of the rows that depend on a parameter. Raises ValueError if there is no such parameter."""
    if name not in TABLE:
        raise ValueError(f"name: got {name!r}; choose from {', '.join(TABLE)}")
    found = readings()[0] if found is None else found
    return tuple(dict.fromkeys(found[i].row.source for i in _dependent(found, name, TABLE)))


def leave_one_source_out(sources: Sequence[str] | None = None) -> Validation:
    """Every source, or some, predicted with parameters that were fitted to the other sources alone.

    Takes some seconds for each source; `left_out` has what came of it.
    """
    found, excluded = readings()
    compared: list[Comparison] = []
    for source in dict.fromkeys(one.row.source for one in found) if sources is None else sources:
        table = fit([one for one in found if one.row.source != source], (2.0, 1.3, 1.1, 1.04))
        compared += [Comparison(one, predict(one, table)) for one in found if one.row.source == source]
    return Validation(tuple(compared), excluded)


def left_out() -> Validation:
    """`leave_one_source_out` of all sources, as it was for the data that ships, written by

        python -m qlab.deploy.speed.validation

    Raises ValueError where a row was added to the data since.
    """
    found, excluded = readings()
    predicted = json.loads(LEFT_OUT.read_text(encoding="utf-8"))["predicted"]
    if missing := [one.row.id for one in found if one.row.id not in predicted]:
        raise ValueError(f"{LEFT_OUT.name}: no {missing[0]}; run python -m qlab.deploy.speed.validation")
    return Validation(tuple(Comparison(one, predicted[one.row.id]) for one in found), excluded)


def _dependent(found: Sequence[Reading], name: str, table: Mapping[str, float]) -> list[int]:
    """The rows that a parameter changes."""
    changed = {**table, name: table[name] * 0.5 + 1e-6}
    return [i for i, one in enumerate(found) if abs(_log_error(one, changed) - _log_error(one, table)) > 1e-9]


def _log_error(reading: Reading, table: Mapping[str, float]) -> float:
    return abs(math.log(predict(reading, table) / float(reading.row.value)))  # type: ignore[arg-type]


def main() -> None:
    """Print the fit and its error, and write what `left_out` reads."""
    table = fit(readings()[0])
    print("\n".join(f"{name:40} {TABLE[name]:10.2g}, fitted anew {table[name]:.2g}" for name in FITTED))
    print(f"\n{validate()}\n")
    found = leave_one_source_out()
    document = {
        "about": "Published speeds predicted without their own source, by python -m qlab.deploy.speed.validation.",
        "predicted": {one.reading.row.id: one.predicted for one in found.comparisons},
    }
    LEFT_OUT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main()
