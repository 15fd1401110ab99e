"""Connection strings in the three forms libpq's users need. Pure.

They name servers *and* the role the server must prove (``target_session_attrs``): what Patroni says can be a
moment old.
"""

from __future__ import annotations

import enum
import re
import shlex
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from patroni_db.libpq import hosts_and_ports, server_params, session_attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patroni_db.selection import Target
    from patroni_db.topology import Address

__all__ = ["Form", "connection_string"]

_VARIABLES: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
_NEEDS_QUOTES: Final = re.compile(r"[\s'\\]|\A\Z")


class Form(enum.StrEnum):
    """How a connection string is written."""

    URI = "uri"
    LIBPQ = "libpq"
    ENV = "env"


def connection_string(
    form: Form,
    addresses: Sequence[Address],
    *,
    target: Target,
    dbname: str | None = None,
    user: str | None = None,
    password: str | None = None,
) -> str:
    """Return a connection string for the servers at `addresses`, in that order.

    :param form: ``env`` gives lines for a shell's ``eval``, the others one line
    :param addresses: at least one
    :param target: which of the servers libpq may settle for
    :param dbname: left out when None, as are the next two: libpq's own defaults hold then
    """
    if form is Form.URI:
        return _uri(hosts_and_ports(addresses), dbname, user, password, session_attrs(target))
    servers = server_params(addresses, target)
    values = {
        "host": servers["host"],
        "port": servers["port"],
        "dbname": dbname,
        "user": user,
        "password": password,
        "target_session_attrs": servers.get("target_session_attrs"),
    }
    given = {name: value for name, value in values.items() if value is not None}
    if form is Form.ENV:
        return "\n".join(f"export {_VARIABLES[name]}={shlex.quote(value)}" for name, value in given.items())
    return " ".join(f"{name}={_quoted(value)}" for name, value in given.items())


def _uri(
    pairs: Sequence[tuple[str, int]], dbname: str | None, user: str | None, password: str | None, attrs: str | None
) -> str:
    login = ""
    if user is not None or password is not None:
        secret = "" if password is None else f":{quote(password, safe='')}"
        login = f"{quote(user or '', safe='')}{secret}@"
    servers = ",".join(f"[{host}]:{port}" if ":" in host else f"{quote(host, safe='')}:{port}" for host, port in pairs)
    query = f"?target_session_attrs={attrs}" if attrs else ""
    return f"postgresql://{login}{servers}/{quote(dbname or '', safe='')}{query}"


def _quoted(value: str) -> str:
    if not _NEEDS_QUOTES.search(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
