"""HTTP requests with one deadline, from resolving the name to the last byte of the answer.

The timeouts of requests, urllib3 and a socket each hold for one step: a server that sends a header byte by byte would
keep its reader for ever, and with it everybody who waits for the reader. Here each step gets only what is left of the
time. Every connection ends with its answer: Patroni's API closes it anyhow.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import time
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from patroni_db.sockets import connect_by, seconds_until
from patroni_db.tls import handshake

if TYPE_CHECKING:
    import ssl

    from requests import PreparedRequest

    from patroni_db.tls import TLS

__all__ = ["DeadlineAdapter", "DeadlineResponse"]


class DeadlineAdapter(HTTPAdapter):
    """A transport adapter for requests: the timeout of a request is for all of it.

    :param tls: makes the context of ``https://`` connections; ``verify`` and ``cert`` of requests are not looked at
    """

    def __init__(self, tls: TLS) -> None:
        self._tls = tls
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool manager, and give it pools of our connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def build_connection_pool_key_attributes(
        self, request: PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """Return what identifies the pool of a request: the host, and the TLS context as its files are now.

        :raises OSError: a file cannot be read, or holds nothing of use (:class:`ssl.SSLError`)
        """
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        is_tls = urlsplit(request.url or "").scheme == "https"
        return host, {"ssl_context": self._tls.context()} if is_tls else {}

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the context has its authorities, which every connection would read again."""


class _Connection(HTTPConnection):
    """A connection for one request. When it connects, its timeout is for the whole request."""

    _deadline: float

    def connect(self) -> None:
        self._deadline = time.monotonic() + cast("float", self.timeout)
        self.sock = self._new_conn()
        self._prepare()

    def _prepare(self) -> None:
        """Let what follows, sending the request and reading its response, end at the deadline."""
        self.timeout = seconds_until(self._deadline)
        response_class = functools.partial(DeadlineResponse, deadline=self._deadline)
        self.response_class = response_class  # type: ignore[assignment]  # only ever called

    def _new_conn(self) -> socket.socket:
        try:
            return connect_by(self._dns_host, self.port, self._deadline)
        except socket.gaierror as exc:
            raise NameResolutionError(self.host, self, exc) from exc
        except TimeoutError as exc:
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out") from exc
        except OSError as exc:
            raise NewConnectionError(self, f"Failed to establish a new connection: {exc}") from exc


class _TLSConnection(_Connection, HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        # Not HTTPSConnection's way, which changes the context with each connection: others use it at the same time.
        self.sock = handshake(self.sock, cast("ssl.SSLContext", self.ssl_context), self.host, self._deadline)
        self.is_verified = True
        self._prepare()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class DeadlineResponse(http.client.HTTPResponse):
    """A response whose reads end at a deadline, together. Its connection ends with it.

    :param deadline: in seconds of :func:`time.monotonic`
    """

    def __init__(self, sock: socket.socket, *args: Any, deadline: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._reader = _Reader(self.fp.detach(), sock, deadline)
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        """Read the status and the headers, whatever they say of keeping the connection."""
        super().begin()
        self.will_close = True

    def extend(self, deadline: float) -> None:
        """Let reads go on until another deadline: for answers that come in parts, each of which has its time."""
        self._reader.deadline = deadline


class _Reader(io.RawIOBase):
    """Reads from `raw`, the stream of `sock`, until the deadline."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._raw = raw
        self._sock = sock
        self.deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(seconds_until(self.deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
