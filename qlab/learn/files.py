"""Read files that a stranger wrote, and write files that are whole or not there."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Everything that could move a terminal's cursor or fool a reader's eye: controls but tab and newline, surrogates,
# and the marks that turn the direction of the text.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def read_strictly(name: str | Path, limit: int, folder: int | None = None) -> bytes:
    """The bytes of a regular file.

    Args:
        name: the file; where it is a symbolic link, it is not followed.
        limit: in bytes.
        folder: the open folder that `name` lies in, so that nobody can exchange it on the way.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a link, a pipe, a folder or a device lies there, or the file is larger than the limit.
    """
    try:
        # A pipe opens without waiting for a writer, and is then refused.
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:  # ELOOP for a link, ENXIO for a socket
        raise ValueError(f"cannot be read as a plain file ({os.strerror(error.errno or 0)})") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError("not a plain file")
    with os.fdopen(handle, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"larger than the {limit:,} bytes that are allowed")
    return content


def read_yaml(path: Path) -> Any:
    """What a YAML file holds: plain values only.

    Raises:
        ValueError: the file is missing, no text, no YAML, or names something twice.
    """
    import yaml  # not every reader of files needs it

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # in C it is ten times faster
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [(key.tag, str(key.value)) for key, _ in node.value]
            if twice := [name for _, name in (key for key in keys if keys.count(key) > 1)]:
                raise yaml.YAMLError(f"{twice[0]!r} stands there twice, {str(node.start_mark).strip()}")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as YAML ({reason})") from None


def read_mapping(path: Path) -> dict[Any, Any]:
    """What a YAML file holds by name. Raises ValueError as `read_yaml`, and where it holds something else."""
    found = read_yaml(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__} and no names")
    return found


def write_whole(path: Path, content: str | bytes) -> None:
    """Write beside the file, then rename: whoever looks sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    raw = content.encode("utf-8", errors="replace") if isinstance(content, str) else content
    try:
        partial.write_bytes(raw)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def printable(text: str, limit: int = 20_000) -> str:
    """The text without colour codes and control characters, cut to `limit` characters."""
    text = text if len(text) <= limit else text[:limit] + f" … ({len(text) - limit:,} more characters)"
    return _UNPRINTABLE.sub("\ufffd", _ANSI.sub("", text).replace("\r\n", "\n"))
