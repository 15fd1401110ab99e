"""Which addresses to use from here: what members advertise, mapped, re-ported and restricted as configured. Pure."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import TYPE_CHECKING, Self

from patroni_db.addresses import Address, ApiUrl, parse_hosts

if TYPE_CHECKING:
    from patroni_db.config import PatroniConfig
    from patroni_db.topology import Member, Topology

__all__ = ["AddressBook"]


@dataclasses.dataclass(frozen=True, slots=True)
class AddressBook:
    """Translates advertised addresses into those to connect to.

    :param port: replaces the advertised port (a PgBouncer beside every node)
    :param mapped: pairs of advertised and reachable address
    :param allowed_hosts: names, ``*.suffixes`` and networks that advertised hosts must be in; empty allows all
    :param https_only: whether a learned ``http://`` API is left out, so that no member can talk
        credentials out of TLS
    :param seeds: schemes and addresses of the APIs that are configured
    :param password_for_members: whether every learned API may have the password, whoever named it
    """

    port: int | None = None
    mapped: tuple[tuple[Address, Address], ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    https_only: bool = False
    seeds: frozenset[tuple[str, Address]] = frozenset()
    password_for_members: bool = False

    @classmethod
    def of(cls, config: PatroniConfig) -> Self:
        """Return the book that `config` describes."""
        https_only = all(url.startswith("https:") for url in config.urls)
        seeds = frozenset((url.scheme, url.address) for url in map(ApiUrl.parse, config.urls))
        for_members = config.password_for == "members"  # noqa: S105 - no password
        return cls(config.port, config.address_map, config.allowed_hosts, https_only, seeds, for_members)

    def address_of(self, member: Member) -> Address | None:
        """Return where to connect to `member`'s PostgreSQL; None when it advertises nothing, or nothing allowed.

        It is put together again from what was checked.
        """
        if member.address is None or not self.allows(member.address.host):
            return None
        try:
            advertised = Address.parse(member.address.host, member.address.port)
        except ValueError:  # its port is none
            return None
        reachable = self._mapped(advertised)
        if reachable is not None:
            return reachable
        return advertised if self.port is None else Address(advertised.host, self.port)

    def api_url(self, member: Member) -> str | None:
        """Return `member`'s REST endpoint as reachable from here; None when it has none that may be asked."""
        if member.api_url is None:
            return None
        try:
            url = ApiUrl.parse(member.api_url)
        except ValueError:
            return None
        if not self.allows(url.host) or (self.https_only and url.scheme != "https"):
            return None
        reachable = self._mapped(url.address)
        return str(url) if reachable is None else f"{url.scheme}://{reachable}"

    def api_urls(self, topology: Topology) -> tuple[str, ...]:
        """Return the REST endpoints of `topology`'s members that may be asked, as reachable from here."""
        urls = (self.api_url(member) for member in topology.members)
        return tuple(url for url in urls if url)

    def allows(self, host: str) -> bool:
        """Return whether an advertised `host` may be connected to, or each of several with commas between them.

        Names are compared as text, not resolved.
        """
        try:
            hosts = parse_hosts(host)
        except ValueError:
            return False
        return not self.allowed_hosts or all(map(self._is_allowed, hosts))

    def _is_allowed(self, host: str) -> bool:
        name = host.removesuffix(".")
        return any(_matches(name, allowed) for allowed in self.allowed_hosts)

    def may_have_password(self, url: str) -> bool:
        """Return whether the API at `url` may be sent the password of the REST API.

        Those that the user named may: seeds, allowed hosts and reachable addresses of the map. What a member says of
        itself proves nothing.
        """
        api = ApiUrl.parse(url)
        if self.password_for_members or (api.scheme, api.address) in self.seeds:
            return True
        is_mapped = any(reachable == api.address for _, reachable in self.mapped)
        return is_mapped or (bool(self.allowed_hosts) and self.allows(api.host))

    def admitted(self, topology: Topology) -> Topology:
        """Return `topology` without the addresses and APIs that must not be connected to: nobody can forget to ask.

        A member without its address is one that cannot be reached; its ``refused`` says why.
        """
        if not self.allowed_hosts:
            return topology
        return dataclasses.replace(topology, members=tuple(map(self._admitted, topology.members)))

    def _admitted(self, member: Member) -> Member:
        address, api_url, refused = member.address, member.api_url, list(member.refused)
        if address is not None and not self.allows(address.host):
            refused.append(f"the address {address}: patroni_allowed_hosts does not name it")
            address = None
        if api_url is not None and not self.allows(ApiUrl.parse(api_url).host):
            refused.append(f"the REST API {api_url}: patroni_allowed_hosts does not name it")
            api_url = None
        return dataclasses.replace(member, address=address, api_url=api_url, refused=tuple(refused))

    def _mapped(self, advertised: Address) -> Address | None:
        return next((reachable for source, reachable in self.mapped if source == advertised), None)


def _matches(host: str, allowed: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return host == allowed or (allowed.startswith("*.") and host.endswith(allowed[1:]))
    try:
        return address in ipaddress.ip_network(allowed)
    except ValueError:  # the allowed is a name
        return False
