"""Becoming an ordinary user, because PostgreSQL refuses to run as root.

The trap: an interpreter or a wheel may live where only root can go (``/root/.pyenv`` is mode 0700). Then one
capability is kept, the right to read everything, and nothing else of root's power; programs that run without it are
started without it.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shlex
import sys
from typing import TYPE_CHECKING

from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["become_ordinary_user", "forgo_capability", "without_capability"]

_USERS = ("postgres", "nobody")

# <linux/capability.h>, <linux/prctl.h>
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2
_PR_SET_KEEPCAPS = 8
_PR_GET_SECUREBITS = 27
_PR_SET_SECUREBITS = 28
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_CAPABILITY_VERSION_3 = 0x20080522

# Reading is enough; containers often have only the other one (Docker's default set).
_READING = (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _choose_user() -> pwd.struct_passwd:
    for name in _USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ClusterError(f"PostgreSQL does not run as root, and there is no user {' or '.join(_USERS)} to run it as")


def _drop(user: pwd.struct_passwd) -> None:
    # From root, setgid and setuid change the real, the effective and the saved id.
    os.setgroups([user.pw_gid])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def _unreachable(user: pwd.struct_passwd, paths: Iterable[str]) -> list[str]:
    """Return which of `paths` that user cannot read, by really being that user in a child process."""
    names = list(paths)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _drop(user)
            # A folder of modules is listed, so that it must be readable, not only passable.
            bad = [index for index, name in enumerate(names) if not os.access(name, os.R_OK)]
            os.write(writing, ",".join(map(str, bad)).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        text = answer.read().decode()
    _, status = os.waitpid(child, 0)
    if status:
        raise ClusterError(
            f"as root, the servers run as user {user.pw_name}, but becoming that user is not permitted here"
        )
    return [names[int(index)] for index in text.split(",") if index]


def _keep_capability(user: pwd.struct_passwd, capability: int) -> bool:
    """Become `user` with one capability that children inherit; tell whether it was there to keep."""
    libc = ctypes.CDLL(None, use_errno=True)
    bit = 1 << capability
    header = _Header(_CAPABILITY_VERSION_3, 0)
    data = (_Data * 2)()
    if libc.capget(ctypes.byref(header), data) or not data[0].permitted & bit:
        return False
    if libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0):
        return False
    # access(2), by which PostgreSQL's programs look for each other, ignores the capabilities of all users but root
    # unless told so. Where that may not be told, servers that anybody can read still work.
    libc.prctl(_PR_SET_SECUREBITS, libc.prctl(_PR_GET_SECUREBITS) | _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    _drop(user)
    wanted = (_Data * 2)()
    wanted[0].effective = wanted[0].permitted = wanted[0].inheritable = bit
    return not (
        libc.capset(ctypes.byref(header), wanted)
        or libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)
    )


def forgo_capability() -> None:
    """Let the program that this process executes next have no capability; this process keeps its own until then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def without_capability(program: str, setpriv: str) -> str:
    """Return a shell script that is `program`, and forgoes the capability which its parent has to keep.

    :param setpriv: the path of util-linux' program of that name
    """
    return f'#!/bin/sh\nexec {shlex.quote(setpriv)} --ambient-caps=-all --inh-caps=-all {shlex.quote(program)} "$@"\n'


def become_ordinary_user(needed: Iterable[str], given: Iterable[str] = ()) -> tuple[str, ...]:
    """Give up root for this process and its children; do nothing when it is not root.

    :param needed: files and folders that the servers must be able to read
    :param given: folders that become the servers' own
    :returns: which of `needed` only the capability makes readable, which this process and its children then have
    :raises ClusterError: when that is not possible here
    """
    if os.geteuid() != 0:
        return ()
    user = _choose_user()
    given = tuple(given)
    for folder in given:
        os.chown(folder, user.pw_uid, user.pw_gid)
    unreachable = _unreachable(user, [*needed, *given])
    if not unreachable:
        _drop(user)
        return ()
    if sys.platform == "linux" and any(_keep_capability(user, capability) for capability in _READING):
        return tuple(unreachable)
    raise ClusterError(
        f"PostgreSQL does not run as root, and user {user.pw_name} cannot read {', '.join(unreachable)}: "
        "run as an ordinary user, or install Python and the servers where every user can read them"
    )
