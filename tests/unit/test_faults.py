"""What an exception says about the server."""

from __future__ import annotations

import errno
import socket

import pytest

from patroni_db.faults import Fault, classify, is_refusal, may_be_poolers, sqlstate_of


class OperationalError(Exception):
    """Stands for any driver's class of this DB-API name."""


class InternalError(Exception):
    """Likewise."""


def error(state: str | None, cls: type[Exception] = OperationalError, attribute: str = "sqlstate") -> Exception:
    exc = cls("Verbindung beendet")  # messages may be in any language
    setattr(exc, attribute, state)
    return exc


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("25006", Fault.NOT_WRITABLE),
        ("40001", Fault.TRANSIENT),
        ("40P01", Fault.TRANSIENT),
        ("53300", Fault.OVERLOADED),
        ("57P01", Fault.UNAVAILABLE),
        ("57P02", Fault.UNAVAILABLE),
        ("57P03", Fault.UNAVAILABLE),
        ("08006", Fault.UNAVAILABLE),
        ("08P01", Fault.OTHER),
        ("57P04", Fault.OTHER),
        ("XX001", Fault.CORRUPTED),
        ("XX002", Fault.CORRUPTED),
        ("23505", Fault.OTHER),
        ("57014", Fault.OTHER),
    ],
)
def test_the_sqlstate_decides(state: str, fault: Fault) -> None:
    assert classify(error(state)) is fault
    assert classify(error(state, InternalError, "pgcode")) is fault
    assert classify(error(state), closed=False) is fault


@pytest.mark.parametrize("state", ["25006", "40001", "53300", "57P01", "57P04", "XX001", "23505"])
def test_the_sqlstate_decides_also_when_the_connection_is_gone(state: str) -> None:
    assert classify(error(state), closed=True) is classify(error(state))


class Diagnostics:
    """Stands for psycopg's ``diag``."""

    def __init__(self, severity: str, severity_nonlocalized: str | None = None) -> None:
        self.severity = severity
        self.severity_nonlocalized = severity_nonlocalized


@pytest.mark.parametrize(
    ("diagnostics", "fault"),
    [
        (Diagnostics("FATAL"), Fault.UNAVAILABLE),  # PgBouncer's
        (Diagnostics("FATAL", "FATAL"), Fault.UNAVAILABLE),
        (Diagnostics("PÂNICO", "PANIC"), Fault.UNAVAILABLE),
        (Diagnostics("ERROR"), Fault.OTHER),
        (Diagnostics("FEHLER", "ERROR"), Fault.OTHER),
    ],
)
def test_a_protocol_violation_that_ends_the_session_is_a_poolers_that_lost_its_server(
    diagnostics: Diagnostics, fault: Fault
) -> None:
    of_psycopg, of_asyncpg = error("08P01"), error("08P01")
    of_psycopg.diag = diagnostics  # type: ignore[attr-defined]
    of_asyncpg.severity, of_asyncpg.severity_en = diagnostics.severity, diagnostics.severity_nonlocalized  # type: ignore[attr-defined]
    for exc in (of_psycopg, of_asyncpg):
        assert classify(exc) is fault
        assert classify(exc, closed=True) is Fault.UNAVAILABLE


def test_without_sqlstate_the_connection_decides() -> None:
    assert classify(error(None), closed=True) is Fault.UNAVAILABLE
    assert classify(error(None), closed=False) is Fault.OTHER
    assert classify(error(None)) is Fault.UNAVAILABLE
    assert classify(error(None, InternalError)) is Fault.OTHER


@pytest.mark.parametrize(
    "exc",
    [
        ConnectionRefusedError(),
        ConnectionResetError(),
        TimeoutError(),
        EOFError(),
        socket.gaierror(),
        OSError(errno.EHOSTUNREACH, "x"),
        OSError("Multiple exceptions: ..."),
    ],
)
def test_the_networks_own_errors_are_unavailability(exc: Exception) -> None:
    assert classify(exc) is Fault.UNAVAILABLE


@pytest.mark.parametrize("exc", [FileNotFoundError(errno.ENOENT, "x"), ValueError(), TypeError(), KeyError()])
def test_the_applications_own_errors_are_not(exc: Exception) -> None:
    assert classify(exc) is Fault.OTHER


def test_wrappers_of_frameworks_are_looked_into() -> None:
    django = RuntimeError()
    django.__cause__ = error("25006", InternalError)
    alchemy = RuntimeError()
    alchemy.orig = error("57P01")  # type: ignore[attr-defined]
    assert classify(django) is Fault.NOT_WRITABLE
    assert classify(alchemy) is Fault.UNAVAILABLE
    assert sqlstate_of(alchemy) == "57P01"


def test_a_cycle_of_causes_ends() -> None:
    one, two = RuntimeError(), RuntimeError()
    one.__cause__, two.__cause__ = two, one
    assert classify(one) is Fault.OTHER


@pytest.mark.parametrize(("state", "refused"), [("28P01", True), ("28000", True), ("3D000", True), ("57P03", False)])
def test_a_refused_login_is_told_from_a_server_that_is_not_ready(state: str, refused: bool) -> None:
    assert is_refusal(error(state)) is refused


def test_without_sqlstate_nothing_is_known_of_a_refusal() -> None:
    assert not is_refusal(error(None))


@pytest.mark.parametrize(("state", "expected"), [(None, True), ("08P01", True), ("28P01", False), ("3D000", False)])
def test_which_refusals_a_pooler_may_make_that_lost_its_server(state: str | None, expected: bool) -> None:
    assert may_be_poolers(error(state)) is expected


@pytest.mark.parametrize("state", [None, "08P01"])
@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("SASL authentication failed", True),
        ("password authentication failed", True),
        ('connection to server at "127.0.0.1", port 6432 failed: FATAL:  SASL authentication failed', True),
        ('port 6432 failed: FATAL:  password authentication failed for user "app"', True),
        ('FATAL:  server login failed: FATAL password authentication failed for user "app"', False),
        ("FATAL:  server login has been failing, cached error: authentication failed (server_login_retry)", False),
        ("FATAL:  pgbouncer cannot connect to server", False),
    ],
)
def test_a_pooler_that_refuses_a_password_is_told_from_one_that_lost_its_server(
    state: str | None, words: str, wrong: bool
) -> None:
    exc = OperationalError(words)
    exc.sqlstate = state  # type: ignore[attr-defined]
    assert may_be_poolers(exc) is not wrong
    assert is_refusal(exc) is (wrong and state is not None)
