"""Whether a read that the router has routed goes to a replica: decided when it is about to be executed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_backend.options import is_test_database
from django_backend.routing import Route, current_rules
from django_backend.standing import shows_what_is_known
from django_backend.work import Consistency, current_work
from patroni_db.causal_context import causal_scope

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["goes_to_replica"]


def goes_to_replica(primary: BaseDatabaseWrapper, reader: str) -> bool:
    """Return whether the next read goes to a replica, and not to the primary.

    Where a causal token is known, the replica may be asked whether it shows what that stands for.

    :param primary: the wrapper of the primary's alias in this thread
    :param reader: the replicas' alias
    """
    alias = primary.alias
    rules = current_rules()
    route = None if rules is None else rules.route(alias)
    if route is Route.PRIMARY or is_test_database(primary.settings_dict):
        return False
    if route is Route.REPLICA:
        return True
    if primary.in_atomic_block or (primary.connection is not None and _keeps_reads(primary)):
        return False
    work = current_work()
    if work is not None and work.reads_primary(alias):
        return False
    scope = causal_scope()
    if scope is None or not scope.tokens or (work is not None and work.level is Consistency.EVENTUAL):
        return True
    return shows_what_is_known(scope, reader, alias)


def _keeps_reads(primary: BaseDatabaseWrapper) -> bool:
    """Return whether reads belong on the open connection; an engine of others does not tell."""
    return not primary.autocommit or getattr(primary, "keeps_reads", False)
