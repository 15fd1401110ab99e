"""What changed from one view of a cluster to the next, in words. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patroni_db.escaping import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patroni_db.cli.view import View
    from patroni_db.topology import Member

__all__ = ["changes"]


def changes(before: View, after: View) -> tuple[str, ...]:
    """Return what a person would say happened between two views; lag, which always moves, is left out."""
    return tuple(map(plain, (*_leader(before, after), *_members(before, after), *_mode(before, after))))


def _leader(before: View, after: View) -> Iterator[str]:
    old, new = before.topology.leader, after.topology.leader
    old_name, new_name = old and old.name, new and new.name
    if old_name != new_name:
        if new is None:
            yield f"{old_name} no longer leads, nobody does"
        elif old is None:
            yield f"{new_name} leads now"
        else:
            yield f"{new_name} leads now, {old_name} did before"
    elif old and new and old.role != new.role:
        yield f"{new.name} is {new.role.replace('_', ' ')} now"
    if before.topology.timeline != after.topology.timeline and after.topology.timeline is not None:
        yield f"timeline {after.topology.timeline} now"


def _members(before: View, after: View) -> Iterator[str]:
    for member in before.topology.members:
        if after.topology.member(member.name) is None:
            yield f"{member.name} is gone"
    for member in after.topology.members:
        known = before.topology.member(member.name)
        if known is None:
            yield f"{member.name} is new: {member.state or 'no state'}"
        else:
            yield from _member(known, member, before, after)


def _member(old: Member, new: Member, before: View, after: View) -> Iterator[str]:
    name = new.name
    if old.state != new.state:
        yield f"{name}: {old.state or 'no state'}, then {new.state or 'no state'}"
    doubted, doubt = before.doubt(old), after.doubt(new)
    if doubt and doubt != doubted:
        yield f"{name}: {doubt}"
    elif doubted and not doubt and old.state == new.state:
        yield f"{name} answers as expected again"
    if before.address_of(old) != after.address_of(new):
        yield f"{name}: address {after.address_of(new) or 'unknown'}"
    if dict(old.tags) != dict(new.tags):
        yield f"{name}: tags changed"


def _mode(before: View, after: View) -> Iterator[str]:
    if before.topology.paused != after.topology.paused:
        yield "paused (maintenance mode)" if after.topology.paused else "resumed (maintenance mode ended)"
    old, new = before.topology.scheduled_switchover, after.topology.scheduled_switchover
    if old != new:
        yield "a switchover is scheduled" if new else "no switchover is scheduled any more"
