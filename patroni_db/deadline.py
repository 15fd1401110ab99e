"""HTTP connections whose whole answer has one deadline.

The timeout of a socket holds for one read: a server that sends a header byte by byte would keep its reader for
ever, and with it everybody who waits for the reader. Here each read gets only what is left of the time.
"""

from __future__ import annotations

import functools
import http.client
import io
import time
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from patroni_db.forking import no_fork

if TYPE_CHECKING:
    import socket

    from urllib3.response import HTTPResponse

__all__ = ["DeadlineAdapter", "DeadlineResponse"]


class DeadlineAdapter(HTTPAdapter):
    """A transport adapter for requests: its read timeout is for the whole answer, from status line to last byte."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool manager, and give it pools of our connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


class _Connection(HTTPConnection):
    def connect(self) -> None:
        with no_fork():
            super().connect()

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 has it, which typeshed does not know
        return _with_deadline(self, super().getresponse)


class _TLSConnection(HTTPSConnection):
    def connect(self) -> None:
        with no_fork():
            super().connect()

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 has it, which typeshed does not know
        return _with_deadline(self, super().getresponse)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


def _with_deadline(connection: HTTPConnection, getresponse: Any) -> HTTPResponse:
    """Get the response through a reader that knows its end; at this point ``timeout`` is the read timeout."""
    if connection.timeout is not None:
        response_class = functools.partial(DeadlineResponse, deadline=time.monotonic() + connection.timeout)
        connection.response_class = response_class  # type: ignore[assignment]  # only ever called
    response: HTTPResponse = getresponse()
    return response


class DeadlineResponse(http.client.HTTPResponse):
    """A response whose reads end at a deadline, together.

    :param deadline: in seconds of :func:`time.monotonic`
    """

    def __init__(self, sock: socket.socket, *args: Any, deadline: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._reader = _Reader(self.fp.detach(), sock, deadline)
        self.fp = io.BufferedReader(self._reader)

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
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            message = "timed out"
            raise TimeoutError(message)
        self._sock.settimeout(remaining)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
