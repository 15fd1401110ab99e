"""Reads to the replicas, writes to the primary."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections, router

from django_backend.aliases import following
from django_backend.pairing import pair
from django_backend.read_rules import goes_to_replica
from django_backend.routed_alias import RoutedAlias
from django_backend.work import current_work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from django.db.models import Model

    from django_backend.pairing import Alias

__all__ = ["PrimaryReplicaRouter", "alias_for_reads", "tables_of_replicas"]


class PrimaryReplicaRouter:
    """Names the primary's alias of a cluster, and notes on it which alias reads of its replicas.

    Reads that Django's ORM executes then go to a replica. They go to the primary

    - within :func:`~django_backend.routing.use_primary`,
    - in migrations, also in those that are not atomic,
    - inside ``atomic``: a transaction must see its own writes, and what ``ForeignKey.validate`` and the like read there
      must be what is true now,
    - after a write of the same request or task, behind
      :class:`~django_backend.causal_middleware.CausalMiddleware` or within :func:`~django_backend.causal.consistency`,
    - while the replica does not show what a causal token stands for,
    - in tests, whose database is on the primary alone.

    The first alias in ``DATABASES`` that reads from replicas of a primary gets its reads; further ones (another lag,
    another zone) are for ``using()``. Aliases with other engines are left to other routers and to Django.
    """

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        """Return the primary's alias, by which one query may be read from a replica.

        Whether it is, is decided when it is executed (:mod:`django_backend.read_rules`).
        """
        primary = self.primary_for(model, **hints)
        if primary is None or _is_historical(model):
            return primary
        reader = self.reader_for(primary, model, **hints)
        return primary if reader == primary else RoutedAlias(primary, reader)

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
        """Forbid migrations through aliases that read.

        This router has no say while a setting is wrong. Django's checks of models ask it before ours have named that
        setting, and each connection names it too.
        """
        try:
            partners = self._partners
        except ImproperlyConfigured:
            return None
        return False if db in partners and not _has_tables.get() else None

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


_has_tables: ContextVar[bool] = ContextVar("django_backend_has_tables", default=False)


@contextlib.contextmanager
def tables_of_replicas() -> Iterator[None]:
    """Let the router say of aliases that read that they have their primary's tables: for commands that only read."""
    reset = _has_tables.set(True)
    try:
        yield
    finally:
        _has_tables.reset(reset)


def alias_for_reads(model: type[Model], **hints: Any) -> str:
    """Return the alias for raw SQL that reads: that of the replicas, or the primary's where a replica will not do.

    ::

        with connections[alias_for_reads(Order)].cursor() as cursor: ...
        Order.objects.using(alias_for_reads(Order)).raw(...)

    :param model: one whose table is read
    :param hints: as routers are given them, ``instance`` for example
    """
    alias: str = router.db_for_read(model, **hints)
    if isinstance(alias, RoutedAlias):
        reader = alias.take_reader()
        return reader if reader and goes_to_replica(connections[alias], reader) else str(alias)
    return alias


def _is_historical(model: object) -> bool:
    """Return whether `model` is one of those that migrations are given.

    Django also asks for what is no model: the database cache describes its table by an object with some of the
    attributes of ``_meta``, but without the registry of apps.
    """
    try:
        return model._meta.apps is not apps  # type: ignore[attr-defined]  # noqa: SLF001 - public
    except AttributeError:
        return False


def _origin(hints: Mapping[str, Any]) -> str | None:
    """Return the alias that the hint's object was read through; None for what is no object of a database."""
    return getattr(getattr(hints.get("instance"), "_state", None), "db", None)
