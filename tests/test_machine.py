from __future__ import annotations

import os
from importlib.metadata import version

import pytest

from qlab.machine import usable_cores, version_of


def test_cores_are_those_this_process_may_use() -> None:
    assert usable_cores() == (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


def test_a_restricted_process_has_fewer_cores() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("only Linux restricts a process to cores")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_versions_of_what_is_installed_and_none_for_what_is_not() -> None:
    assert version_of("numpy") == version("numpy")
    assert version_of("a-package-nobody-wrote") is None
