"""What is said to etcd's v3 JSON gateway and what it answers: from values to bytes and back. Pure.

The gateway speaks protobuf's JSON: keys and values in base64, 64-bit integers as text, and whatever is empty, zero
or false left out. A watch answers with one object a line.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
from typing import Any, Final

__all__ = [
    "AUTHENTICATE",
    "RANGE",
    "WATCH",
    "AnswerError",
    "Leader",
    "Notice",
    "NoticeKind",
    "authenticate_request",
    "parse_leader",
    "parse_notice",
    "parse_problem",
    "parse_token",
    "range_request",
    "watch_request",
]

AUTHENTICATE: Final = "/v3/auth/authenticate"
RANGE: Final = "/v3/kv/range"
WATCH: Final = "/v3/watch"

_MAX_REVISION: Final = (1 << 63) - 1
_MAX_PROBLEM: Final = 200


class AnswerError(ValueError):
    """An answer that is not etcd's; the message says what is wrong with it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Leader:
    """The leader key as it was read.

    :param owner: the name of the member that holds it; None while there is no leader
    :param revision: etcd's revision that this is true for: a watch from the next one misses nothing
    """

    owner: str | None
    revision: int


class NoticeKind(enum.Enum):
    """What one line of a watch means."""

    OPENED = enum.auto()
    """The watch stands: from here on every change is told."""
    CHANGED = enum.auto()
    """The key has another owner, or none."""
    ENDED = enum.auto()
    """Nothing more will come: cancelled, compacted, an error, or not etcd's answer at all."""
    NOTHING = enum.auto()
    """A sign of life."""


@dataclasses.dataclass(frozen=True, slots=True)
class Notice:
    """One line of a watch.

    :param kind: what it means
    :param owner: with ``CHANGED``, who holds the key now; None when it was deleted
    :param reason: with ``ENDED``, why
    """

    kind: NoticeKind
    owner: str | None = None
    reason: str = ""


def authenticate_request(user: str, password: str) -> bytes:
    """Return the body that asks for a token."""
    return _body({"name": user, "password": password})


def range_request(key: str) -> bytes:
    """Return the body that asks for the value of `key`."""
    return _body({"key": _encode(key)})


def watch_request(key: str, revision: int) -> bytes:
    """Return the body that asks for every change of `key` from `revision` on."""
    request = {"key": _encode(key), "start_revision": str(revision), "progress_notify": True}
    return _body({"create_request": request})


def parse_token(body: bytes) -> str:
    """Return the token that authentication gave.

    :raises AnswerError: there is none that fits into a header
    """
    token = _object(body).get("token")
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise AnswerError("not etcd's answer: it has no token")
    return token


def parse_leader(body: bytes) -> Leader:
    """Return the leader that the answer to a :func:`range_request` tells.

    :raises AnswerError: it is no such answer
    """
    answer = _object(body)
    header = answer.get("header")
    revision = _integer(header.get("revision")) if isinstance(header, dict) else None
    if revision is None:
        raise AnswerError("not etcd's answer: it has no revision")
    rows = answer.get("kvs", [])
    if not isinstance(rows, list):
        raise AnswerError("not etcd's answer: its kvs are no list")
    return Leader(_owner(rows[0]) if rows else None, revision)


def parse_notice(line: bytes) -> Notice:
    """Return what a line of a watch means, whatever its bytes are."""
    try:
        return _notice(_object(line))
    except AnswerError as exc:
        return Notice(NoticeKind.ENDED, reason=str(exc))


def parse_problem(body: bytes) -> str:
    """Return what an answer that is an error complains of; a description of it when it is not etcd's."""
    try:
        return _problem(_object(body)) or "no reason given"
    except AnswerError as exc:
        return str(exc)


def _notice(line: dict[str, Any]) -> Notice:
    result = line.get("result")
    if not isinstance(result, dict):
        return Notice(NoticeKind.ENDED, reason=_problem(line) or "not etcd's answer: it has no result")
    if result.get("canceled"):
        # A compaction cancels too, and with a first answer that says "created" as well.
        compacted = _integer(result.get("compact_revision"))
        reason = result.get("cancel_reason")
        reason = f"compacted at revision {compacted}" if compacted else _printable(reason) or "no reason given"
        return Notice(NoticeKind.ENDED, reason=f"cancelled: {reason}")
    if result.get("created"):
        return Notice(NoticeKind.OPENED)
    events = result.get("events", [])
    if not isinstance(events, list):
        raise AnswerError("not etcd's answer: its events are no list")
    if not events:
        return Notice(NoticeKind.NOTHING)
    last = events[-1]  # in the order of their revisions
    if not isinstance(last, dict):
        raise AnswerError("not etcd's answer: an event is no object")
    return Notice(NoticeKind.CHANGED, None if last.get("type") == "DELETE" else _owner(last.get("kv")))


def _owner(row: Any) -> str:
    value = row.get("value", "") if isinstance(row, dict) else None
    if not isinstance(value, str):
        raise AnswerError("not etcd's answer: a key has no value")
    try:
        return base64.b64decode(value, validate=True).decode()
    except ValueError:
        raise AnswerError("not Patroni's leader key: its value is no text") from None


def _problem(answer: dict[str, Any]) -> str:
    """Return the message of an error, which is nested in a stream and not so elsewhere; empty when there is none."""
    error = answer.get("error")
    return _printable(error.get("message") if isinstance(error, dict) else error)


def _printable(text: Any) -> str:
    if not isinstance(text, str):
        return ""
    return (text if text.isprintable() else ascii(text))[:_MAX_PROBLEM]


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):  # not UTF-8 is a ValueError too
        raise AnswerError("not etcd's answer: not JSON") from None
    if not isinstance(value, dict):
        raise AnswerError("not etcd's answer: no JSON object")
    return value


def _integer(value: Any) -> int | None:
    """Return a revision, which is positive and has 63 bits."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= len(str(_MAX_REVISION)):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_REVISION:
        return value
    return None


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


def _body(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode("ascii")
