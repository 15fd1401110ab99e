"""What an error on a connection means for that connection. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patroni_db.faults import Fault

if TYPE_CHECKING:
    from patroni_db.selection import Target

__all__ = ["condemns"]


def condemns(fault: Fault, target: Target, in_hot_standby: str | None) -> bool:
    """Return whether an error shows that its connection leads to a server that is gone or has the wrong role.

    A connection for writing that is told "read-only" (25006) is on the wrong server, unless that server says it
    is no standby: then the transaction itself was declared READ ONLY, and nothing is wrong with the connection.

    :param fault: what the error says about the server
    :param target: what the connection is for
    :param in_hot_standby: what the server last reported, ``on`` or ``off``; None when it reports nothing
        (PostgreSQL before 14, and poolers in between)
    """
    if fault is Fault.NOT_WRITABLE:
        return target.writes and in_hot_standby != "off"
    return fault is Fault.UNAVAILABLE
