"""Connection parameters for libpq's drivers (psycopg, psycopg2): defaults, those of one attempt, servers. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from patroni_db.selection import Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from patroni_db.acquisition import Attempt
    from patroni_db.topology import Address

__all__ = [
    "ADDRESSING",
    "DEFAULTS",
    "NO_HOSTADDR",
    "attempt_params",
    "hosts_and_ports",
    "server_params",
    "session_attrs",
    "with_defaults",
]

# `read-write` is understood by libpq 10 and later, the other two by 14 and later. libpq has no word for
# `primary_preferred`: there the order of the servers says it.
_SESSION_ATTRS: Final = {
    Target.PRIMARY: "read-write",
    Target.REPLICA: "standby",
    Target.REPLICA_PREFERRED: "prefer-standby",
}

# A path that went dead without a word is noticed after about six seconds instead of libpq's two hours:
# idle connections by keepalives, data in flight by tcp_user_timeout (in milliseconds, Linux only;
# elsewhere libpq ignores it).
DEFAULTS: Final[Mapping[str, Any]] = {
    "keepalives": 1,
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 6000,
}
# What discovery decides: naming a server or a role beside it would contradict it.
ADDRESSING: Final = frozenset({"host", "hostaddr", "port", "target_session_attrs", "load_balance_hosts"})
#: A ``hostaddr`` that names none. One from PGHOSTADDR, a service file or a ``dsn`` would be connected to in place of
#: every host.
NO_HOSTADDR: Final = ""
# libpq and psycopg raise a smaller connect_timeout to two seconds.
_LEAST_CONNECT_TIMEOUT: Final = 2


def with_defaults(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return `params` with short timeouts for a dead network path where the user set none."""
    return {**DEFAULTS, **params}


def attempt_params(params: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
    """Return `params` that lead to the attempt's server, within its time unless the user set ``connect_timeout``."""
    timeout = max(_LEAST_CONNECT_TIMEOUT, math.ceil(attempt.timeout))
    server = {"host": attempt.address.host, "hostaddr": NO_HOSTADDR, "port": attempt.address.port}
    return {"connect_timeout": timeout, **params, **server}


def session_attrs(target: Target) -> str | None:
    """Return ``target_session_attrs`` for `target`; None when any server will do. asyncpg has the same words."""
    return _SESSION_ATTRS.get(target)


def hosts_and_ports(addresses: Sequence[Address]) -> list[tuple[str, int]]:
    """Return host and port of each server; a member may advertise several hosts with one port, as one text."""
    return [(host, address.port) for address in addresses for host in address.hosts]


def server_params(addresses: Sequence[Address], target: Target) -> dict[str, str]:
    """Return the parameters that name the servers at `addresses`, in that order, and the role they must prove."""
    pairs = hosts_and_ports(addresses)
    params = {"host": ",".join(host for host, _ in pairs), "port": ",".join(str(port) for _, port in pairs)}
    attrs = session_attrs(target)
    return params if attrs is None else {**params, "target_session_attrs": attrs}
