"""Views of clusters for the command line's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patroni_db import DiscoveryError
from patroni_db.cli.view import View
from patroni_db.client import NodeStatus
from patroni_db.network import AddressBook
from patroni_db.topology import parse_cluster

if TYPE_CHECKING:
    from patroni_db import Member

BODIES = Path(__file__).parent.parent / "spec" / "bodies"
SOURCE = "http://n1:8008"

RUNNING_PRIMARY = NodeStatus("primary", "running", 1, None)
RUNNING_REPLICA = NodeStatus("replica", "running", 1, None)
NO_ANSWER = DiscoveryError("http://n1:8008/patroni", "Connection refused", transient=True)


def recorded(name: str) -> View:
    """Return the view that a recorded answer gives, no member asked."""
    return View(parse_cluster((BODIES / f"{name}.json").read_bytes()), SOURCE, AddressBook())


def row(name: str, role: str = "replica", **changes: Any) -> dict[str, Any]:
    """Return a row of ``/cluster``."""
    state = "running" if "leader" in role else "streaming"
    base: dict[str, Any] = {"name": name, "role": role, "state": state, "host": f"{name}.test", "port": 5432}
    base |= {"api_url": f"http://{name}:8008/patroni", "timeline": 1}
    if "leader" not in role:
        base["lag"] = 0
    return base | changes


def view(
    *rows: dict[str, Any],
    answers: dict[str, NodeStatus | DiscoveryError] | None = None,
    book: AddressBook | None = None,
    **extra: Any,
) -> View:
    """Return the view of a cluster of these rows."""
    body = json.dumps({"members": rows, "scope": "lab", **extra})
    return View(parse_cluster(body), SOURCE, book or AddressBook(), answers or {})


def member(of: View, name: str) -> Member:
    """Return the member called `name`."""
    found = of.topology.member(name)
    assert found is not None
    return found
