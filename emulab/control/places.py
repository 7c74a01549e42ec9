"""Where the labs of a user are found: a folder of their own with one folder per lab.

Root's is /run/emulab, everybody else's $XDG_RUNTIME_DIR/emulab or, without a login session, ~/.local/state/emulab.  A lab's
folder holds its socket, its log, and a lock that lasts as long as the lab does: the kernel lets go of it with the last of
its processes, however they ended.  So nobody has to believe a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from emulab.errors import InputError, MachineError, nearest

_SOCKET_PATH = 107  # bytes: sockaddr_un of unix(7)


class Place(NamedTuple):
    """The folder of one lab."""

    folder: Path
    user: str = ""

    @property
    def name(self) -> str:
        """As it is typed: ``flat-calico``, or for somebody else's lab ``alice/flat-calico``."""
        return f"{self.user}/{self.folder.name}" if self.user else self.folder.name

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    def bury(self, lock: int) -> None:
        """Take the folder away; ``lock`` is the held lock, so it is nobody else's by now."""
        import shutil  # `emulab-cni` buries nobody, and starts without it

        with contextlib.suppress(OSError):
            if os.fstat(lock).st_ino == os.stat(self.lock).st_ino:
                shutil.rmtree(self.folder, ignore_errors=True)


def own() -> Path:
    """The folder of this user's labs, made when it is not there.  Raises `MachineError` when there can be none."""
    folder = home()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{folder}: {error.strerror}: set XDG_RUNTIME_DIR to a folder of yours") from None
    found = folder.lstat()
    if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
        raise MachineError(f"{folder} belongs to somebody else: set XDG_RUNTIME_DIR to a folder of yours")
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def home() -> Path:
    """Where that folder is, or would be."""
    uid = os.geteuid()
    if uid == 0:
        return Path("/run/emulab")
    for runtime in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{uid}"):
        with contextlib.suppress(OSError):
            if runtime and os.path.isabs(runtime) and os.stat(runtime).st_uid == uid:
                return Path(runtime, "emulab")
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state, "emulab")


def claim(name: str) -> tuple[Place, int]:
    """Take a name for a new lab; returns its place and the descriptor that holds its lock."""
    from emulab.topology import is_label

    if not is_label(name):
        raise InputError(f"{name!r} is no name for a lab: at most 63 of a-z, 0-9 and '-' expected (RFC 1123)")
    place = Place(own() / name)
    if len(os.fsencode(place.socket)) > _SOCKET_PATH:
        raise InputError(f"{place.socket}: too long for a socket's path, at most {_SOCKET_PATH} bytes")
    while True:
        place.folder.mkdir(mode=0o700, exist_ok=True)
        lock = _locked(place)
        if lock is None:
            raise InputError(f"lab '{name}' is up already (emulab down {name}, or choose another --name)")
        with contextlib.suppress(FileNotFoundError):  # somebody has just swept it away
            if os.stat(place.lock).st_ino == os.fstat(lock).st_ino:
                for left in (place.socket, place.log):
                    left.unlink(missing_ok=True)
                return place, lock
        os.close(lock)


def _locked(place: Place) -> int | None:
    """A descriptor that holds the lab's lock, or None: somebody else does.  In another user's folder nothing is made."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (0 if place.user else os.O_CREAT)
    try:
        lock = os.open(place.lock, flags, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def alive(place: Place) -> bool:
    """Whether any process of the lab is there; the folder of one that is not is swept away."""
    lock = _locked(place)
    if lock is None:
        return place.lock.exists()
    if not place.user:
        place.bury(lock)
    os.close(lock)
    return False


def become(user: str) -> None:
    """Root goes on as the owner of the lab that it enters: what a user's lab answers is not to be trusted by root."""
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    os.environ.update(HOME=entry.pw_dir, USER=user, LOGNAME=user)


def labs(everybody: bool = False) -> list[Place]:
    """The labs of this user that are alive; for root, with ``everybody``, those of all users."""
    found = list(_in(home(), ""))
    if everybody and os.geteuid() == 0:
        for user in pwd.getpwall():
            if user.pw_uid:
                folders = [Path(f"/run/user/{user.pw_uid}/emulab"), Path(user.pw_dir, ".local/state/emulab")]
                found += [place for folder in folders for place in _in(folder, user.pw_name, user.pw_uid)]
    return found


def _in(folder: Path, user: str, uid: int | None = None) -> Iterator[Place]:
    try:
        if folder.lstat().st_uid != (os.geteuid() if uid is None else uid):
            return
        entries = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    yield from (place for name in entries if alive(place := Place(folder / name, user)))


def find(name: str | None) -> Place:
    """The lab called ``name``, else the one in $EMULAB_LAB, else the only one.  Raises `InputError` when there is none."""
    wanted = name or os.environ.get("EMULAB_LAB")
    found = labs(everybody=bool(wanted and "/" in wanted))
    if wanted is None:
        if not found:
            raise InputError("no lab is up (emulab up starts one)")
        if len(found) > 1:
            raise InputError(f"several labs are up: choose one by -l ({', '.join(place.name for place in found)})")
        return found[0]
    for place in found:
        if place.name == wanted:
            return place
    hint = nearest(wanted, [place.name for place in found]) or " (none is up: emulab up starts one)"
    raise InputError(f"no lab '{wanted}'{hint}")
