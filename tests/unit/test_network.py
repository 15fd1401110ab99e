"""Which addresses are used for what members advertise."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

from patroni_db.config import PatroniConfig
from patroni_db.network import AddressBook
from patroni_db.topology import Address, Member, Topology, parse_cluster


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


# -- What a cluster may not talk an application into -----------------------------------------------------------

GUARDED = "*.example.com,10.0.0.0/8,fd00::/8"
FOREIGN_HOSTS = [
    "evil.test,x.example.com",
    "x.example.com,evil.test",
    "127.0.0.1,x.example.com",
    "10.0.0.1,evil.test",
    "x.example.com,",
    ",x.example.com",
    "evil.test\\.example.com",
    "evil.test%2f.example.com",
    "evil.test;.example.com",
    "evil.test&.example.com",
    "evil.test\x00.example.com",
    "evil.test\n.example.com",
    "evil.test:5432.example.com",
    "evil.test#.example.com",
    "evil.test?.example.com",
    "/run/postgresql",
    "/run/.example.com",
    "::1%.example.com",
    "fd00::1%eth0",
    "[evil.test].example.com",
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "0177.0.0.1",
    "012.0.0.1",  # octal 10 for the C library
    "10.1",
    "10.0.0.256",
    "0xa.0.0.1",
    "10.0.0.1\u3002evil.test",
    "\uff11\uff10.0.0.1",
    "evil.test\uff0e.example.com",
    "x.\uff45xample.com",
    "x.example.com\u2024",
    "b\u00fccher.example.com",
    "-h.example.com",
    "pg-..example.com",
    f"{'a' * 64}.example.com",
    f"{'a.' * 130}example.com",
    "example.com",
    "evilexample.com",
    "x.example.com.evil.test",
    ".example.com",
    "*.example.com",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "",
    "localhost",
]


def row(**changes: object) -> dict[str, object]:
    return {"name": "n1", "role": "leader", "state": "running", "host": "x.example.com", "port": 5432, **changes}


def parsed(**changes: object) -> Member:
    return parse_cluster(json.dumps({"members": [row(**changes)]})).members[0]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_host_that_is_not_allowed_is_never_connected_to(host: str) -> None:
    guarded = book(allowed_hosts=GUARDED)
    assert not guarded.allows(host)
    assert guarded.address_of(parsed(host=host)) is None
    assert guarded.address_of(member(host)) is None, "whoever made the member"
    for url in (f"http://{host}:8008/patroni", f"http://{host}/patroni", f"http://{host}", f"http://[{host}]:8008"):
        assert guarded.api_url(parsed(api_url=url)) is None
        assert guarded.api_url(Member("n1", "leader", "running", None, url)) is None


@pytest.mark.parametrize("host", ["@abstract", "@abstract.example.com", "evil.test@x.example.com"])
def test_an_abstract_socket_is_no_host(host: str) -> None:
    assert book().address_of(parsed(host=host)) is None


@pytest.mark.parametrize(
    ("host", "used"),
    [
        ("X.Example.COM", "x.example.com"),
        ("x.example.com.", "x.example.com."),
        ("db_1.eu.example.com", "db_1.eu.example.com"),
        ("xn--bcher-kva.example.com", "xn--bcher-kva.example.com"),
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("FD00:0:0::1", "fd00::1"),
        ("[fd00::1]", "fd00::1"),
        ("10.0.0.1,x.example.com", "10.0.0.1,x.example.com"),
        ("10.0.0.1, FD00::1", "10.0.0.1,fd00::1"),
    ],
)
def test_what_is_connected_to_is_what_was_checked(host: str, used: str) -> None:
    guarded = book(allowed_hosts=GUARDED)
    assert guarded.address_of(parsed(host=host)) == Address(used, 5432)
    assert book().address_of(parsed(host=host)) == Address(used, 5432)
    assert book().address_of(member(host)) == Address(used, 5432)


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("HTTP://X.Example.com:8008/patroni", "http://x.example.com:8008"),
        ("http://[::ffff:a00:1]:8008/patroni", "http://10.0.0.1:8008"),
        ("https://user:pw@x.example.com/patroni", "https://x.example.com"),
        ("https://evil.test@x.example.com/", "https://x.example.com"),
    ],
)
def test_an_api_is_asked_where_it_was_checked(url: str, used: str) -> None:
    assert book(allowed_hosts=GUARDED).api_url(parsed(api_url=url)) == used


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.test\\x.example.com:8008/patroni",
        "http://evil.test:81\\x.example.com/patroni",
        "http://127.0.0.1:9999\\.example.com/patroni",
        "http://evil.test\\@x.example.com/",
        "http://evil.test#@x.example.com/",
        "http://evil.test?@x.example.com/",
        "http:\\\\x.example.com",
        "http:/x.example.com",
        "http:x.example.com",
        "http:///x.example.com",
        "//x.example.com",
        "javascript://x.example.com",
        "file://x.example.com/patroni",
        "http+unix://x.example.com",
        " http://x.example.com",
        "http://x.example.com\n",
        "ht\ntp://x.example.com",
        "http://x.exa\tmple.com",
        "http://x.example.com:0",
        "http://x.example.com:65536",
        "http://x.example.com:99999999999",
        "http://x.example.com:-1",
        "http://x.example.com:+80",
        "http://x.example.com: 80",
        "http://x.example.com:8_0",
        "http://x.example.com:\u0668\u0660",
        "http://x.example.com:80:81",
        "http://x@y@evil.test:80",
        "http://10.0.0.1,x.example.com:8008",
    ],
)
def test_a_url_that_parsers_might_read_differently_is_not_used(url: str) -> None:
    assert book(allowed_hosts=GUARDED).api_url(parsed(api_url=url)) is None
    assert book().api_url(parsed(api_url=url)) is None


@pytest.mark.parametrize("port", [0, -1, 65536, True, "5432", "\u0665", 5432.5, None, [5432]])
def test_a_port_that_is_none_makes_no_address(port: object) -> None:
    assert parsed(port=port).address is None


_PIECES = st.lists(
    st.sampled_from(
        [
            *("evil.test", "x.example.com", ".example.com", "10.0.0.1", "::1", "127.0.0.1", "0x7f", "http://"),
            *"\\/@#?&;,:%[]. \t\n\x00-_*\u3002\uff0e\u0661",
        ]
    ),
    max_size=8,
).map("".join)


@given(_PIECES)
def test_drivers_and_http_clients_read_what_was_checked(text: str) -> None:
    guarded = book(allowed_hosts=GUARDED)
    for candidate in (text, f"http://{text}", f"http://{text}.example.com:8008/patroni"):
        url = guarded.api_url(parsed(api_url=candidate))
        if url is not None:
            host = urlsplit(url).hostname
            assert host is not None
            assert parse_url(url).host == (f"[{host}]" if ":" in host else host)
            assert guarded.allows(host)
    address = guarded.address_of(parsed(host=text))
    for host in address.hosts if address is not None else ():  # as libpq splits it
        assert guarded.allows(host)
        assert set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-:")


def test_a_refused_member_is_one_without_address() -> None:
    guarded = book(allowed_hosts=GUARDED)
    topology = guarded.admitted(
        Topology(
            (
                parsed(host="evil.test", api_url="http://evil.test:8008/patroni"),
                parsed(name="n2", role="replica", host="10.0.0.2", api_url="http://10.0.0.2:8008/patroni"),
                parsed(name="n3", role="replica", host="a\nb", api_url="http://a\x1bb"),
            )
        )
    )
    evil, good, broken = topology.members
    assert (evil.address, evil.api_url, topology.primary) == (None, None, None)
    assert evil.refused == (
        "the address evil.test:5432: patroni_allowed_hosts does not name it",
        "the REST API http://evil.test:8008: patroni_allowed_hosts does not name it",
    )
    assert (good.host, good.api_url, good.refused) == ("10.0.0.2", "http://10.0.0.2:8008", ())
    assert (broken.address, broken.api_url) == (None, None)
    assert broken.refused == (
        r"the address 'a\nb', port 5432: neither a host name nor an address",
        r"the REST API 'http://a\x1bb': neither a host name nor an address",
    )


def test_single_hosts_can_be_allowed_in_any_spelling() -> None:
    guarded = book(allowed_hosts=["PG1.", "[FD00::1]", "::ffff:10.0.0.5"])
    for host in ("pg1", "PG1.", "fd00:0::1", "10.0.0.5"):
        assert guarded.address_of(parsed(host=host)) is not None
