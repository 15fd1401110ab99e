"""What a one-shot command learned of the cluster: the answer of one API, and what each member says of itself.

``GET /cluster`` is read from Patroni's store, where a dead leader stays leader until its ``ttl`` (30 s by
default) has passed. So the members themselves are asked too (``GET /patroni``) unless the user declines.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from patroni_db.client import NodeStatus, PatroniClient
from patroni_db.errors import DiscoveryError
from patroni_db.network import AddressBook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from patroni_db.config import PatroniConfig
    from patroni_db.topology import Address, Member, Topology

__all__ = ["View", "ask_members", "doubt", "look"]

_NO_ANSWERS: Final[Mapping[str, NodeStatus | DiscoveryError]] = MappingProxyType({})
_UP: Final = frozenset({"running", "streaming", "in archive recovery"})
_PARALLEL: Final = 16


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """The cluster as seen at one moment. Immutable.

    :param topology: the answer to ``GET /cluster``
    :param source: the API that gave it
    :param book: which addresses to connect to from here
    :param answers: what each member's own API said, by name; empty when none was asked
    :param failures: the APIs asked before, in vain
    """

    topology: Topology
    source: str
    book: AddressBook
    answers: Mapping[str, NodeStatus | DiscoveryError] = dataclasses.field(default_factory=lambda: _NO_ANSWERS)
    failures: tuple[DiscoveryError, ...] = ()

    def address_of(self, member: Member) -> Address | None:
        """Return where to connect to `member` from here."""
        return self.book.address_of(member)

    def doubt(self, member: Member) -> str | None:
        """Return what speaks against what the cluster says of `member`, in a few words; None when nothing does."""
        return doubt(member, self.answers.get(member.name))

    @property
    def leads(self) -> bool:
        """Whether somebody leads, of a standby cluster too, and does not deny it."""
        leader = self.topology.leader
        return leader is not None and self.doubt(leader) is None


def doubt(member: Member, answer: NodeStatus | DiscoveryError | None) -> str | None:
    """Return why a member's row in ``/cluster`` is of no use, or `answer`, from its own API, contradicts it; or None.

    :param member: its row
    :param answer: what it said of itself; None when it was not asked
    """
    if member.address is None and member.refused:
        return "its address is refused"
    if answer is None:
        return None
    if isinstance(answer, DiscoveryError):
        return "no answer" if answer.transient else "unusable answer"
    if member.is_leader:
        return None if answer.is_primary else f"says {answer.role or 'no role'}, {answer.state}"
    if member.state in _UP and (answer.is_primary or answer.state != "running"):
        return f"says {answer.role or 'no role'}, {answer.state}"
    return None


def look(config: PatroniConfig, *, check: bool = True) -> View:
    """Ask the configured APIs in their order until one answers.

    :param config: whom to ask, and how
    :param check: ask each member about itself too, all at once
    :raises DiscoveryError: none gave a usable answer
    """
    failures: list[DiscoveryError] = []
    with PatroniClient(config) as client:
        for url in config.urls:
            try:
                topology = _of_scope(config, url, client.cluster(url))
            except DiscoveryError as exc:
                failures.append(exc)
                continue
            book = AddressBook.of(config)
            answers = ask_members(config, book, topology) if check else _NO_ANSWERS
            return View(topology, url, book, answers, tuple(failures))
    raise DiscoveryError.combined(failures)


def ask_members(
    config: PatroniConfig, book: AddressBook, topology: Topology
) -> Mapping[str, NodeStatus | DiscoveryError]:
    """Return what the API of each member that has one says about itself, or why it said nothing usable."""
    urls = {m.name: url for m in topology.members if (url := book.api_url(m))}
    if not urls:
        return _NO_ANSWERS

    client = PatroniClient(config)

    def ask(url: str) -> NodeStatus | DiscoveryError:
        try:
            return client.node(url)
        except DiscoveryError as exc:
            return exc

    try:
        with ThreadPoolExecutor(min(len(urls), _PARALLEL), thread_name_prefix="patroni-db ask") as pool:
            answers = list(pool.map(ask, urls.values()))
    except RuntimeError:  # no thread can be started
        answers = list(map(ask, urls.values()))
    return MappingProxyType(dict(zip(urls, answers, strict=True)))


def _of_scope(config: PatroniConfig, url: str, topology: Topology) -> Topology:
    if config.scope and topology.scope and topology.scope != config.scope:
        raise DiscoveryError(url, f"is an API of cluster {topology.scope!r}, not of {config.scope!r}")
    return topology
