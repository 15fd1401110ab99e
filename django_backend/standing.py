"""Whether a replica may be read by somebody who has a causal token: what the router asks before such a read."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from django.db import connections

from django_backend.reading import CausalMixin
from django_backend.work import current_work
from patroni_db.causal import Standing

if TYPE_CHECKING:
    from patroni_db.causal_context import CausalScope

__all__ = ["shows_what_is_known"]

logger = logging.getLogger("patroni_db.django")


def shows_what_is_known(scope: CausalScope, reader: str, primary: str) -> bool:
    """Return whether reads may go to a replica: it shows what is known to have been written.

    If it does not, all later reads of the request or task go to the primary.

    :param scope: what is known
    :param reader: the replicas' alias
    :param primary: the primary's alias, by which the token is known
    """
    token = scope.tokens.get(primary)
    if token is None:
        return True
    if _is_on_event_loop():
        # Nothing waits here. Queries are not made here either: the router is asked again in the thread that does.
        return False
    wrapper: object = connections[reader]
    if not isinstance(wrapper, CausalMixin):
        return False
    standing = wrapper.shows(token)
    if standing is Standing.LOST:
        logger.info("the causal token of %r is of a history that a failover ended, or of another cluster", primary)
        scope.forget(token, primary)
        return True
    work = current_work()
    if standing is Standing.BEHIND and work is not None:
        work.pin(primary)
    return standing is Standing.REACHED


def _is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
