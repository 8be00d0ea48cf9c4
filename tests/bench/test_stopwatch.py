from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qlab.bench import stopwatch
from qlab.bench.stopwatch import Budget, Spread


class Clock:
    """Time that passes only inside the calls."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def call(self, name: str, seconds: float):  # type: ignore[no-untyped-def]
        def run() -> None:
            self.calls.append(name)
            self.now += seconds

        return run

    @property
    def stopwatch(self) -> stopwatch.Stopwatch:
        return stopwatch.cpu_stopwatch(lambda: self.now)


def test_median_and_quartiles() -> None:
    # Sorted 1 2 3 4 9: the quartiles of five numbers are the second and the fourth.
    assert stopwatch.spread([9.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0, 5)
    assert stopwatch.spread([2.0]) == Spread(2.0, 2.0, 2.0, 1)
    with pytest.raises(ValueError, match="seconds: got none"):
        stopwatch.spread([])


def test_ratio_is_the_median_over_pairs() -> None:
    # In the third pair everything took ten times as long. The ratio of the medians would be 20 / 1.2.
    assert stopwatch.ratio([1.0, 1.2, 10.0], [2.0, 2.4, 20.0]) == 2.0
    assert stopwatch.ratio([1.0, 1.0, 4.0], [2.0, 3.0, 4.0]) == 2.0


def test_repetitions_fit_the_budget() -> None:
    budget = Budget(seconds=1.0, least=3, most=50)
    assert [budget.repetitions(seconds) for seconds in (0.1, 0.001, 10.0, 0.0)] == [10, 50, 3, 50]


def test_seconds_are_those_of_each_call() -> None:
    clock = Clock()
    assert clock.stopwatch([clock.call("a", 2.0), clock.call("b", 3.0)]) == [2.0, 3.0]


def test_calls_take_turns_and_the_first_ones_do_not_count() -> None:
    clock = Clock()
    calls = [clock.call(name, 0.1) for name in "abc"]
    seconds = stopwatch.measure(clock.stopwatch, calls, Budget(0.45, 1, 10))
    assert "".join(clock.calls) == "a" + "bca" + "abca"
    assert seconds == pytest.approx([0.1] * 4)


def test_a_slow_call_is_warmed_up_once() -> None:
    clock = Clock()
    stopwatch.measure(clock.stopwatch, [clock.call("a", 0.3)], Budget(0.1, 2, 10))
    assert clock.calls == ["a"] * 3


def test_pairs_alternate_and_keep_their_order() -> None:
    clock = Clock()
    sides = [[clock.call(f"{name}{i}", seconds) for i in range(2)] for name, seconds in (("o", 1.0), ("b", 4.0))]
    ours, base = stopwatch.measure_pairs(clock.stopwatch, *sides, Budget(0.0, 3, 3))
    assert clock.calls[2:] == ["o0", "b0", "b1", "o1", "o0", "b0"]
    assert (ours, base) == ([1.0] * 3, [4.0] * 3)


def test_copies_exceed_the_cache_and_share_nothing() -> None:
    w = torch.arange(1000, dtype=torch.int8)
    found = stopwatch.copies((w, "other"), w.nbytes, cache=1500)
    assert len(found) == 6 and len({copy[0].data_ptr() for copy in found}) == 6
    assert all(torch.equal(copy[0], w) for copy in found)
    assert len(stopwatch.copies(w, w.nbytes, cache=10)) == 1, "a weight past four caches needs no copies"
    assert len(stopwatch.copies(w, 1, cache=2**30)) == stopwatch.MOST_COPIES


def test_the_cache_is_the_largest_that_linux_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, size in enumerate(("48K\n", "2M\n", "1024K\n")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size)
    monkeypatch.setattr(stopwatch, "CACHES", tmp_path)
    assert stopwatch.cache_bytes(torch.device("cpu")) == 2 * 2**20
    monkeypatch.setattr(stopwatch, "CACHES", tmp_path / "none")
    monkeypatch.setattr(stopwatch.os, "sysconf_names", {})
    assert stopwatch.cache_bytes(torch.device("cpu")) == stopwatch.UNKNOWN_CACHE


def test_events_lie_around_the_call_alone_and_the_cache_is_emptied_before(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.enabled = enable_timing

        def record(self) -> None:
            log.append("event")

        def elapsed_time(self, end: Event) -> float:
            assert self.enabled and end.enabled and log[-1] == "synchronize"
            return 2.0  # milliseconds

    class Buffer:
        def sum(self) -> None:
            log.append("read")

    monkeypatch.setattr(torch, "zeros", lambda count, device: Buffer())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("synchronize"))
    calls = [lambda: log.append("a"), lambda: log.append("b")]
    assert stopwatch.cuda_stopwatch()(calls) == [0.002, 0.002]
    assert log == ["synchronize", *"read event a event read event b event".split(), "synchronize"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA events need a GPU")
def test_events_see_the_device() -> None:
    x = torch.randn(2048, 2048, device="cuda")
    watch = stopwatch.cuda_stopwatch(2**24)
    watch([lambda: x @ x])
    few, many = watch([lambda: x @ x, lambda: [x @ x for _ in range(50)]])
    assert 0 < few < many
