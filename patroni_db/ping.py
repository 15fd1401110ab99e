"""Asking a PostgreSQL server over a socket of our own whether it lives, and whether it takes connections.

Both are the first bytes of a session (PostgreSQL documentation, "Frontend/Backend Protocol"), which every server and
PgBouncer answer, whoever asks. libpq's ``PQping`` does the same, but psycopg calls it holding the interpreter's lock:
a server that accepts and never answers would stop all threads for two seconds (measured).
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from patroni_db.sockets import ResolvingTimeoutError, connect_by, seconds_until

if TYPE_CHECKING:
    import socket

    from patroni_db.topology import Address

__all__ = ["accepts_connections", "is_silent", "means_accepting"]

# A server that is well answers in milliseconds, within this many seconds also under load.
_PATIENCE: Final = 0.5
_SSL_REQUEST: Final = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
_STARTUP: Final = b"\x00\x00\x00\x21\x00\x03\x00\x00user\0ping\0database\0ping\0\0"
_CANNOT_CONNECT_NOW: Final = b"57P03"
_LARGEST: Final = 8192


def is_silent(address: Address, patience: float = _PATIENCE) -> bool:
    """Return whether the server says nothing within `patience` seconds. One that refuses connections does not hang."""
    try:
        _answer(address, _SSL_REQUEST, 1, patience)
    except ResolvingTimeoutError:  # it was not asked
        return False
    except TimeoutError:
        return True
    except OSError:
        return False
    return False


def accepts_connections(address: Address, patience: float) -> bool:
    """Return whether the server would let somebody in, within `patience` seconds.

    It does if it asks for authentication, or refuses us for another reason than that it cannot serve anybody now.
    """
    try:
        return means_accepting(_answer(address, _STARTUP, _LARGEST, patience))
    except OSError:
        return False


def means_accepting(answer: bytes) -> bool:
    """Return what the first message of a server says: authentication (R), or an error (E) with its SQLSTATE. Pure."""
    if answer.startswith(b"R"):
        return True
    if not answer.startswith(b"E"):
        return False
    fields = answer[5:].split(b"\0")
    states = [field[1:] for field in fields if field.startswith(b"C")]
    return bool(states) and states[0] != _CANNOT_CONNECT_NOW


def _answer(address: Address, request: bytes, size: int, patience: float) -> bytes:
    """Return the first bytes of the answer.

    :raises OSError: there is none; TimeoutError where none came in time
    """
    deadline = time.monotonic() + patience
    answer = b""
    with _connected(address, deadline) as connection:
        connection.sendall(request)
        while len(answer) < size:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            chunk = connection.recv(size - len(answer))
            answer += chunk
            if not chunk or _is_whole(answer):
                break
    return answer


def _connected(address: Address, deadline: float) -> socket.socket:
    """Return a socket connected to the first of the address's hosts that accepts, as libpq does.

    :param deadline: in seconds of :func:`time.monotonic`; each host gets its share of the time that is left
    """
    *hosts, last = address.hosts
    for index, host in enumerate(hosts):
        share = seconds_until(deadline) / (len(hosts) + 1 - index)
        with contextlib.suppress(OSError):
            return connect_by(host, address.port, time.monotonic() + share)
    return connect_by(last, address.port, deadline)


def _is_whole(answer: bytes) -> bool:
    """Return whether a whole message is there: a type and four bytes that count themselves and what follows."""
    return answer[:1] != b"E" or len(answer) > int.from_bytes(answer[1:5], "big") > 0
