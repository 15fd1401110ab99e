"""Whatever comes over the wire, the client gives one answer or one DiscoveryError that names the URL and the reason.

Every answer here is real: bytes from a socket on the loopback interface.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patroni_db import ConfigError, DiscoveryError, PatroniConfig, Topology
from patroni_db.client import PatroniClient
from patroni_db.topology import PayloadError, parse_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BODIES = Path(__file__).parent / "bodies"
_CLUSTER = (_BODIES / "patroni-4.1.5-quorum.json").read_bytes()
_TIMEOUT = 0.5


class Wire:
    """A server that reads one request a connection and then does as told.

    :param reply: called with the connection and an event that is set when the test is over
    :param tls: wraps each connection
    """

    def __init__(self, reply: Callable[[socket.socket, threading.Event], None], tls: ssl.SSLContext | None) -> None:
        self.requests: list[bytes] = []
        self._reply = reply
        self._tls = tls
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._connections.append(connection)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # A client that hangs up, or refuses the certificate, is what some tests want to see.
        with contextlib.suppress(OSError), connection:
            talk = self._tls.wrap_socket(connection, server_side=True) if self._tls else connection
            with talk:
                request = b""
                while b"\r\n\r\n" not in request and not request.startswith(b"\x16"):  # which begins TLS
                    received = talk.recv(65536)
                    if not received:
                        return
                    request += received
                self.requests.append(request)
                self._reply(talk, self._over)

    def close(self) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(10)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self._threads)


@pytest.fixture
def wire() -> Iterator[Callable[..., Wire]]:
    """Return a function that starts a server with the reply given."""
    with contextlib.ExitStack() as stack:

        def start(
            reply: bytes | Callable[[socket.socket, threading.Event], None], tls: ssl.SSLContext | None = None
        ) -> Wire:
            act = (lambda connection, _: connection.sendall(reply)) if isinstance(reply, bytes) else reply
            server = Wire(act, tls)
            stack.callback(server.close)
            return server

        yield start


def _http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.0 {status}", "Content-Type: application/json", *headers])
    return head.encode() + b"\r\n\r\n" + body


def _ask(url: str, **settings: object) -> Topology:
    config = PatroniConfig.from_options({"patroni_urls": url, "patroni_timeout": _TIMEOUT, **settings})
    with PatroniClient(config) as client:
        return client.cluster(url)


def _failure(url: str, **settings: object) -> DiscoveryError:
    with pytest.raises(DiscoveryError) as caught:
        _ask(url, **settings)
    assert caught.value.url == f"{url}/cluster"
    assert str(caught.value).startswith(f"{url}/cluster: ")
    assert caught.value.reason.isprintable()
    return caught.value


# -- Answers that can be used --------------------------------------------------------------------------------


def test_an_answer_of_patroni_is_a_topology(wire: Callable[..., Wire]) -> None:
    topology = _ask(wire(_http(_CLUSTER)).url)
    assert topology.scope == "lab"
    assert topology.primary is not None
    assert topology.primary.name == "n2"


def test_a_proxy_may_speak_http_1_1_with_chunks(wire: Callable[..., Wire]) -> None:
    half = len(_CLUSTER) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (_CLUSTER[:half], _CLUSTER[half:]))
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    assert _ask(wire(reply).url).primary is not None


def test_a_body_that_comes_in_pieces_is_read_to_its_end(wire: Callable[..., Wire]) -> None:
    def reply(connection: socket.socket, _over: threading.Event) -> None:
        for start in range(0, len(_CLUSTER), 100):
            connection.sendall((_http(b"") if start == 0 else b"") + _CLUSTER[start : start + 100])

    assert _ask(wire(reply).url).primary is not None


def test_a_path_before_patroni_is_kept(wire: Callable[..., Wire]) -> None:
    server = wire(_http(_CLUSTER))
    _ask(f"{server.url}/lab")
    assert server.requests[0].startswith(b"GET /lab/cluster HTTP/1.1\r\n")


# -- Answers that cannot --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "reason", "transient"),
    [
        pytest.param(_http(_CLUSTER[:-40]), "not JSON", False, id="truncated JSON"),
        pytest.param(_http(b""), "not JSON", False, id="empty body"),
        pytest.param(_http(b"<html>It works!</html>"), "not JSON", False, id="HTML"),
        pytest.param(_http(b'{"status": "ok"}'), "not Patroni's", False, id="another service's JSON"),
        pytest.param(_http(b"[]"), "not Patroni's", False, id="a JSON list"),
        pytest.param(_http(b"[" * 200_000), "not JSON", False, id="deep nesting"),
        pytest.param(_http(b"\xff\xfe\x00"), "not JSON", False, id="no UTF-8"),
        pytest.param(
            _http(b"", "302 Found", "Location: http://elsewhere.test/"), "elsewhere.test", False, id="redirect"
        ),
        pytest.param(_http(b"", "308 Permanent Redirect"), "redirects to nowhere", False, id="redirect to nowhere"),
        pytest.param(_http(_CLUSTER, "404 Not Found"), "status 404", False, id="404"),
        pytest.param(_http(_CLUSTER, "401 Unauthorized"), "status 401", False, id="401"),
        pytest.param(_http(_CLUSTER, "500 Internal Server Error"), "status 500", True, id="500"),
        pytest.param(_http(_CLUSTER, "503 Service Unavailable"), "status 503", True, id="503"),
        pytest.param(_http(_CLUSTER, "200 OK", "Content-Length: 100000"), "", True, id="Content-Length too large"),
        pytest.param(_http(_CLUSTER, "200 OK", "Content-Length: 20"), "not JSON", False, id="Content-Length too small"),
        pytest.param(b"\x00\xff\x1b[31m" * 50, "not HTTP", True, id="garbage bytes"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP", True, id="an SSH server"),
        pytest.param(b"", "", True, id="closed at once"),
        pytest.param(
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"mem\r\nzz', "", True, id="broken chunks"
        ),
    ],
)
def test_a_useless_answer_is_one_error(wire: Callable[..., Wire], reply: bytes, reason: str, transient: bool) -> None:
    error = _failure(wire(reply).url)
    assert reason in error.reason
    assert error.transient is transient


def test_a_redirect_is_not_followed(wire: Callable[..., Wire]) -> None:
    elsewhere = wire(_http(_CLUSTER))
    _failure(wire(_http(b"", "302 Found", f"Location: {elsewhere.url}/cluster")).url)
    assert elsewhere.requests == []


def test_a_huge_body_is_not_read_to_its_end(wire: Callable[..., Wire]) -> None:
    def reply(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(_http(b""))
        while not over.is_set():
            connection.sendall(b" " * 1_000_000)

    error = _failure(wire(reply).url, patroni_timeout=30)
    assert "larger than" in error.reason
    assert not error.transient


def _hang(_connection: socket.socket, over: threading.Event) -> None:
    over.wait(60)


def _hang_in_body(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(_http(_CLUSTER[:50]))
    over.wait(60)


def _drip(piece: bytes, first: bytes = b"") -> Callable[[socket.socket, threading.Event], None]:
    def reply(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(first)
        while not over.wait(0.05):
            connection.sendall(piece)

    return reply


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(_hang, id="no answer"),
        pytest.param(_hang_in_body, id="half a body"),
        pytest.param(_drip(b" ", _http(b"{")), id="a dripping body"),
        pytest.param(_drip(b"x", b"HTTP/1.0 200 OK\r\nX-Long: "), id="a dripping header"),
    ],
)
@pytest.mark.timeout(30)
def test_a_late_answer_is_an_error_and_transient(
    wire: Callable[..., Wire], reply: Callable[[socket.socket, threading.Event], None]
) -> None:
    error = _failure(wire(reply).url)
    assert f"within {_TIMEOUT:g} s" in error.reason
    assert error.transient


@pytest.mark.parametrize(
    "answer",
    [
        b"\x1b[31m\x9b forged\r\n\r\n",
        b"HTTP/1.0 \x1b[31m OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: \x1b[31m\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\x1b[31m\r\n",
        b"HTTP/1.0 302 Found\r\nLocation: http://x/\x1b[31m\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n\x1b[31m",
        b"HTTP/1.0 200 OK\r\n\r\n\xff\x1b[31m",
        b"HTTP/1.0 200 OK\r\n\x1b[31m: \x1b[31m\r\n\r\n",
    ],
)
def test_a_traceback_of_a_failure_commands_no_terminal(wire: Callable[..., Wire], answer: bytes) -> None:
    failure = _failure(wire(answer).url)
    lines = "".join(traceback.format_exception(failure)).split("\n")
    assert [line for line in lines if not line.isprintable()] == []


def test_nobody_listening_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    error = _failure(url)
    assert "Connection refused" in error.reason
    assert error.transient


def test_a_name_that_does_not_resolve_is_an_error() -> None:
    assert _failure("http://no-such-host.invalid:8008").transient


def test_the_name_the_session_and_the_answer_have_one_time_together(
    wire: Callable[..., Wire], authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part takes less than the timeout, all of them more."""
    part = 0.4 * _TIMEOUT
    resolve = socket.getaddrinfo

    def slowly(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        time.sleep(part)
        return resolve("127.0.0.1", port, *args, **kwargs)

    def reply(connection: socket.socket, over: threading.Event) -> None:
        over.wait(part)
        connection.sendall(_http(_CLUSTER[:50]))
        over.wait(part)
        connection.sendall(_CLUSTER[50:])

    server = wire(reply, _server_tls(authority, "patroni.test"))
    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    url = server.url.replace("127.0.0.1", "patroni.test")
    assert f"within {_TIMEOUT:g} s" in _failure(url, patroni_ca=ca_file).reason
    assert _ask(url, patroni_ca=ca_file, patroni_timeout=30).primary is not None


def test_a_name_whose_resolution_hangs_is_given_up_and_resolved_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, over = [], threading.Event()

    def hang(host: str, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        asked.append(host)
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    for _ in range(3):
        assert _failure("http://patroni.test:8008", patroni_timeout=0.05).transient
    over.set()
    assert asked == ["patroni.test"]


def test_an_address_that_swallows_everything_leaves_time_for_the_next(
    wire: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = wire(_http(_CLUSTER))
    port = int(server.url.rpartition(":")[2])
    with socket.socket() as deaf, contextlib.ExitStack() as full:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(3):  # its queue is full: the next one hears nothing
            one = full.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())

        def both(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("flags"):
                raise socket.gaierror(socket.EAI_NONAME, "not numeric")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", at) for at in (deaf.getsockname(), ("127.0.0.1", port))]

        monkeypatch.setattr(socket, "getaddrinfo", both)
        assert _ask(f"http://patroni.test:{port}", patroni_timeout=2).primary is not None


def test_a_handshake_that_drips_is_given_up(wire: Callable[..., Wire]) -> None:
    a_long_record = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"
    server = wire(_drip(b"\x03", a_long_record))
    assert f"within {_TIMEOUT:g} s" in _failure(server.url.replace("http:", "https:")).reason


def test_no_cookie_is_kept(wire: Callable[..., Wire]) -> None:
    server = wire(_http(_CLUSTER, "200 OK", "Set-Cookie: session=1; Path=/"))
    with PatroniClient(PatroniConfig(urls=server.url)) as client:
        client.cluster(server.url)
        client.cluster(server.url)
    assert len(server.requests) == 2
    assert not any(b"cookie" in request.lower() for request in server.requests)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_no_connection_is_kept_even_where_the_server_would_keep_it(
    wire: Callable[..., Wire], authority: trustme.CA, ca_file: str, tls: bool
) -> None:
    ended = threading.Event()

    def reply(connection: socket.socket, _over: threading.Event) -> None:
        head = f"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: {len(_CLUSTER)}\r\n\r\n"
        connection.sendall(head.encode() + _CLUSTER)
        with contextlib.suppress(ssl.SSLEOFError):
            assert not connection.recv(1)
        ended.set()

    server = wire(reply, _server_tls(authority) if tls else None)
    with PatroniClient(PatroniConfig(urls=server.url, ca=ca_file if tls else None)) as client:
        for _ in range(2):
            assert client.cluster(server.url).primary is not None
            assert ended.wait(10)
            ended.clear()
    assert len(server.requests) == 2


def test_one_client_may_be_used_by_many_threads(wire: Callable[..., Wire], authority: trustme.CA, ca_file: str) -> None:
    servers = [wire(_http(_CLUSTER), _server_tls(authority)) for _ in range(4)]
    with PatroniClient(PatroniConfig(urls=servers[0].url, ca=ca_file)) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.cluster, [server.url for server in servers] * 10))
    assert all(answer.primary is not None for answer in answers)


# -- TLS and authentication -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def _server_tls(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_a_certificate_of_the_given_authority_is_accepted(
    wire: Callable[..., Wire], authority: trustme.CA, ca_file: str
) -> None:
    server = wire(_http(_CLUSTER), _server_tls(authority))
    assert _ask(server.url, patroni_ca=ca_file).primary is not None


def test_a_certificate_of_nobody_known_is_refused(wire: Callable[..., Wire], authority: trustme.CA) -> None:
    server = wire(_http(_CLUSTER), _server_tls(authority))
    error = _failure(server.url)
    assert error.reason.startswith("TLS failed")
    assert not error.transient
    assert server.requests == []


def test_a_certificate_of_another_authority_is_refused(wire: Callable[..., Wire], ca_file: str) -> None:
    error = _failure(wire(_http(_CLUSTER), _server_tls(trustme.CA())).url, patroni_ca=ca_file)
    assert error.reason.startswith("TLS failed")
    assert not error.transient


def test_a_certificate_for_another_host_is_refused(
    wire: Callable[..., Wire], authority: trustme.CA, ca_file: str
) -> None:
    error = _failure(wire(_http(_CLUSTER), _server_tls(authority, "127.0.0.9")).url, patroni_ca=ca_file)
    assert error.reason.startswith("TLS failed")
    assert not error.transient


def test_https_to_a_server_without_tls_is_an_error(wire: Callable[..., Wire]) -> None:
    server = wire(_http(_CLUSTER))
    error = _failure(server.url.replace("http:", "https:"))
    assert error.reason.startswith("TLS failed")
    assert not error.transient


def test_http_to_a_server_with_tls_is_an_error(wire: Callable[..., Wire], authority: trustme.CA) -> None:
    server = wire(_http(_CLUSTER), _server_tls(authority))
    _failure(server.url.replace("https:", "http:"))


def test_a_client_certificate_opens_a_server_that_wants_one(
    wire: Callable[..., Wire], authority: trustme.CA, ca_file: str, tmp_path: Path
) -> None:
    context = _server_tls(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    own = authority.issue_cert("client.test")
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    server = wire(_http(_CLUSTER), context)
    with_it = {"patroni_cert": str(tmp_path / "cert.pem"), "patroni_key": str(tmp_path / "key.pem")}
    assert _ask(server.url, patroni_ca=ca_file, **with_it).primary is not None
    _failure(server.url, patroni_ca=ca_file)


def test_authorities_are_read_once_and_again_when_they_have_changed(
    wire: Callable[..., Wire], authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's certificates are renewed in place."""
    made: list[object] = []
    make = ssl.create_default_context
    server = wire(_http(_CLUSTER), _server_tls(authority))

    def counted(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        made.append(kwargs)
        return make(*args, **kwargs)

    monkeypatch.setattr(ssl, "create_default_context", counted)
    with PatroniClient(PatroniConfig(urls=server.url, ca=ca_file)) as client:
        for _ in range(5):
            client.cluster(server.url)
        _ask(server.url, patroni_ca=ca_file)
        assert len(made) == 1, "also for another client of the same setting"
        Path(ca_file).write_bytes(trustme.CA().cert_pem.bytes() + b"\n")
        with pytest.raises(DiscoveryError, match="TLS failed"):
            client.cluster(server.url)
        authority.cert_pem.write_to_path(ca_file)
        assert client.cluster(server.url).primary is not None


def test_a_file_that_holds_no_certificate_is_an_error(
    wire: Callable[..., Wire], authority: trustme.CA, tmp_path: Path
) -> None:
    wrong = tmp_path / "ca.pem"
    wrong.write_text("not a certificate")
    error = _failure(wire(_http(_CLUSTER), _server_tls(authority)).url, patroni_ca=str(wrong))
    assert not error.transient


def test_basic_authentication_is_sent_and_never_told(wire: Callable[..., Wire]) -> None:
    server = wire(_http(b"", "401 Unauthorized"))
    error = _failure(server.url, patroni_user="monitor", patroni_password="s3cret-pw")
    sent = base64.b64encode(b"monitor:s3cret-pw")
    assert b"Authorization: Basic " + sent in server.requests[0]
    assert "s3cret-pw" not in f"{error} {error!r} {error.__cause__!r}"


def test_credentials_beyond_ascii_are_sent_as_patroni_expects_them(wire: Callable[..., Wire]) -> None:
    server = wire(_http(_CLUSTER))
    _ask(server.url, patroni_user="mönitor", patroni_password="hasło")
    assert b"Authorization: Basic " + base64.b64encode("mönitor:hasło".encode()) in server.requests[0]


def test_the_environment_of_the_internet_is_not_looked_at(
    wire: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server = wire(_http(_CLUSTER))
    assert _ask(server.url).primary is not None
    assert b"authorization" not in server.requests[0].lower()


def test_credentials_in_a_url_are_refused_before_anything_is_asked() -> None:
    with pytest.raises(ConfigError, match="patroni_urls") as caught:
        _ask("http://monitor:s3cret-pw@127.0.0.1:8008")
    assert "s3cret-pw" not in str(caught.value)


# -- One node about itself ------------------------------------------------------------------------------------


def test_a_node_tells_its_role_also_with_503(wire: Callable[..., Wire]) -> None:
    body = {"state": "starting", "role": "replica", "server_version": 180000}
    server = wire(_http(json.dumps(body).encode(), "503 Service Unavailable"))
    with PatroniClient(PatroniConfig(urls=server.url)) as client:
        status = client.node(server.url)
    assert (status.role, status.state, status.is_primary) == ("replica", "starting", False)


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'{"state": 1}', b"[" * 100_000])
def test_a_node_that_is_not_patroni_is_an_error(wire: Callable[..., Wire], body: bytes) -> None:
    server = wire(_http(body))
    with PatroniClient(PatroniConfig(urls=server.url)) as client, pytest.raises(DiscoveryError, match="/patroni: "):
        client.node(server.url)


# -- Any bytes ------------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "members",
                    "name",
                    "role",
                    "state",
                    "host",
                    "port",
                    "api_url",
                    "timeline",
                    "lag",
                    "tags",
                    "scope",
                    "pause",
                    "replay_lag",
                    "scheduled_switchover",
                    "at",
                    "from",
                    "to",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=8,
        )
    ),
    max_leaves=30,
)
_MEMBERS = st.lists(
    st.fixed_dictionaries(
        {"name": st.text(max_size=4)},
        optional={
            "role": st.sampled_from(["leader", "replica", "standby_leader", "new role"]) | _JSON,
            "state": st.sampled_from(["running", "streaming"]) | _JSON,
            "host": st.text(max_size=8) | _JSON,
            "port": st.integers() | _JSON,
            "api_url": st.sampled_from(["http://h:8008/patroni", "http://[::1", "http://h:x", "//"]) | _JSON,
            "timeline": _JSON,
            "lag": _JSON,
            "tags": _JSON,
        },
    )
    | _JSON,
    max_size=4,
)
_ANY_BODY = (
    st.binary()
    | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
    | _JSON.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries({"members": _MEMBERS}, optional={"scope": _JSON, "scheduled_switchover": _JSON}).map(
        lambda value: json.dumps(value).encode()
    )
)


def _use(topology: Topology) -> None:
    """Touch everything that routing reads."""
    hash(topology.routing())
    for member in topology.members:
        assert member.name
        assert isinstance(member.serves_reads, bool)
        assert member.port is None or 0 < member.port < 65536
        assert member.lag is None or member.lag >= 0
    assert topology.primary is None or topology.primary.address is not None


def _outcome(call: Callable[[], Topology], expected: type[Exception]) -> Topology | Exception:
    """Return what `call` gives, or the error expected of it; any other error is the test's failure."""
    try:
        return call()
    except expected as exc:
        return exc


@given(body=_ANY_BODY)
@settings(max_examples=400, deadline=None)
def test_any_bytes_parse_or_are_a_payload_error(body: bytes) -> None:
    outcome = _outcome(lambda: parse_cluster(body), PayloadError)
    if isinstance(outcome, Topology):
        _use(outcome)
    else:
        assert str(outcome)


@given(cut=st.integers(0, len(_CLUSTER)), junk=st.binary(max_size=20), kept=st.integers(0, len(_CLUSTER)))
@settings(max_examples=200, deadline=None)
def test_a_damaged_answer_parses_or_is_a_payload_error(cut: int, junk: bytes, kept: int) -> None:
    with contextlib.suppress(PayloadError):
        _use(parse_cluster(_CLUSTER[:cut] + junk + _CLUSTER[kept:]))


@given(reply=st.binary(max_size=300) | _ANY_BODY.map(_http))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_on_the_wire_are_a_topology_or_a_discovery_error(wire: Callable[..., Wire], reply: bytes) -> None:
    server = wire(reply)
    outcome = _outcome(lambda: _ask(server.url), DiscoveryError)
    if isinstance(outcome, Topology):
        _use(outcome)
    else:
        assert str(outcome).startswith(f"{server.url}/cluster: ")
