"""TLS as configured: one context for all connections, made again when one of its files has changed.

Reading a bundle of authorities takes tens of milliseconds, and every answer of Patroni's API ends its connection.
"""

from __future__ import annotations

import functools
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from patroni_db.forking import no_fork
from patroni_db.sockets import seconds_until

if TYPE_CHECKING:
    import socket

__all__ = ["TLS", "handshake", "tls_of"]


class TLS:
    """The context of one configuration. Its method may be called from any thread.

    :param ca: path of the authorities' certificates, or of a folder of them; None for those of the system
    :param cert: path of our own certificate
    :param key: path of its key; None where `cert` holds that too
    """

    def __init__(self, ca: str | None, cert: str | None, key: str | None) -> None:
        self._ca = ca
        self._cert = cert
        self._key = key
        self._made: tuple[tuple[object, ...], ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context, made of the files as they are now.

        :raises OSError: a file cannot be read, or holds nothing of use (:class:`ssl.SSLError`)
        """
        files = tuple(_identity(path) for path in (self._ca, self._cert, self._key) if path is not None)
        made = self._made
        if made is None or made[0] != files:
            made = self._made = (files, self._make())
        return made[1]

    def _make(self) -> ssl.SSLContext:
        is_folder = self._ca is not None and Path(self._ca).is_dir()
        context = ssl.create_default_context(
            cafile=None if is_folder else self._ca, capath=self._ca if is_folder else None
        )
        context.hostname_checks_common_name = False
        context.set_alpn_protocols(["http/1.1"])
        if self._cert is not None:
            context.load_cert_chain(self._cert, self._key)
        return context


@functools.lru_cache(maxsize=32)
def tls_of(ca: str | None, cert: str | None, key: str | None) -> TLS:
    """Return the one :class:`TLS` of these paths: all clients of a configuration share its context."""
    return TLS(ca, cert, key)


def handshake(connection: socket.socket, context: ssl.SSLContext, host: str, deadline: float) -> ssl.SSLSocket:
    """Return the TLS session over `connection`, which it closes where that fails.

    :param host: whose certificate it must be; a name, or an address
    :param deadline: in seconds of :func:`time.monotonic`
    :raises TimeoutError: it has passed
    :raises OSError: the session failed (:class:`ssl.SSLError`), or the connection broke off
    """
    try:
        connection.settimeout(seconds_until(deadline))
        with no_fork():  # as a certificate knows it: without the dot at the end, or the zone of an IPv6 address
            return context.wrap_socket(connection, server_hostname=host.rstrip(".").partition("%")[0])
    except BaseException:
        connection.close()
        raise


def _identity(path: str) -> tuple[object, ...]:
    """Return what changes when a file is replaced or written."""
    found = os.stat(path)  # noqa: PTH116 - thrice a request
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
