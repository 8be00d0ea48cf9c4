"""Who is measured: one table of kernels, ours and others'.

What is not installed, or does not work on a device, is no error: it is listed with the reason.
"""

from __future__ import annotations

from . import cpu, gpu, libraries
from .contestant import DENSE, Contestant, dense

_PLAIN = Contestant(
    DENSE, "F.linear in 16 bits: the base", ("cuda", "cpu", "cpu-interpreted"), ("float16", "bfloat16"), dense
)
TABLE = (_PLAIN, *cpu.TABLE, *gpu.TABLE, *libraries.TABLE)  # the plain product first


def contestants(device: str, asked: tuple[str, ...] = (), known: tuple[Contestant, ...] = ()) -> list[Contestant]:
    """Those of a device that choose their own path, or those asked for by name.

    Raises:
        ValueError: a name that nobody has on this device.
    """
    here = {one.name: one for one in known or TABLE if device in one.devices}
    if unknown := [name for name in asked if name not in here]:
        raise ValueError(f"kernels: got {', '.join(unknown)}; on {device} there are {', '.join(here)}")
    return [one for name, one in here.items() if name in asked or not (asked or one.forced)]
