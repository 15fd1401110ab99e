"""Speaking to a cluster's supervisor: one JSON line to its unix socket, one JSON line back.

A connection for each call, so that threads, forked children and other programs need no agreement.
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["call", "read_line"]

_LINE_LIMIT = 1 << 20


def read_line(connection: socket.socket) -> bytes:
    """Read up to a line feed or the end; the rest of what is sent is not looked at.

    :raises OSError: also when the line is longer than 1 MiB
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        received = connection.recv(65536)
        if not received:
            break
        line += received
        if len(line) > _LINE_LIMIT:
            raise OSError("the line is too long")
    return bytes(line)


def call(
    control: Path, operation: str, /, *, timeout: float = 30.0, until_closed: bool = False, **arguments: Any
) -> dict[str, Any]:
    """Have the supervisor do something.

    :param control: its control socket
    :param operation: what to do
    :param timeout: seconds to wait for the answer
    :param until_closed: whether to wait also until the supervisor is gone
    :param arguments: what the operation needs
    :returns: the answer
    :raises ClusterError: when it cannot be reached or did not do it
    """
    request: Mapping[str, Any] = {"operation": operation, **arguments}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(control))
            connection.sendall(json.dumps(request).encode() + b"\n")
            line = read_line(connection)
            if line and until_closed:
                read_line(connection)
    except OSError as error:
        raise ClusterError(f"the cluster's supervisor does not answer; is the cluster running? ({error})") from error
    if not line:
        raise ClusterError("the cluster's supervisor ended while it was asked")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise ClusterError(str(answer["error"]))
    return answer
