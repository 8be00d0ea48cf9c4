from __future__ import annotations

from typing import Any

import pytest

from qlab.deploy.entries import check_fields, check_origin, is_date, is_positive, look_up, nearest, suggestion

KNOWN = {"A100-80GB": 1, "A100-40GB": 2, "RTX-4090": 3}


@pytest.mark.parametrize("written", ["rtx-4090", "RTX 4090", " rtx_4090 "])
def test_names_in_any_case(written: str) -> None:
    assert look_up("gpu", written, KNOWN) == 3


def test_unknown_names_get_the_nearest_or_all() -> None:
    with pytest.raises(
        ValueError, match=r"^gpu: 'A100-60GB' is not known; did you mean A100-[48]0GB or A100-[48]0GB\?$"
    ):
        look_up("gpu", "A100-60GB", KNOWN)
    with pytest.raises(ValueError, match="^gpu: 'zzz' is not known; choose from A100-80GB, A100-40GB, RTX-4090$"):
        look_up("gpu", "zzz", KNOWN)
    with pytest.raises(TypeError, match="^gpu: got int; give a name such as 'A100-80GB'$"):
        look_up("gpu", 4090, KNOWN)


def test_the_nearest_come_first_and_are_three_at_most() -> None:
    assert nearest("A100-80", KNOWN)[0] == "A100-80GB"
    assert len(nearest("p5", [f"p5.{n}xlarge" for n in range(9)], cutoff=0)) == 3
    assert suggestion("zzz", ["a", "b"]) == "choose from a, b"


GOOD = {"source": "a page", "date": "2026-07-20", "confidence": "high"}


@pytest.mark.parametrize(
    "changes",
    [{}, {"source": ["a page", "another"]}, {"date": "2026"}, {"date": "2026-07"}, {"date": "undated"}],
)
def test_good_origins(changes: dict[str, Any]) -> None:
    check_origin("here", {**GOOD, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": ""}, "here has no source"),
        ({"source": " "}, "here has no source"),
        ({"source": []}, "here has no source"),
        ({"source": ["a", " "]}, "here has no source"),
        ({"source": None}, "here has no source"),
        ({"source": 7}, "here has no source"),
        ({"date": None}, "here has the date None"),
        ({"date": 2026}, "here has the date 2026"),
        ({"date": "2026-13"}, "here has the date '2026-13'"),
        ({"date": "20.7.2026"}, "here has the date '20.7.2026'"),
        ({"confidence": ""}, "here does not say how far to trust it"),
        ({"confidence": None}, "here does not say how far to trust it"),
    ],
)
def test_bad_origins(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_origin("here", {**GOOD, **changes})


def test_fields() -> None:
    check_fields("here", {"a": 1}, ["a"], ["a", "b"])
    with pytest.raises(ValueError, match="here misses 'a'"):
        check_fields("here", {"b": 1}, ["a"], ["a", "b"])
    with pytest.raises(ValueError, match="here has unknown 'prise'; did you mean price"):
        check_fields("here", {"prise": 1}, [], ["price", "date"])
    with pytest.raises(ValueError, match="here is 7; it must be a mapping"):
        check_fields("here", 7, [], [])


def test_dates_and_numbers() -> None:
    assert [is_date(x) for x in ("2026-02-28", "2026-02", "2026", "26", "2026-00", 2026)] == [True] * 3 + [False] * 3
    assert is_positive(1) and is_positive(0.5)
    assert not any(map(is_positive, (0, -1, True, "1", None, float("inf"), float("nan"))))
