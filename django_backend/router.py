"""Reads to the replicas, writes to the primary."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections, router

from django_backend.aliases import following
from django_backend.beginnings import forget_beginning, may_have_begun
from django_backend.pairing import pair
from django_backend.routing import Route, current_rules
from django_backend.standing import shows_what_is_known
from django_backend.work import Consistency, current_work
from patroni_db.causal_context import causal_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from django.db.models import Model

    from django_backend.pairing import Alias

__all__ = ["PrimaryReplicaRouter"]


class PrimaryReplicaRouter:
    """Sends reads to the replicas' alias of a cluster, and all else to its primary's alias.

    Reads go to the primary too

    - within :func:`~django_backend.routing.use_primary`,
    - in migrations, also in those that are not atomic,
    - inside ``atomic``: a transaction must see its own writes, and what ``ForeignKey.validate`` and the like read there
      must be what is true now,
    - after a write of the same request or task, behind
      :class:`~django_backend.causal_middleware.CausalMiddleware` or within :func:`~django_backend.causal.consistency`,
    - while the replica does not show what a causal token stands for.

    The first alias in ``DATABASES`` that reads from replicas of a primary gets its reads; further ones (another lag,
    another zone) are for ``using()``. Aliases with other engines are left to other routers and to Django.
    """

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        """Return the replicas' alias, or the primary's where a replica will not do."""
        primary = self.primary_for(model, **hints)
        if primary is None:
            return None
        rules = current_rules()
        if rules is not None:
            route = rules.route(primary)
            if route is not None:
                return self.reader_for(primary, model, **hints) if route is Route.REPLICA else primary
        if _is_historical(model) or (may_have_begun(primary) and _is_in_transaction(primary)):
            return primary
        work = current_work()
        if work is not None and work.reads_primary(primary):
            return primary
        reader = self.reader_for(primary, model, **hints)
        scope = causal_scope()
        if scope is None or not scope.tokens or (work is not None and work.level is Consistency.EVENTUAL):
            return reader
        return reader if reader == primary or shows_what_is_known(scope, reader, primary) else primary

    def db_for_write(self, model: type[Model], **hints: Any) -> str | None:
        """Return the primary's alias. Later reads of the same request or task go there too: a write is to follow."""
        primary = self.primary_for(model, **hints)
        if primary is not None:
            work = current_work()
            if work is not None:
                work.pin(primary)
        return primary

    def allow_relation(self, obj1: Model, obj2: Model, **_hints: Any) -> bool | None:
        """Allow relations between objects of one database, whichever alias they were read through."""
        first, second = (self._primaries.get(_origin({"instance": obj}) or "") for obj in (obj1, obj2))
        return True if first is not None and first == second else None

    def allow_migrate(self, db: str, app_label: str, **_hints: Any) -> bool | None:
        """Forbid migrations through aliases that read."""
        return False if db in self._partners else None

    def primary_for(self, model: type[Model], **hints: Any) -> str | None:
        """Return the alias that `model` is written to; None when this router has no say. May be overridden.

        That is where another router in ``DATABASE_ROUTERS`` writes it, else the cluster `instance` came
        from, else ``default``.
        """
        alias = self._others and self._elsewhere(model, hints)
        if not alias:
            alias = (hints and _origin(hints)) or DEFAULT_DB_ALIAS
        return self._primaries.get(alias)

    def reader_for(self, primary: str, model: type[Model], **hints: Any) -> str:
        """Return the alias that reads of `model` outside a transaction go to. May be overridden."""
        readers = self._readers.get(primary)
        if not readers:
            return primary
        origin = hints and _origin(hints)
        return origin if origin and origin in readers else readers[0]

    @cached_property
    def _others(self) -> Sequence[Callable[..., str | None]]:
        """What the project's other routers say of where to write."""
        others = [other for other in router.routers if not isinstance(other, PrimaryReplicaRouter)]
        return tuple(other.db_for_write for other in others if hasattr(other, "db_for_write"))

    def _elsewhere(self, model: type[Model], hints: Mapping[str, Any]) -> str | None:
        """Return where another router writes `model`."""
        return next(filter(None, (write(model, **hints) for write in self._others)), None)

    @cached_property
    def _aliases(self) -> Sequence[Alias]:
        return following()

    @cached_property
    def _partners(self) -> Mapping[str, str]:
        """The primary's alias by replicas' alias."""
        return pair(self._aliases)

    @cached_property
    def _primaries(self) -> Mapping[str, str]:
        """The primary's alias by each alias of its database; an alias without a partner is on its own."""
        return {alias.name: self._partners.get(alias.name, alias.name) for alias in self._aliases}

    @cached_property
    def _readers(self) -> Mapping[str, tuple[str, ...]]:
        readers: dict[str, tuple[str, ...]] = {}
        for name, primary in self._partners.items():
            readers[primary] = (*readers.get(primary, ()), name)
        return readers


def _is_historical(model: object) -> bool:
    """Return whether `model` is one of those that migrations are given.

    Django also asks for what is no model: the database cache describes its table by an object with some of the
    attributes of ``_meta``, but without the registry of apps.
    """
    return getattr(getattr(model, "_meta", None), "apps", apps) is not apps


def _is_in_transaction(alias: str) -> bool:
    connection = connections[alias]
    if connection.in_atomic_block or (connection.connection is not None and not connection.autocommit):
        return True
    forget_beginning(alias)
    return False


def _origin(hints: Mapping[str, Any]) -> str | None:
    """Return the alias that the hint's object was read through; None for what is no object of a database."""
    return getattr(getattr(hints.get("instance"), "_state", None), "db", None)
