"""The texts of manifests: from files, folders and standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from emulab.errors import InputError

_ENDINGS = (".yaml", ".yml", ".json")


def texts(files: Sequence[str]) -> list[tuple[str, str]]:
    """(name, text) of each file.  Raises `InputError` for what cannot be read."""
    found: list[tuple[str, str]] = []
    for file in files:
        if file == "-":
            found.append(("stdin", _decoded(sys.stdin.buffer.read, "stdin")))
            continue
        path = Path(file)
        if _is_folder(path):
            inside = sorted(one for one in path.iterdir() if one.suffix in _ENDINGS and not one.is_dir())
            if not inside:
                raise InputError(f"no manifest in this folder, {' or '.join(f'*{ending}' for ending in _ENDINGS)} expected", file)
            found += [(str(one), _text(one)) for one in inside]
        else:
            found.append((file, _text(path)))
    return found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # too long a name: whoever opens it says so
        return False


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return _decoded(stream.read, str(path))
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise InputError(f"cannot read the manifest: {getattr(error, 'strerror', error)}", str(path)) from None


def _decoded(read: Callable[[int], bytes], name: str) -> str:
    from emulab.text import LONGEST

    data = read(LONGEST + 1)
    if len(data) > LONGEST:
        raise InputError(f"more than {LONGEST >> 20} MiB, which is all that the API server takes at once", name)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InputError("cannot read the manifest: it is not UTF-8 text", name) from None
