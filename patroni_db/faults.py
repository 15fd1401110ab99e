"""What an exception says about the server: classified by SQLSTATE and by kind, never by message text.

Messages are translated (``lc_messages``) and change between versions; SQLSTATEs do not. Where the driver
has none, as libpq has none for a connection that could not be made or broke, the exception's type and
the state of its connection decide. Pure: no driver is imported.
"""

from __future__ import annotations

import enum
import errno
import re
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "READING_FAULTS",
    "Fault",
    "chain",
    "classify",
    "ends_session",
    "is_refusal",
    "may_be_poolers",
    "sqlstate_of",
]


class Fault(enum.Enum):
    """What went wrong, as far as routing and retrying care."""

    UNAVAILABLE = "unavailable"
    """The server is gone, going or not ready yet: connection refused or lost, 57P01 to 57P03."""
    NOT_WRITABLE = "not writable"
    """25006: the server, or this transaction, is read-only. The statement did not run."""
    TRANSIENT = "transient"
    """40001, 40P01: the transaction was rolled back by the server and may simply run again."""
    OVERLOADED = "overloaded"
    """53300, 53400: the server lives but takes no more connections."""
    CORRUPTED = "corrupted"
    """XX001, XX002, 58030: this node's data or index is damaged, or its disk."""
    OTHER = "other"
    """Everything else: the application's own business."""


READING_FAULTS: Final = frozenset({Fault.TRANSIENT, Fault.CORRUPTED})
"""With these a server that stands by tells that it cannot serve a read which another one can.

Nothing is written on a standby, so what is a serialization failure elsewhere is a conflict with its recovery there:
40001, or 40P01 where recovery and the query waited for each other.
"""

_BY_STATE: Final = {
    "25006": Fault.NOT_WRITABLE,
    "40001": Fault.TRANSIENT,
    "40P01": Fault.TRANSIENT,
    "53300": Fault.OVERLOADED,
    "53400": Fault.OVERLOADED,
    # admin_shutdown, crash_shutdown, cannot_connect_now; database_dropped (57P04) is the user's doing
    "57P01": Fault.UNAVAILABLE,
    "57P02": Fault.UNAVAILABLE,
    "57P03": Fault.UNAVAILABLE,
    "XX001": Fault.CORRUPTED,
    "XX002": Fault.CORRUPTED,
    "58030": Fault.CORRUPTED,
}
_CONNECTION_EXCEPTION: Final = "08"
# PgBouncer's own errors, "server conn crashed?" and "server login has been failing" among them, are 08P01; so is what a
# server says to a client that does not keep to the protocol. Fatal ones are the session's last.
_PROTOCOL_VIOLATION: Final = "08P01"
# How PgBouncer refuses a wrong password; its server's refusal of its own login begins with other words.
_WRONG_PASSWORD: Final = re.compile(r"(?:\A|FATAL: +)(?:password|SASL) authentication failed")
_LAST_SEVERITIES: Final = frozenset({"FATAL", "PANIC"})
# The classes of SQLSTATEs with which a living server refuses a login: it would refuse the next one too.
_REFUSALS: Final = ("28", "3D", "42", "0A", "22", "08P01")
_NETWORK_ERRNOS: Final = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EADDRNOTAVAIL}
)
# DB-API's names: a driver's class of one of these, without SQLSTATE, speaks of the connection.
_CONNECTION_ERRORS: Final = frozenset({"OperationalError", "InterfaceError"})


def classify(exc: BaseException, *, closed: bool | None = None) -> Fault:
    """Return what `exc` says about the server it came from.

    Wrapped errors (Django's and SQLAlchemy's, through ``__cause__`` and ``orig``) are looked into.

    :param exc: an exception of a driver, of a framework around it, or of the socket
    :param closed: whether the connection it came from is closed or broken now; when known, it decides
        for errors that carry no SQLSTATE
    """
    state = sqlstate_of(exc)
    if state is not None:
        if state == _PROTOCOL_VIOLATION:
            return Fault.UNAVAILABLE if closed or _is_last(exc) else Fault.OTHER
        if state.startswith(_CONNECTION_EXCEPTION):
            return Fault.UNAVAILABLE
        return _BY_STATE.get(state, Fault.OTHER)
    if closed is not None:
        return Fault.UNAVAILABLE if closed else Fault.OTHER
    return Fault.UNAVAILABLE if any(map(_speaks_of_connection, chain(exc))) else Fault.OTHER


def may_be_poolers(exc: BaseException) -> bool:
    """Return whether a pooler that cannot reach its server may have raised the error of a failed login.

    PgBouncer tells that by 08P01, as it does much else, and libpq hides the SQLSTATE. A wrong password shows by its
    words, which PgBouncer does not translate.
    """
    return sqlstate_of(exc) in {None, _PROTOCOL_VIOLATION} and _WRONG_PASSWORD.search(str(exc)) is None


def is_refusal(exc: BaseException) -> bool:
    """Return whether a living server refused the login itself: trying again or elsewhere cannot help.

    True for a wrong password, role or database and the like. False also when nothing is known, as with
    libpq, which gives no SQLSTATE for a connection that was not made.
    """
    state = sqlstate_of(exc)
    if state == _PROTOCOL_VIOLATION:
        return _WRONG_PASSWORD.search(str(exc)) is not None
    return state is not None and state.startswith(_REFUSALS)


def sqlstate_of(exc: BaseException) -> str | None:
    """Return the SQLSTATE `exc`, or the driver's error it wraps, carries: five characters, or None."""
    for link in chain(exc):
        for name in ("sqlstate", "pgcode"):
            state = getattr(link, name, None)
            if isinstance(state, str) and state:
                return state
    return None


def chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield `exc` and what it wraps or was raised from: Django's ``__cause__``, SQLAlchemy's ``orig``."""
    seen: set[int] = set()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        orig = getattr(link, "orig", None)
        link = orig if isinstance(orig, BaseException) else link.__cause__


def ends_session(told: object) -> bool:
    """Return whether the server or pooler says that it ends the session with this error or notice.

    :param told: psycopg's or psycopg2's ``Diagnostics``, or an error of asyncpg
    """
    return _severity_of(told) in _LAST_SEVERITIES


def _severity_of(told: object) -> str | None:
    for name in ("severity_nonlocalized", "severity_en", "severity"):  # PgBouncer sends the last alone
        severity = getattr(told, name, None)
        if isinstance(severity, str) and severity:
            return severity
    return None


def _is_last(exc: BaseException) -> bool:
    """Return whether the server or pooler says that it ends the session with this error."""
    tellers = (getattr(link, "diag", link) for link in chain(exc))  # asyncpg's errors tell themselves
    severity = next(filter(None, map(_severity_of, tellers)), None)
    return severity in _LAST_SEVERITIES


def _speaks_of_connection(exc: BaseException) -> bool:
    if isinstance(exc, (ConnectionError, TimeoutError, EOFError, socket.gaierror)):
        return True
    if isinstance(exc, OSError):
        # asyncio tries all addresses of a name and then raises a bare OSError, without errno, for them all.
        return exc.errno in _NETWORK_ERRNOS or (type(exc) is OSError and exc.errno is None)
    return any(cls.__name__ in _CONNECTION_ERRORS for cls in type(exc).__mro__)
