"""Which addresses are used for what members advertise."""

from __future__ import annotations

from typing import Any

import pytest

from patroni_db.config import PatroniConfig
from patroni_db.network import AddressBook
from patroni_db.topology import Address, Member, Topology


def book(**settings: Any) -> AddressBook:
    return AddressBook.of(PatroniConfig(**{"urls": "http://pg1:8008", **settings}))


def member(host: str = "10.0.0.1", api_url: str | None = None) -> Member:
    return Member("n1", "leader", "running", Address(host, 5432), api_url)


def test_an_advertised_address_is_used_as_it_is() -> None:
    assert book().address_of(member()) == Address("10.0.0.1", 5432)


def test_another_port_on_every_host() -> None:
    assert book(port=6432).address_of(member()) == Address("10.0.0.1", 6432)


def test_a_mapped_address_wins_over_the_port() -> None:
    mapped = book(port=6432, address_map="10.0.0.1:5432=localhost:5433")
    assert mapped.address_of(member()) == Address("localhost", 5433)
    assert mapped.address_of(member("10.0.0.2")) == Address("10.0.0.2", 6432)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("10.0.0.1", True),
        ("10.1.0.1", False),
        ("fd00::1", True),
        ("PG1", True),
        ("pg2", False),
        ("db.example.com", True),
        ("example.com", False),
        ("evilexample.com", False),
    ],
)
def test_only_allowed_hosts_are_connected_to(host: str, allowed: bool) -> None:
    only = book(allowed_hosts="10.0.0.0/24,fd00::/8,pg1,*.example.com")
    assert (only.address_of(member(host)) is not None) is allowed
    api = f"http://[{host}]:8008" if ":" in host else f"http://{host}:8008"
    assert (only.api_url(member(api_url=api)) is not None) is allowed


def test_a_member_cannot_talk_credentials_out_of_tls() -> None:
    members = (member(api_url="http://10.0.0.1:8008"), member(api_url="https://10.0.0.2:8008"))
    assert book(urls="https://pg1:8008").api_urls(Topology(members)) == ("https://10.0.0.2:8008",)
    assert len(book().api_urls(Topology(members))) == 2


def test_apis_are_mapped_like_servers() -> None:
    mapped = book(address_map="10.0.0.1:8008=[::1]:18008")
    assert mapped.api_url(member(api_url="http://10.0.0.1:8008")) == "http://[::1]:18008"
