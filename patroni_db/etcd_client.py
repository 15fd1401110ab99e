"""etcd's v3 JSON gateway over HTTP: one call, one answer or one :class:`EtcdError`. For one thread.

Each call has a connection of its own: a watch keeps its one busy for as long as it lives. No proxy of the environment
is used, as nowhere in this library.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import ssl
import time
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

from patroni_db.deadline import DeadlineResponse
from patroni_db.escaping import plain, plain_cause
from patroni_db.etcd_messages import (
    AUTHENTICATE,
    RANGE,
    WATCH,
    AnswerError,
    Leader,
    Notice,
    authenticate_request,
    parse_leader,
    parse_notice,
    parse_problem,
    parse_token,
    range_request,
    watch_request,
)
from patroni_db.sockets import connect_by, seconds_until
from patroni_db.tls import handshake, tls_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from patroni_db.config import PatroniConfig
    from patroni_db.push import Stop
    from patroni_db.tls import TLS

__all__ = ["EtcdClient", "EtcdError"]

# The leader key's value is a member's name: answers are below 1 kB. More is not etcd's.
_MAX_BODY: Final = 1 << 20
_CHUNK: Final = 64 << 10
_OK: Final = 200


class EtcdError(Exception):
    """An endpoint of etcd gave no usable answer.

    :param url: the endpoint
    :param reason: why not
    """

    def __init__(self, url: str, reason: str) -> None:
        reason = plain(reason)
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return plain(f"{self.url}: {self.reason}")


class EtcdClient:
    """A client for all endpoints of one etcd.

    :param config: timeout, TLS and authentication settings
    :param stop: interrupts what it waits for
    """

    def __init__(self, config: PatroniConfig, stop: Stop) -> None:
        self._config = config
        self._stop = stop
        cert, key = (config.etcd_cert, config.etcd_key) if config.etcd_cert else (config.cert, config.key)
        self._tls = tls_of(config.etcd_ca or config.ca, cert, key)

    def token(self, url: str) -> str | None:
        """Return what proves who we are to the endpoint at `url`; None where no user is configured.

        :raises EtcdError: the answer is missing, late, a refusal, or not etcd's
        """
        user, password = self._config.etcd_user, self._config.etcd_password
        if user is None or password is None:
            return None
        body = self._call(url, AUTHENTICATE, authenticate_request(user, password), None)
        with _named(url, self._config.timeout):
            return parse_token(body)

    def leader(self, url: str, key: str, token: str | None = None) -> Leader:
        """Return who holds `key`, as a majority of etcd's members knows it.

        :raises EtcdError: the answer is missing, late, a refusal, or not etcd's
        """
        body = self._call(url, RANGE, range_request(key), token)
        with _named(url, self._config.timeout):
            return parse_leader(body)

    def watch(self, url: str, key: str, revision: int, silence: float, token: str | None = None) -> Generator[Notice]:
        """Return what becomes of `key` from `revision` on, until the server ends it.

        :param silence: seconds that may pass from one notice to the next
        :raises TimeoutError: after so long a silence; it may be that nothing happened
        :raises EtcdError: the answer is missing, late, a refusal, or not etcd's; or it broke off
        """
        with self._posted(url, WATCH, watch_request(key, revision), token) as response:
            pending = bytearray()
            opened = False
            while True:
                try:
                    chunk = response.read1(_CHUNK)
                except TimeoutError:
                    if opened:
                        raise _SilenceError from None
                    raise
                if not chunk:
                    raise EtcdError(url, "the watch broke off")
                pending += chunk
                if len(pending) > _MAX_BODY:
                    raise EtcdError(url, f"a line is larger than {_MAX_BODY} bytes")
                *lines, rest = pending.split(b"\n")
                pending = bytearray(rest)
                for line in filter(None, map(bytes, lines)):
                    opened = True
                    response.extend(time.monotonic() + silence)
                    yield parse_notice(line)

    def _call(self, url: str, path: str, request: bytes, token: str | None) -> bytes:
        with self._posted(url, path, request, token) as response:
            return _read(response, url)

    @contextlib.contextmanager
    def _posted(self, url: str, path: str, request: bytes, token: str | None) -> Iterator[DeadlineResponse]:
        """Send a request; inside the block its response, good so far, may be read until the deadline."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        # A member that lost touch with the others ends a watch that asked for this, instead of keeping silent.
        headers["Grpc-Metadata-hasleader"] = "true"
        if token is not None:
            headers["Authorization"] = token
        with _named(url, self._config.timeout):
            connection = _Connection(url, self._tls, time.monotonic() + self._config.timeout)
            with contextlib.closing(connection):
                connection.connect()
                with self._stop.interrupting(connection.sock):
                    connection.request("POST", urlsplit(url).path + path, request, headers)
                    response = cast("DeadlineResponse", connection.getresponse())
                    with response:
                        if response.status != _OK:
                            problem = parse_problem(_read(response, url))
                            raise EtcdError(url, f"answered with HTTP status {response.status} ({problem})")
                        yield response


class _Connection(http.client.HTTPConnection):
    """A connection for one request.

    :param url: of the endpoint
    :param tls: makes the context for ``https://``
    :param deadline: for all of it, in seconds of :func:`time.monotonic`
    """

    def __init__(self, url: str, tls: TLS, deadline: float) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = tls if parts.scheme == "https" else None
        self._deadline = deadline
        self.default_port = http.client.HTTPS_PORT if self._tls else http.client.HTTP_PORT
        super().__init__(self._host, parts.port or self.default_port)
        self.response_class = functools.partial(DeadlineResponse, deadline=deadline)  # type: ignore[assignment]  # only ever called

    def connect(self) -> None:
        context = self._tls.context() if self._tls is not None else None
        connection = connect_by(self._host, self.port, self._deadline)
        self.sock = handshake(connection, context, self._host, self._deadline) if context is not None else connection
        self.sock.settimeout(seconds_until(self._deadline))


class _SilenceError(TimeoutError):
    """Nothing came for as long as that is fine."""


@contextlib.contextmanager
def _named(url: str, timeout: float) -> Iterator[None]:
    """Let everything that can go wrong with a call be one error that names the endpoint."""
    try:
        yield
    except _SilenceError:
        raise
    except TimeoutError as exc:
        raise EtcdError(url, f"no answer within {timeout:g} s") from exc
    except AnswerError as exc:
        raise EtcdError(url, str(exc)) from exc
    except ssl.SSLError as exc:
        raise EtcdError(url, f"TLS failed: {exc}") from exc
    except OSError as exc:
        why = ": ".join(filter(None, (exc.filename, exc.strerror)))  # a certificate's file
        raise EtcdError(url, why or f"{type(exc).__name__}: {exc}") from exc
    except (http.client.HTTPException, ValueError) as exc:  # ValueError: a host that is no valid name
        raise EtcdError(url, f"not HTTP: {exc}") from plain_cause(exc)


def _read(response: DeadlineResponse, url: str) -> bytes:
    body = bytearray()
    while chunk := response.read1(_CHUNK):
        body += chunk
        if len(body) > _MAX_BODY:
            raise EtcdError(url, f"the answer is larger than {_MAX_BODY} bytes")
    return bytes(body)
