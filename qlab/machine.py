"""What everybody may ask about the machine: its cores, and the versions of packages. Nothing is imported for it."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def version_of(package: str) -> str | None:
    """Of an installed package; None where it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
