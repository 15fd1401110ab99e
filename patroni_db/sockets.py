"""TCP connections with one deadline for all of it: resolving the name, and trying the addresses.

Nothing interrupts the C library while it resolves a name. So that is done in a thread of its own, one for each name at
a time, and left alone when it takes too long.
"""

from __future__ import annotations

import concurrent.futures
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from patroni_db.daemons import start_daemon
from patroni_db.forking import no_fork, note_end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["NoHostError", "ResolvingTimeoutError", "check_host", "connect_by", "seconds_until"]

# RFC 1035: 255 bytes on the wire are so many characters, and perhaps a dot at the end.
_LONGEST_NAME: Final = 254

# What getaddrinfo() returns for one address.
_Info = tuple[int, int, int, str, Any]
# The least that is given to a single step: 0 would mean not to wait at all.
_LEAST: Final = 0.001


class NoHostError(socket.gaierror):
    """A text can be no name of a host: asking again does not help."""

    def __init__(self, problem: str) -> None:
        super().__init__(socket.EAI_NONAME, problem)


class ResolvingTimeoutError(TimeoutError):
    """A name was not resolved in time: that tells nothing of the server."""


def seconds_until(deadline: float) -> float:
    """Return the seconds left until `deadline`.

    :param deadline: in seconds of :func:`time.monotonic`
    :raises TimeoutError: it has passed
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return max(_LEAST, min(left, threading.TIMEOUT_MAX))


def check_host(host: str) -> None:
    """Check that `host` can be the name or address of a host, or the folder of a Unix socket.

    Drivers raise what they like for one that cannot, among it :class:`UnicodeError`. To who connects such a server is
    none that can be reached.

    :raises NoHostError: it can not
    """
    if host.startswith(("/", "@")):
        return
    problem = "is empty" if not host else "is too long" if len(host) > _LONGEST_NAME else None
    if "\0" in host:
        problem = "has a null character"
    if problem is None:
        try:
            host.encode("idna")
        except UnicodeError as exc:
            problem = f"is no name of a host ({exc.__cause__ or exc})"
    if problem is not None:
        raise NoHostError(f"{host[:_LONGEST_NAME]!a} {problem}")


def connect_by(host: str, port: int, deadline: float) -> socket.socket:
    """Return a socket connected to `port` at one of the addresses of `host`.

    :param deadline: in seconds of :func:`time.monotonic`; each address gets its share of the time that is left
    :raises TimeoutError: it has passed
    :raises OSError: the name does not resolve, can be none (:class:`NoHostError`), or none of its addresses is reached
    """
    check_host(host)
    infos = _resolved(host, port, deadline)
    error: OSError = OSError(f"{host} has no address")
    for index, (family, kind, protocol, _, address) in enumerate(infos):
        share = seconds_until(deadline) / (len(infos) - index)
        try:
            return _connected(family, kind, protocol, address, share)
        except OSError as exc:
            error = exc.with_traceback(None)
    raise error


def _connected(family: int, kind: int, protocol: int, address: Any, seconds: float) -> socket.socket:
    connection = socket.socket(family, kind, protocol)
    try:
        connection.settimeout(seconds)
        connection.connect(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection


# -- Names -----------------------------------------------------------------------------------------------------


class _Resolutions:
    """The names that are being resolved."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.under_way: dict[tuple[str, int], concurrent.futures.Future[Sequence[_Info]]] = {}


_resolutions = _Resolutions()


def _resolved(host: str, port: int, deadline: float) -> Sequence[_Info]:
    try:
        return _ask(host, port, socket.AI_NUMERICHOST)  # waits for nobody
    except socket.gaierror:
        pass
    key, mine = (host, port), _resolutions
    with mine.lock:
        future = mine.under_way.get(key)
        is_new = future is None
        if future is None:
            future = mine.under_way[key] = concurrent.futures.Future()
    if is_new and start_daemon("patroni-db resolve", _resolve, mine, key, future, note_end) is None:
        _resolve(mine, key, future, lambda: None)
    try:
        return future.result(seconds_until(deadline))
    except TimeoutError:
        raise ResolvingTimeoutError(f"{host} was not resolved in time") from None


def _resolve(
    resolutions: _Resolutions,
    key: tuple[str, int],
    future: concurrent.futures.Future[Sequence[_Info]],
    ended: Callable[[], None],
) -> None:
    error: BaseException | None = None
    infos: Sequence[_Info] = ()
    try:
        with no_fork():
            infos = _ask(*key, 0)
    except BaseException as exc:  # noqa: BLE001 - raised where it is waited for
        error = exc.with_traceback(None)
    with resolutions.lock:
        del resolutions.under_way[key]
    if error is None:
        future.set_result(infos)
    else:
        future.set_exception(error)
    ended()


def _ask(host: str, port: int, flags: int) -> Sequence[_Info]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)


def _after_fork_in_child() -> None:
    """Begin anew: the threads that resolve are the parent's."""
    global _resolutions  # noqa: PLW0603 - as says the docstring
    _resolutions = _Resolutions()


os.register_at_fork(after_in_child=_after_fork_in_child)
