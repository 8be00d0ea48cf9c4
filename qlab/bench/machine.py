"""What was measured on: the device and the versions, so that two files can be told apart."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import qlab

from ..machine import usable_cores, version_of
from .stopwatch import cache_bytes

PACKAGES = ("torch", "triton", "bitsandbytes", "torchao", "gemlite", "vllm")
KERNELS = Path(qlab.__file__).parent / "kernels"


def hardware(device: torch.device) -> dict[str, Any]:
    """The device; sizes in bytes."""
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return {
            "name": found.name,
            "memory": found.total_memory,
            "cache": cache_bytes(device),
            "multiprocessors": found.multi_processor_count,
            "capability": f"{found.major}.{found.minor}",
            "driver": _driver(),
        }
    return {
        "name": _processor(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "cache": cache_bytes(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def versions() -> dict[str, Any]:
    """Versions, None for what is not installed. Our kernels are a digest of their text: it changes more often."""
    return {
        "qlab": qlab.__version__,
        "kernels": _digest(KERNELS),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        **{name: version_of(name) for name in PACKAGES},
    }


def load() -> float | None:
    """Processes that wanted to run at once, on average over the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _digest(folder: Path) -> str:
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    return hashlib.sha256(text).hexdigest()[:12]


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
