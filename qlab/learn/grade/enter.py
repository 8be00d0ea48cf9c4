"""The door of the box: run as a script of its own (`python -I enter.py SPEC`), it builds the box and starts the worker.

At the level "namespaces" the worker becomes process 1 of a new process namespace, without a network, in a file system
that holds the system's programs, this Python and the package without its answers, all of it read-only, and a small /tmp
in memory. Linux 5.12 or newer. At the level "watchdog" this process stays as the parent of whatever the worker leaves
behind, and kills it.

Nothing but the standard library (and psutil for the watchdog) is imported: this is not the place for surprises.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_NEW_MOUNTS, _NEW_HOST_NAME, _NEW_IPC, _NEW_USER = 0x20000, 0x4000000, 0x8000000, 0x10000000
_NEW_PROCESSES, _NEW_NETWORK = 0x20000000, 0x40000000
_NO_SUID, _NO_DEVICES, _BIND, _RECURSIVE, _PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000
_MOUNT_SETATTR, _AT_RECURSIVE, _AT_FDCWD = 442, 0x8000, -100  # the number is the same on every architecture
_ATTR_READ_ONLY, _ATTR_NO_SUID = 0x1, 0x2
_DETACH = 2
_DIE_WITH_PARENT, _ADOPT_ORPHANS, _DROP_BOUND, _NO_NEW_PRIVILEGES = 1, 36, 24, 38
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def main() -> int:
    """Build the box that the specification asks for and run its command in it."""
    spec = json.loads(sys.argv[1])
    return _boxed(spec) if spec["level"] == "namespaces" else _watched(spec)


def _boxed(spec: dict[str, Any]) -> int:
    user, group = os.getuid(), os.getgid()
    spaces = _NEW_MOUNTS | _NEW_HOST_NAME | _NEW_IPC | _NEW_PROCESSES | _NEW_NETWORK
    try:
        _call("unshare", spaces | _NEW_USER)
        _put("/proc/self/setgroups", "deny")
        _put("/proc/self/uid_map", f"{user} {user} 1")
        _put("/proc/self/gid_map", f"{group} {group} 1")
        own_users = True
    except OSError:
        if user != 0:
            raise
        _call("unshare", spaces)  # root of a machine that forbids user namespaces can still have the others
        own_users = False
    _die_with(spec["parent"])
    child = os.fork()  # process 1 of the new process namespace: with it all others die
    if child == 0:
        _call("prctl", _DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        _build(spec, own_users)
        _drop_privileges()
        _limit(spec["limits"])
        os.chdir(spec["folder"])
        os.execve(spec["command"][0], spec["command"], spec["environment"])
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) & 0xFF


def _build(spec: dict[str, Any], own_users: bool) -> None:
    """Make the new root and move into it."""
    root = spec["root"]
    _mount("none", "/", "", _RECURSIVE | _PRIVATE)
    _tmpfs(root, 16)
    # First, because what is shown may lie below /tmp: a clone that somebody made there, with its environment.
    for path, megabytes in (("/tmp", spec["limits"]["disk"] >> 20), ("/dev/shm", 64)):
        Path(root + path).mkdir(parents=True)
        _tmpfs(root + path, megabytes)
    paths = [(path, True) for path in spec["show"]] + [(path, False) for path in spec["hide"]]
    for path, show in sorted(paths, key=lambda entry: entry[0].count("/")):  # what lies deeper has the last word
        if show:
            _show(Path(path), Path(root + path))
        elif Path(root + path).is_dir():
            _tmpfs(root + path, 1)
    for device in _DEVICES:
        _show(Path(device), Path(root + device))
    Path(f"{root}/dev/fd").symlink_to("/proc/self/fd")
    for path in spec["make"]:
        Path(root + path).mkdir(parents=True, exist_ok=True)
    for source, path in spec["bind"]:
        _show(Path(source), Path(root + path))
    Path(f"{root}/proc").mkdir()
    _mount("proc", f"{root}/proc", "proc", _NO_SUID | _NO_DEVICES)
    if own_users:  # nobody inside needs a namespace of their own; where this cannot be set, it is no loss
        with suppress(OSError):
            _put(f"{root}/proc/sys/user/max_user_namespaces", "0")
    _attributes(root, _AT_RECURSIVE, set_=_ATTR_READ_ONLY | _ATTR_NO_SUID)
    for path in ("/tmp", "/dev/shm", *spec["writable"]):
        _attributes(root + path, 0, clear=_ATTR_READ_ONLY)
    os.chdir(root)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", _DETACH)  # the old root, which now lies over the new one
    os.chdir("/")


def _show(source: Path, target: Path) -> None:
    """Make a file, a folder or a link of the machine visible in the new root."""
    if not os.path.lexists(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink() and not os.path.lexists(target):
        target.symlink_to(source.readlink())
        return
    if source.is_dir():
        target.mkdir(exist_ok=True)
    elif not target.exists():
        target.touch()
    _mount(str(source), str(target), "", _BIND | _RECURSIVE)


def _drop_privileges() -> None:
    """Without them even root's code cannot take the box apart."""
    _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    for capability in range(64):
        with suppress(OSError):  # beyond the last that this system knows
            _call("prctl", _DROP_BOUND, capability, 0, 0, 0)
    _call("capset", (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())


def _watched(spec: dict[str, Any]) -> int:
    """Run the worker; when it has ended, or the grader has gone, kill everything that descends from this process."""
    import psutil

    if sys.platform == "linux":
        _call("prctl", _ADOPT_ORPHANS, 1, 0, 0, 0)
    me = psutil.Process()
    _limit(spec["limits"])
    worker = subprocess.Popen(spec["command"], cwd=spec["folder"], env=spec["environment"], start_new_session=True)
    while worker.poll() is None and os.getppid() == spec["parent"]:
        time.sleep(0.05)
    while left := [child for child in me.children(recursive=True) if _runs(child)]:
        for act in (psutil.Process.suspend, psutil.Process.kill):  # what stands still cannot fork again
            for child in left:
                with suppress(psutil.Error):
                    act(child)
        time.sleep(0.02)
    return (worker.poll() or 0) & 0xFF


def _runs(process: Any) -> bool:
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _limit(limits: dict[str, int]) -> None:
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_DATA: limits["memory"],
        resource.RLIMIT_FSIZE: limits["disk"],
        resource.RLIMIT_NPROC: limits["tasks"],
    }
    for what, value in wanted.items():
        _, most = resource.getrlimit(what)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        with suppress(OSError, ValueError):  # macOS does not have all of them; the watchdog looks, too
            resource.setrlimit(what, (value, value))


def _die_with(parent: int) -> None:
    _call("prctl", _DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it had gone before we asked
        sys.exit(1)


def _tmpfs(path: str, megabytes: int) -> None:
    _mount("tmpfs", path, "tmpfs", _NO_SUID | _NO_DEVICES, f"size={megabytes}m,nr_inodes=20k,mode=755")


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind.encode(), flags, data.encode())


def _attributes(path: str, flags: int, set_: int = 0, clear: int = 0) -> None:
    attributes = (ctypes.c_uint64 * 4)(set_, clear, 0, 0)
    _call("syscall", _MOUNT_SETATTR, _AT_FDCWD, path.encode(), flags, attributes, ctypes.sizeof(attributes))


def _put(path: str, text: str) -> None:
    Path(path).write_text(text)


_LIBC = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> None:
    """Call the C library. Whole numbers go as longs: the variadic functions read 64 bits."""
    wide = [ctypes.c_ulong(a & (2**64 - 1)) if isinstance(a, int) else a for a in arguments]
    if getattr(_LIBC, name)(*wide) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main())
