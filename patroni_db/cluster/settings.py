"""The wishes a local cluster is made from, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from patroni_db.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ClusterSettings"]

# Patroni raises smaller values to these with a warning (its validator, and facts of 4.1).
_MIN_TTL = 20
_MIN_LOOP_WAIT = 1
_MIN_RETRY_TIMEOUT = 3

# Each node takes one address of a /24 block; etcd has .100.
_MAX_NODES = 32

_NODE_NAME = re.compile(r"n[1-9][0-9]?\Z")


def _frozen(mapping: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return MappingProxyType(dict(mapping or {}))


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What kind of cluster is wanted.

    :param nodes: number of Patroni nodes
    :param synchronous: ``True`` for Patroni's ``synchronous_mode``, ``"quorum"`` for quorum commit (Patroni 4)
    :param failsafe: Patroni's ``failsafe_mode``: the primary lives on while etcd is down
    :param ttl: seconds until the leader key of a dead leader expires
    :param loop_wait: seconds between two looks of Patroni's main loop
    :param retry_timeout: seconds Patroni retries etcd and PostgreSQL before it gives up
    :param primary_start_timeout: seconds a crashed primary may take to restart in place; 0 means failover at once
    :param parameters: PostgreSQL parameters, over the cluster's own
    :param tags: Patroni tags by node name, for example ``{"n3": {"nofailover": True}}``
    :raises ConfigError: naming the setting that is wrong
    """

    nodes: int = 3
    synchronous: bool | Literal["quorum"] = False
    failsafe: bool = False
    ttl: int = 20
    loop_wait: int = 1
    retry_timeout: int = 3
    primary_start_timeout: int = 0
    parameters: Mapping[str, Any] = field(default_factory=lambda: _frozen(None))
    tags: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _frozen(None))

    def __post_init__(self) -> None:
        for name, low, high in (
            ("nodes", 1, _MAX_NODES),
            ("ttl", _MIN_TTL, None),
            ("loop_wait", _MIN_LOOP_WAIT, None),
            ("retry_timeout", _MIN_RETRY_TIMEOUT, None),
            ("primary_start_timeout", 0, None),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigError(name, f"must be a whole number, not {value!r}")
            if value < low or (high is not None and value > high):
                bounds = f"at least {low}" if high is None else f"from {low} to {high}"
                raise ConfigError(name, f"must be {bounds}, not {value}")
        # Patroni's own rule; it would silently lower loop_wait and retry_timeout instead.
        if self.loop_wait + 2 * self.retry_timeout > self.ttl:
            raise ConfigError("ttl", "must be at least loop_wait + 2 * retry_timeout")
        if self.synchronous not in (True, False, "quorum"):
            raise ConfigError("synchronous", f"must be True, False or 'quorum', not {self.synchronous!r}")
        names = {f"n{index}" for index in range(1, self.nodes + 1)}
        for name in self.tags:
            if not _NODE_NAME.match(name) or name not in names:
                raise ConfigError("tags", f"there is no node {name!r}; nodes are n1 to n{self.nodes}")
        object.__setattr__(self, "parameters", _frozen(self.parameters))
        object.__setattr__(self, "tags", MappingProxyType({name: _frozen(tags) for name, tags in self.tags.items()}))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON value that :meth:`from_json` understands."""
        return {
            "nodes": self.nodes,
            "synchronous": self.synchronous,
            "failsafe": self.failsafe,
            "ttl": self.ttl,
            "loop_wait": self.loop_wait,
            "retry_timeout": self.retry_timeout,
            "primary_start_timeout": self.primary_start_timeout,
            "parameters": dict(self.parameters),
            "tags": {name: dict(tags) for name, tags in self.tags.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ClusterSettings:
        """Return the settings that :meth:`to_json` gave."""
        return cls(**value)
