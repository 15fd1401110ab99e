"""APIs that nobody should trust: what they say reaches neither a driver, nor a log, nor a terminal as they like."""

from __future__ import annotations

import contextlib
import http.server
import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from patroni_db.acquisition import acquire
from patroni_db.cli import main
from patroni_db.client import PatroniClient
from patroni_db.config import PatroniConfig
from patroni_db.discovery import Discovery
from patroni_db.errors import DiscoveryError, NoPrimaryError
from patroni_db.etcd_client import EtcdClient, EtcdError
from patroni_db.push import Stop
from tests.spec.replay import wait_for_flights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.acquisition import Attempt
    from patroni_db.topology import Topology

Reply = tuple[int, dict[str, str], bytes]


class Api:
    """A REST API that answers what a test likes.

    :param cluster: the object that ``/cluster`` answers with
    """

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.node: Any = {"state": "running", "role": "primary", "timeline": 1, "database_system_identifier": "7"}
        self.reply: Callable[[str], Reply] = self._reply
        self.requests: list[tuple[str, dict[str, str]]] = []
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.requests.append((self.path, dict(self.headers)))
                status, headers, body = api.reply(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815 - as http.server calls it

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _reply(self, path: str) -> Reply:
        return 200, {}, json.dumps(self.cluster if path == "/cluster" else self.node).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def api() -> Iterator[Callable[[Any], Api]]:
    with contextlib.ExitStack() as stack:

        def start(cluster: Any) -> Api:
            made = Api(cluster)
            stack.callback(made.close)
            return made

        yield start


def member(name: str = "n1", role: str = "leader", **changes: Any) -> dict[str, Any]:
    row = {"name": name, "role": role, "state": "running", "host": "127.0.0.1", "port": 5432, "timeline": 1}
    return {**row, **changes}


def look(discovery: Discovery, times: int = 1) -> Topology:
    for _ in range(times):
        discovery.look()
        wait_for_flights()
    assert discovery.snapshot is not None
    return discovery.snapshot.topology


# -- Addresses ------------------------------------------------------------------------------------------------


def test_a_leader_elsewhere_is_not_reached_and_told_of_once(
    api: Callable[[Any], Api], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        member(host="evil.test,127.0.0.1", api_url="http://evil.test:8008/patroni"),
        member("n2", "replica", state="streaming", host="evil.test\\127.0.0.1"),
        member("n3", "replica", state="streaming"),
    ]
    server = api({"members": rows})
    discovery = Discovery(PatroniConfig(urls=server.url, allowed_hosts="127.0.0.1"))
    topology = look(discovery, times=3)
    assert [m.host for m in topology.members] == [None, None, "127.0.0.1"]
    assert [replica.name for replica in discovery.replicas()] == ["n3"]
    with pytest.raises(NoPrimaryError):
        discovery.primary()
    refusals = [record.getMessage() for record in caplog.records if "not connected to" in record.getMessage()]
    assert refusals == [
        "n1 is not connected to: the address evil.test,127.0.0.1:5432: patroni_allowed_hosts does not name it",
        "n1 is not connected to: the REST API http://evil.test:8008: patroni_allowed_hosts does not name it",
        r"n2 is not connected to: the address 'evil.test\\127.0.0.1', port 5432: neither a host name nor an address",
    ]
    discovery.close()


def test_a_redirect_leads_nowhere(api: Callable[[Any], Api]) -> None:
    trap = api({"members": [member()]})
    server = api(None)
    server.reply = lambda _path: (302, {"Location": f"{trap.url}/cluster"}, b"")
    discovery = Discovery(PatroniConfig(urls=server.url))
    discovery.look()
    wait_for_flights()
    assert "redirects to" in str(discovery.failure)
    assert not trap.requests
    discovery.close()


# -- Credentials ----------------------------------------------------------------------------------------------

LOGIN: dict[str, Any] = {"user": "monitor", "password": "hush"}


def passwords(server: Api) -> set[bool]:
    return {"Authorization" in headers for _, headers in server.requests}


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, False),
        ({"allowed_hosts": "127.0.0.0/8"}, True),
        ({"password_for": "members"}, True),
    ],
    ids=["seeds only", "allowed hosts", "all members"],
)
def test_the_password_goes_where_the_user_said(api: Callable[[Any], Api], settings: dict[str, Any], sent: bool) -> None:
    learned = api(None)
    learned.cluster = {"members": [member(api_url=f"{learned.url}/patroni")]}
    seed = api(learned.cluster)
    discovery = Discovery(PatroniConfig(urls=seed.url, **LOGIN, **settings))
    look(discovery, times=3)
    discovery.close()
    assert passwords(seed) == {True}
    assert passwords(learned) == {sent}


def test_a_mapped_api_is_one_that_the_user_named(api: Callable[[Any], Api]) -> None:
    learned = api(None)
    learned.cluster = {"members": [member(api_url="http://10.0.0.1:8008/patroni")]}
    seed = api(learned.cluster)
    reachable = learned.url.removeprefix("http://")
    discovery = Discovery(PatroniConfig(urls=seed.url, **LOGIN, address_map=f"10.0.0.1:8008={reachable}"))
    look(discovery, times=2)
    discovery.close()
    assert passwords(learned) == {True}


def test_a_member_that_wants_a_password_it_does_not_get_says_so(api: Callable[[Any], Api]) -> None:
    server = api(None)
    server.reply = lambda _path: (401, {}, b"")
    client = PatroniClient(PatroniConfig(urls="http://pg1:8008", **LOGIN))
    with client, pytest.raises(DiscoveryError, match="patroni_password_for"):
        client.cluster(server.url)
    assert passwords(server) == {False}


def test_etcds_password_goes_to_no_other_place(api: Callable[[Any], Api]) -> None:
    trap, etcd = api(None), api(None)
    etcd.reply = lambda path: (307, {"Location": f"{trap.url}{path}"}, b"")
    config = PatroniConfig(urls="http://pg1:8008", etcd=etcd.url, etcd_user="app", etcd_password="hush")
    with pytest.raises(EtcdError, match="307"):
        EtcdClient(config, Stop()).token(etcd.url)
    assert not trap.requests


# -- Text -----------------------------------------------------------------------------------------------------

HOSTILE = "n1\r\nCRITICAL forged\x1b]0;pwn\x07\x1b[31m\x9b2J\u202e\u2028\x85\x00\ud800"


def hostile_cluster() -> dict[str, Any]:
    rows = [
        member(HOSTILE, state=HOSTILE, api_url=f"http://127.0.0.1{HOSTILE}:9/patroni", tags={HOSTILE: [HOSTILE]}),
        member(f"r{HOSTILE}", "replica", state="streaming", host=HOSTILE, lag=HOSTILE),
        member("odd", HOSTILE, timeline="1", tags={"l": [float("nan"), float("inf"), {"x": HOSTILE}], HOSTILE: 1}),
    ]
    planned = {"at": HOSTILE, "from": HOSTILE, "to": HOSTILE}
    return {"members": rows, "scope": HOSTILE, "scheduled_switchover": planned}


def test_nothing_a_cluster_says_forges_a_line_of_the_log(
    api: Callable[[Any], Api], caplog: pytest.LogCaptureFixture
) -> None:
    server = api(hostile_cluster())
    config = PatroniConfig(urls=server.url, failover_timeout=0.3)
    with caplog.at_level(logging.DEBUG, "patroni_db"):
        discovery = Discovery(config)
        look(discovery)
        assert discovery.primary().name == HOSTILE, "a name is what it was"
        with pytest.raises(NoPrimaryError) as caught:
            acquire(discovery, config, refuse)
        server.cluster["members"][0]["role"] = "replica"
        look(discovery)
        server.reply = lambda _path: (302, {"Location": "http://x/\x1b[31m"}, b"")
        discovery.look()
        wait_for_flights()
    assert str(caught.value).isprintable()
    assert str(discovery.failure).isprintable()
    discovery.close()
    assert len(caplog.messages) > 5
    assert [message for message in caplog.messages if not message.isprintable()] == []


def refuse(_: Attempt) -> Any:
    raise psycopg.OperationalError(f"connection failed: {HOSTILE}\n\tIs the server running?")


@pytest.mark.parametrize(
    "reply",
    [
        (302, {"Location": "http://x/\x1b[31m"}, b""),
        (404, {}, b"\x1b[31m"),
        (200, {}, b"\x1b[31m"),
        (200, {}, json.dumps([HOSTILE]).encode()),
        (200, {}, json.dumps({"members": [], "scope": HOSTILE}).encode()),
    ],
    ids=["redirect", "status", "no JSON", "no object", "no members"],
)
def test_an_answer_of_no_use_is_told_of_plainly(api: Callable[[Any], Api], reply: Reply) -> None:
    server = api(None)
    server.reply = lambda _path: reply
    discovery = Discovery(PatroniConfig(urls=server.url, scope="main"))
    discovery.look()
    wait_for_flights()
    assert discovery.failure is not None
    assert str(discovery.failure).isprintable()
    discovery.close()


def _run_all(url: str, capsys: pytest.CaptureFixture[str], *more: str) -> Iterator[str]:
    for command in (
        ["status"],
        ["status", "--no-check"],
        ["dsn"],
        ["dsn", "--target", "any", "--all", "--format", "env"],
        ["wait", "--timeout", "0.1"],
        ["wait", "--timeout", "0.1", "--for", "3-replicas"],
        ["prune-markers", "--timeout", "0.1"],
    ):
        if "--json" not in more or "--format" not in command:
            main([*command, "--url", url, *more])
            out, err = capsys.readouterr()
            yield out
            assert all(line.isprintable() for line in (out + err).split("\n"))


@pytest.mark.parametrize("leads", [True, False])
def test_no_command_writes_what_a_terminal_would_obey(
    api: Callable[[Any], Api], capsys: pytest.CaptureFixture[str], leads: bool
) -> None:
    cluster = hostile_cluster()
    if not leads:
        cluster["members"][0]["role"] = HOSTILE
    server = api(cluster)
    server.node = {**server.node, "state": HOSTILE, "role": HOSTILE}
    assert all(text is not None for text in _run_all(server.url, capsys))


@pytest.mark.parametrize("leads", [True, False])
def test_what_is_printed_as_json_is_json(
    api: Callable[[Any], Api], capsys: pytest.CaptureFixture[str], leads: bool
) -> None:
    cluster = hostile_cluster()
    if not leads:
        cluster["members"][0]["role"] = HOSTILE
    server = api(cluster)

    def refuse_constant(name: str) -> Any:
        pytest.fail(f"{name} is no JSON")

    for out in _run_all(server.url, capsys, "--json"):
        if out:
            document = json.loads(out, parse_constant=refuse_constant)
            json.dumps(document, ensure_ascii=False).encode()  # no lone surrogate
            assert document.get("scope") in {None, HOSTILE.replace("\ud800", "\ufffd")}


def test_tags_nested_without_end_are_left_out(api: Callable[[Any], Api]) -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    server = api({"members": [member(tags={"deep": deep, "zone": "a"})]})
    discovery = Discovery(PatroniConfig(urls=server.url))
    assert dict(look(discovery).members[0].tags) == {"zone": "a"}
    discovery.close()
