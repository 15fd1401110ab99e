"""What an exception says about the server."""

from __future__ import annotations

import errno
import socket

import pytest

from patroni_db.faults import Fault, classify, is_refusal, sqlstate_of


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
    assert classify(error(state), closed=True) is fault


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
