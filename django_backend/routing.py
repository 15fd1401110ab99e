"""``use_primary()``, ``use_replica()`` and ``prevent_writes()``: what a piece of code says of its own database access.

Each is a context manager and a decorator, of functions, coroutine functions and both kinds of generator functions::

    with use_primary():
        balance = Account.objects.get(pk=pk).balance

    @use_replica()
    def report(request): ...

They hold in the present context (:mod:`contextvars`): across ``await``, ``sync_to_async`` and ``asyncio.to_thread``,
not in a thread that is started plainly. Of several the innermost counts.
"""

from __future__ import annotations

import dataclasses
import enum
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django_backend.around import around

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Route", "RoutingRule", "Rules", "current_rules", "prevent_writes", "use_primary", "use_replica"]

F = TypeVar("F", bound="Callable[..., Any]")


class Route(enum.Enum):
    """Where reads go, whatever else would decide it."""

    PRIMARY = "primary"
    REPLICA = "replica"


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """What is in force.

    :param routes: by the primary's alias; None stands for all others
    :param guarded: the primaries' aliases that must not be written to; None stands for all
    :param outer: what was in force before
    """

    routes: Mapping[str | None, Route] = dataclasses.field(default_factory=dict, hash=False)
    guarded: frozenset[str | None] = frozenset()
    outer: Rules | None = None

    def route(self, primary: str) -> Route | None:
        """Return where reads of the cluster with this primary's alias go; None if nobody said."""
        return self.routes.get(primary) or self.routes.get(None)

    def guards(self, primary: str) -> bool:
        """Return whether writes to this primary's alias are prevented."""
        return None in self.guarded or primary in self.guarded

    def with_route(self, using: str | None, route: Route) -> Rules:
        """Return these rules and one more."""
        routes: dict[str | None, Route] = {} if using is None else dict(self.routes)
        routes[using] = route
        return dataclasses.replace(self, routes=routes, outer=self)

    def with_guard(self, using: str | None) -> Rules:
        """Return these rules with no writes to `using`."""
        return dataclasses.replace(self, guarded=self.guarded | {using}, outer=self)


_rules: ContextVar[Rules | None] = ContextVar("django_backend_rules", default=None)


# Returns the rules of this context; None when there are none. Asked for every query: a frame more would be felt.
current_rules: Final[Callable[[], Rules | None]] = _rules.get


class RoutingRule:
    """A rule, in force within. It holds no state, so one may be entered many times, by many threads.

    :param change: makes the rules from those that were in force
    """

    def __init__(self, change: Callable[[Rules], Rules]) -> None:
        self._change = change

    def __enter__(self) -> None:
        _rules.set(self._change(_rules.get() or Rules()))

    def __exit__(self, *_exc_info: object) -> None:
        rules = _rules.get()
        outer = rules.outer if rules is not None else None
        # What was in force outside of all is nothing: the fast way for whoever asks.
        _rules.set(outer if outer is not None and (outer.routes or outer.guarded) else None)

    def __call__(self, function: F) -> F:
        """Return `function` with this rule in force whenever it runs."""
        return around(function, lambda _kwargs: lambda: self)


def use_primary(using: str | None = None) -> RoutingRule:
    """Send reads to the primary.

    :param using: the primary's alias; by default all of them
    """
    return RoutingRule(lambda rules: rules.with_route(using, Route.PRIMARY))


def use_replica(using: str | None = None) -> RoutingRule:
    """Send reads to replicas, also inside ``atomic`` and after a write: what was just written may not be there yet.

    :param using: the primary's alias; by default all of them
    """
    return RoutingRule(lambda rules: rules.with_route(using, Route.REPLICA))


def prevent_writes(using: str | None = None) -> RoutingRule:
    """Refuse statements that write, with :class:`~django_backend.errors.WriteRefusedError`, before they are sent.

    :param using: the primary's alias; by default all of them
    """
    return RoutingRule(lambda rules: rules.with_guard(using))
