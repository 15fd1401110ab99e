"""Which addresses to use from here: what members advertise, mapped, re-ported and restricted as configured. Pure."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from patroni_db.topology import Address

if TYPE_CHECKING:
    from patroni_db.config import PatroniConfig
    from patroni_db.topology import Member, Topology

__all__ = ["AddressBook"]

_HTTP_PORTS = {"http": 80, "https": 443}


@dataclasses.dataclass(frozen=True, slots=True)
class AddressBook:
    """Translates advertised addresses into those to connect to.

    :param port: replaces the advertised port (a PgBouncer beside every node)
    :param mapped: pairs of advertised and reachable address
    :param allowed_hosts: names, ``*.suffixes`` and networks that advertised hosts must be in; empty allows all
    :param https_only: whether a learned ``http://`` API is left out, so that no member can talk
        credentials out of TLS
    """

    port: int | None = None
    mapped: tuple[tuple[Address, Address], ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    https_only: bool = False

    @classmethod
    def of(cls, config: PatroniConfig) -> Self:
        """Return the book that `config` describes."""
        https_only = all(url.startswith("https:") for url in config.urls)
        return cls(config.port, config.address_map, config.allowed_hosts, https_only)

    def address_of(self, member: Member) -> Address | None:
        """Return where to connect to `member`'s PostgreSQL; None when it advertises nothing, or nothing allowed."""
        advertised = member.address
        if advertised is None or not self.allows(advertised.host):
            return None
        reachable = self._mapped(advertised)
        if reachable is not None:
            return reachable
        return advertised if self.port is None else Address(advertised.host, self.port)

    def api_url(self, member: Member) -> str | None:
        """Return `member`'s REST endpoint as reachable from here; None when it has none that may be asked."""
        if member.api_url is None:
            return None
        parts = urlsplit(member.api_url)
        if parts.hostname is None or not self.allows(parts.hostname) or (self.https_only and parts.scheme != "https"):
            return None
        reachable = self._mapped(Address(parts.hostname, parts.port or _HTTP_PORTS[parts.scheme]))
        return member.api_url if reachable is None else f"{parts.scheme}://{reachable}"

    def api_urls(self, topology: Topology) -> tuple[str, ...]:
        """Return the REST endpoints of `topology`'s members that may be asked, as reachable from here."""
        urls = (self.api_url(member) for member in topology.members)
        return tuple(url for url in urls if url)

    def allows(self, host: str) -> bool:
        """Return whether an advertised `host` may be connected to. Names are compared as text, not resolved."""
        if not self.allowed_hosts:
            return True
        host = host.lower()
        return any(_matches(host, allowed) for allowed in self.allowed_hosts)

    def _mapped(self, advertised: Address) -> Address | None:
        return next((reachable for source, reachable in self.mapped if source == advertised), None)


def _matches(host: str, allowed: str) -> bool:
    if host == allowed or (allowed.startswith("*.") and host.endswith(allowed[1:])):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(allowed, strict=False)
    except ValueError:  # one of the two is a name
        return False
