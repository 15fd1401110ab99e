"""What is said to etcd's gateway, what its answers mean, and what any other bytes mean."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patroni_db.etcd import leader_key
from patroni_db.etcd_messages import (
    AnswerError,
    Leader,
    Notice,
    NoticeKind,
    authenticate_request,
    parse_leader,
    parse_notice,
    parse_problem,
    parse_token,
    range_request,
    watch_request,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ROW = st.fixed_dictionaries({}, optional={"value": JSON | st.sampled_from(["bjE=", "", "//8="])})
EVENT = st.fixed_dictionaries({}, optional={"type": st.sampled_from(["PUT", "DELETE"]) | JSON, "kv": ROW | JSON})
RESULT = st.fixed_dictionaries(
    {},
    optional={
        "header": st.fixed_dictionaries({}, optional={"revision": JSON | st.just("7")}) | JSON,
        "kvs": st.lists(ROW | JSON, max_size=2) | JSON,
        "created": JSON,
        "canceled": JSON,
        "compact_revision": JSON,
        "cancel_reason": JSON,
        "events": st.lists(EVENT | JSON, max_size=3) | JSON,
    },
)
LIKE_ETCD = RESULT | st.fixed_dictionaries({}, optional={"result": RESULT | JSON, "error": JSON, "token": JSON})
ANYTHING = st.binary() | st.builds(lambda value: json.dumps(value).encode(), JSON | LIKE_ETCD)


def line(**result: Any) -> bytes:
    return json.dumps({"result": {"header": {"revision": "9"}, **result}}).encode()


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def put(name: str) -> dict[str, Any]:
    return {"kv": {"key": encoded("/service/main/leader"), "value": encoded(name), "mod_revision": "9"}}


DELETED = {"type": "DELETE", "kv": {"key": encoded("/service/main/leader"), "mod_revision": "9"}}


def test_requests_are_what_the_gateway_takes() -> None:
    assert json.loads(range_request("/service/main/leader")) == {"key": "L3NlcnZpY2UvbWFpbi9sZWFkZXI="}
    assert json.loads(watch_request("/service/main/leader", 8)) == {
        "create_request": {"key": "L3NlcnZpY2UvbWFpbi9sZWFkZXI=", "start_revision": "8", "progress_notify": True}
    }
    assert json.loads(authenticate_request("root", "päss")) == {"name": "root", "password": "päss"}


@pytest.mark.parametrize(
    ("namespace", "scope", "key"),
    [
        ("/service", "main", "/service/main/leader"),
        ("/", "main", "/main/leader"),
        ("/a/b", "x/y", "/a/b/x/y/leader"),
    ],
)
def test_the_leader_key_is_where_patroni_puts_it(namespace: str, scope: str, key: str) -> None:
    assert leader_key(namespace, scope) == key


@pytest.mark.parametrize(
    ("answer", "notice"),
    [
        (line(created=True), Notice(NoticeKind.OPENED)),
        (line(events=[put("n2")]), Notice(NoticeKind.CHANGED, "n2")),
        (line(events=[put("n2"), DELETED]), Notice(NoticeKind.CHANGED, None)),
        (line(events=[DELETED, put("n3")]), Notice(NoticeKind.CHANGED, "n3")),
        (line(), Notice(NoticeKind.NOTHING)),
        (
            line(created=True, canceled=True, compact_revision="8"),
            Notice(NoticeKind.ENDED, reason="cancelled: compacted at revision 8"),
        ),
        (
            line(canceled=True, cancel_reason="etcdserver: no leader"),
            Notice(NoticeKind.ENDED, reason="cancelled: etcdserver: no leader"),
        ),
        (
            b'{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: leader changed"}}',
            Notice(NoticeKind.ENDED, reason="etcdserver: leader changed"),
        ),
        (b"<html>", Notice(NoticeKind.ENDED, reason="not etcd's answer: not JSON")),
        (b"[1]", Notice(NoticeKind.ENDED, reason="not etcd's answer: no JSON object")),
        (b"{}", Notice(NoticeKind.ENDED, reason="not etcd's answer: it has no result")),
    ],
)
def test_each_line_of_a_watch_has_one_meaning(answer: bytes, notice: Notice) -> None:
    assert parse_notice(answer) == notice


def test_a_read_tells_who_leads_and_from_where_to_watch() -> None:
    header = {"header": {"revision": "41", "raft_term": "2"}}
    there = json.dumps({**header, "kvs": [put("n1")["kv"]], "count": "1"}).encode()
    assert parse_leader(there) == Leader("n1", 41)
    assert parse_leader(json.dumps(header).encode()) == Leader(None, 41)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[" * 100_000,
        b"{}",
        b'{"header":{"revision":"0"}}',
        b'{"header":{"revision":"99999999999999999999"}}',
        b'{"header":{"revision":"1"},"kvs":[{"value":"no base64"}]}',
        b'{"header":{"revision":"1"},"kvs":[{"value":"//8="}]}',
    ],
)
def test_what_is_no_answer_to_a_read_is_an_error(answer: bytes) -> None:
    with pytest.raises(AnswerError):
        parse_leader(answer)


def test_a_token_must_fit_into_a_header() -> None:
    assert parse_token(b'{"header":{},"token":"abc.7"}') == "abc.7"
    for token in ('"a\\r\\nX: 1"', '""', "5", '"\\u00e9"'):
        with pytest.raises(AnswerError):
            parse_token(b'{"token":' + token.encode() + b"}")


def test_a_problem_is_told_in_etcds_words() -> None:
    assert parse_problem(b'{"error":"etcdserver: permission denied","code":7}') == "etcdserver: permission denied"
    assert parse_problem(b'{"error":"\\u001b[31m"}') == "'\\x1b[31m'"
    assert parse_problem(b"nginx") == "not etcd's answer: not JSON"


@given(ANYTHING)
def test_whatever_comes_in_a_watch_is_a_notice(answer: bytes) -> None:
    notice = parse_notice(answer)
    assert (notice.kind is NoticeKind.ENDED) == bool(notice.reason)
    assert notice.reason.isprintable()
    assert notice.owner is None or notice.kind is NoticeKind.CHANGED


@given(ANYTHING)
def test_whatever_answers_a_read_is_a_leader_or_an_error(answer: bytes) -> None:
    with contextlib.suppress(AnswerError):
        assert 0 < parse_leader(answer).revision < 1 << 63


@given(ANYTHING)
def test_whatever_is_complained_of_can_be_shown(answer: bytes) -> None:
    assert parse_problem(answer).isprintable()
    assert parse_problem(answer)
