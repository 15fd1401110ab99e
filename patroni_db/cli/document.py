"""Views as JSON documents: the stable form for programs. Pure. Described in docs/cli.md; keys are only ever added."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from patroni_db.errors import DiscoveryError

if TYPE_CHECKING:
    from patroni_db.cli.view import View
    from patroni_db.topology import Member

__all__ = ["error_document", "json_text", "status_document"]

_SURROGATES: Final = re.compile("[\ud800-\udfff]")


def json_text(document: Mapping[str, Any], *, indent: int | None = 2) -> str:
    """Return a document as JSON that every program can read, in ASCII, so that no terminal obeys it.

    Python also reads and writes ``NaN``, infinities and lone surrogates, which a member's tags may hold: they become
    null, and the replacement character.
    """
    return json.dumps(_valid(document), indent=indent, allow_nan=False)


def _valid(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_valid(str(name)): _valid(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return list(map(_valid, value))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _SURROGATES.sub("\ufffd", value) if isinstance(value, str) else value


def status_document(view: View) -> dict[str, Any]:
    """Return what ``patroni-db status --json`` prints."""
    topology = view.topology
    planned = topology.scheduled_switchover
    return {
        "scope": topology.scope,
        "source": view.source,
        "primary": topology.primary.name if topology.primary else None,
        "leader": topology.leader.name if topology.leader else None,
        "healthy": view.leads,
        "timeline": topology.timeline,
        "paused": topology.paused,
        "scheduled_switchover": planned and {"at": planned.at, "from": planned.from_, "to": planned.to},
        "members": [_member(view, member) for member in topology.members],
        "failures": [_failure(failure) for failure in view.failures],
    }


def error_document(error: DiscoveryError) -> dict[str, Any]:
    """Return what every command prints with ``--json`` when no API gave a usable answer."""
    return {"error": str(error), "failures": [_failure(failure) for failure in error.failures or (error,)]}


def _member(view: View, member: Member) -> dict[str, Any]:
    address = view.address_of(member)
    answer = view.answers.get(member.name)
    return {
        "name": member.name,
        "role": member.role,
        "state": member.state,
        "host": address.host if address else None,
        "port": address.port if address else None,
        "api_url": view.book.api_url(member),
        "timeline": member.timeline,
        "lag": member.lag,
        "tags": dict(member.tags),
        "answers": None if answer is None else not isinstance(answer, DiscoveryError),
        "problem": view.doubt(member),
    }


def _failure(error: DiscoveryError) -> dict[str, Any]:
    return {"url": error.url, "reason": error.reason}
