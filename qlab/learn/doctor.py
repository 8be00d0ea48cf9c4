"""What this machine has, in words, and what of the course runs on it live, interpreted, or from recorded results."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..machine import usable_cores, version_of

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
OLDEST_PYTHON = (3, 11)
_COMPUTE = ("torch", "transformers", "tokenizers", "safetensors", "matplotlib", "ipywidgets")
_COMPARED = ("bitsandbytes", "gguf", "compressed-tensors")
_PACKAGES = (*_COMPUTE, "triton", *_COMPARED, "jupyterlab", "nbval", "playwright")


@dataclass(frozen=True)
class Machine:
    """What was found. Sizes are bytes; None says that it could not be found out."""

    python: str
    system: str
    packages: dict[str, str | None]  # name: version, None when it is not installed
    cuda: str | None  # the CUDA version of a torch that can use a GPU now, else None
    cuda_note: str  # why there is or is no CUDA
    gpus: list[str]
    cores: int
    memory: int | None
    memory_free: int | None
    disk_free: int
    chromium: str | None

    def missing(self, *names: str) -> list[str]:
        return [name for name in names if self.packages.get(name) is None]


@dataclass(frozen=True)
class Part:
    """One part of the course and how it runs here: "live", "interpreted", "recorded" or "not yet"."""

    name: str
    runs: str
    why: str


def examine() -> Machine:
    """Look at this machine. Works whatever is missing; imports torch, if there is one, to ask it for GPUs."""
    packages = {name: version_of(name) for name in _PACKAGES}
    cuda, note, gpus = _cuda() if packages["torch"] else (None, "torch is not installed", [])
    memory, memory_free = _memory()
    return Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} on {platform.machine()}",
        packages=packages,
        cuda=cuda,
        cuda_note=note,
        gpus=gpus,
        cores=usable_cores(),
        memory=memory,
        memory_free=memory_free,
        disk_free=shutil.disk_usage(Path.cwd()).free,
        chromium=next(filter(None, map(shutil.which, CHROMIUM)), None),
    )


def course(machine: Machine) -> list[Part]:
    """How each part of the course runs on that machine."""
    parts = [
        _live("Lessons and exercises", machine.missing(*_COMPUTE), "PyTorch on the CPU, nano, no network"),
        _live("Comparison with other libraries", machine.missing(*_COMPARED), ", ".join(_COMPARED)),
        _live("JupyterLab (make lab)", machine.missing("jupyterlab"), "in your browser"),
        _live("Deployment memory (qlab memory)", [], "needs no PyTorch"),
        _kernels(machine),
    ]
    browser = machine.missing("playwright", "jupyterlab") + ([] if machine.chromium else ["Chromium"])
    return [*parts, _live("Browser test of the lessons", browser, f"with {machine.chromium}")]


def to_dict(machine: Machine) -> dict[str, Any]:
    """Plain values, ready for JSON."""
    return asdict(machine) | {"course": [asdict(part) for part in course(machine)]}


def rows(machine: Machine) -> list[tuple[str, str]]:
    """(what, what was found) in words."""
    old = sys.version_info < OLDEST_PYTHON
    tritons = {
        "live": "compiles for this GPU",
        "interpreted": "interpreted on the CPU",
        "recorded": "not for this one",
    }
    triton = machine.packages["triton"]
    found = {name: version or "not installed" for name, version in machine.packages.items()}
    return [
        ("Python", machine.python + (", too old: 3.11 or newer is needed" if old else "")),
        ("System", machine.system),
        ("PyTorch", found["torch"]),
        ("CUDA", machine.cuda_note),
        *(("GPU", gpu) for gpu in machine.gpus),
        ("Triton", f"{triton}, {tritons[_kernels(machine).runs]}" if triton else "not installed"),
        ("transformers", found["transformers"]),
        *((name, found[name]) for name in _COMPARED),
        ("JupyterLab", found["jupyterlab"]),
        ("Cores", f"{machine.cores} usable by this process"),
        ("Memory", f"{_gib(machine.memory)}, {_gib(machine.memory_free)} of it free"),
        ("Disk", f"{_gib(machine.disk_free)} free in this folder"),
        ("Chromium", machine.chromium or "not found: only the browser test needs it"),
    ]


def _live(name: str, missing: list[str], why: str) -> Part:
    if missing:
        return Part(name, "not yet", f"missing: {', '.join(missing)} (make setup, or pip install -e '.[lab,test]')")
    return Part(name, "live", why)


def _kernels(machine: Machine) -> Part:
    name = "Triton kernels (lesson 09)"
    if machine.missing("torch", "triton") or not machine.system.startswith("Linux"):
        return Part(name, "recorded", "the outputs in the notebook; Triton needs Linux, torch and triton")
    if machine.cuda:
        return Part(name, "live", f"Triton compiles for {machine.gpus[0]}")
    return Part(name, "interpreted", "Triton's interpreter on the CPU, small shapes and no speeds")


def _cuda() -> tuple[str | None, str, list[str]]:
    try:
        import torch
    except Exception as error:  # a broken installation fails in many ways, and the doctor still has to answer
        return None, f"torch is installed but does not import: {' '.join(str(error).split())[:200]}", []
    if torch.version.cuda is None:
        return None, "this build of PyTorch is for the CPU", []
    if not torch.cuda.is_available():
        return None, f"PyTorch is built for CUDA {torch.version.cuda}, but finds no usable GPU", []
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    gpus = [f"{d.name}, {_gib(d.total_memory)}, compute capability {d.major}.{d.minor}" for d in devices]
    return torch.version.cuda, f"CUDA {torch.version.cuda}, {len(gpus)} GPU" + "s" * (len(gpus) > 1), gpus


def _memory() -> tuple[int | None, int | None]:
    try:
        import psutil
    except ImportError:
        return None, None
    memory = psutil.virtual_memory()
    return memory.total, memory.available


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"
