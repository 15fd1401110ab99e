"""Applications on a Patroni PostgreSQL cluster that survive failovers.

The core: settings, discovery and selection, without any framework. Importing it starts no thread and
opens no socket or file, and loads neither libpq nor an HTTP library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patroni_db.config import PatroniConfig
    from patroni_db.discovery import Discovery, discovery_for
    from patroni_db.errors import (
        CommitOutcomeUnknown,
        ConfigError,
        DiscoveryError,
        NoPrimaryError,
        NoReplicaError,
        NoServerError,
        PatroniError,
    )
    from patroni_db.selection import Target
    from patroni_db.snapshot import Snapshot
    from patroni_db.topology import Address, Member, Role, Topology

__version__ = "0.1.0"

__all__ = [
    "Address",
    "CommitOutcomeUnknown",
    "ConfigError",
    "Discovery",
    "DiscoveryError",
    "Member",
    "NoPrimaryError",
    "NoReplicaError",
    "NoServerError",
    "PatroniConfig",
    "PatroniError",
    "Role",
    "Snapshot",
    "Target",
    "Topology",
    "__version__",
    "discovery_for",
]

_HOMES = {
    "Address": "topology",
    "CommitOutcomeUnknown": "errors",
    "ConfigError": "errors",
    "Discovery": "discovery",
    "DiscoveryError": "errors",
    "Member": "topology",
    "NoPrimaryError": "errors",
    "NoReplicaError": "errors",
    "NoServerError": "errors",
    "PatroniConfig": "config",
    "PatroniError": "errors",
    "Role": "topology",
    "Snapshot": "snapshot",
    "Target": "selection",
    "Topology": "topology",
    "discovery_for": "discovery",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first asked for (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
