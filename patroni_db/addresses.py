"""Hosts, addresses and URLs of REST APIs: text in, one checked spelling out. Pure.

The text comes from settings and from the network, and goes to libpq, asyncpg and HTTP clients, each of which has a
parser of its own: a comma, a slash, a backslash or an ``@`` means something else to each. So nothing is handed on as it
came: what was checked is put together again from its parts, of characters that mean the same to all of them.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from typing import Final, Self

__all__ = ["Address", "ApiUrl", "parse_host", "parse_host_pattern", "parse_hosts"]

_MAX_PORT: Final = 65535
_MAX_NAME: Final = 253
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}\.?", re.ASCII)
# A name that ends in a number is an IPv4 address to the C library, also in octal, as one integer, or with parts left
# out (127.1, 0x7f.1): only the spelling with four decimal numbers is taken.
_NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?:[^/?#@\\]*@)?(?P<host>\[[^\]/?#@\\]*\]|[^:/?#@\\\[\]]*)(?::(?P<port>[0-9]{0,5}))?"
    r"(?P<path>/[!-~]*)?",
    re.ASCII | re.IGNORECASE,
)
_PORTS: Final = {"http": 80, "https": 443}


def parse_host(text: str) -> str:
    """Return the one spelling of a host: a name in lower case, or a numeric address as :mod:`ipaddress` writes it.

    An IPv6 address may have brackets, and comes out without. One that stands for an IPv4 address becomes that.

    :raises ValueError: it is neither; the message does not repeat the text
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not bare.isascii() or len(bare) > _MAX_NAME:
        raise ValueError("no host name (those with other letters are written as xn--...)")
    if ":" in bare:
        return _parse_ipv6(bare)
    name = bare.lower()
    if bare is not text or not _NAME.fullmatch(name):
        raise ValueError("neither a host name nor an address")
    if _NUMERIC.fullmatch(name.removesuffix(".").rpartition(".")[2]) is None:
        return name
    try:
        return str(ipaddress.IPv4Address(name))
    except ValueError:
        raise ValueError("neither a host name nor an address") from None


def parse_hosts(text: str) -> tuple[str, ...]:
    """Return the one spelling of each host of a list with commas, as libpq takes it: nearly always there is one.

    :raises ValueError: one of them is no host; the message does not repeat the text
    """
    return tuple(parse_host(host.strip()) for host in text.split(","))


def parse_host_pattern(text: str) -> str:
    """Return the one spelling of a host, of ``*.suffix``, or of a network such as ``10.0.0.0/24``.

    :raises ValueError: it is none of them; the message does not repeat the text
    """
    if text.startswith("*."):
        return f"*.{parse_host(text[2:]).removesuffix('.')}"
    if "/" in text:
        try:
            return str(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise ValueError("not a network such as 10.0.0.0/24") from None
    return parse_host(text).removesuffix(".")


def _parse_ipv6(text: str) -> str:
    if "%" in text:
        raise ValueError("an address with a zone, which has a meaning on one machine only")
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise ValueError("neither a host name nor an address") from None
    return str(address.ipv4_mapped or address)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a server listens. One that came as text is made by :meth:`parse`.

    :param host: a name or an address, an IPv6 address without brackets; or several of one server, with commas, as
        libpq takes them
    :param port: a TCP port
    """

    host: str
    port: int

    @classmethod
    def parse(cls, host: str, port: int) -> Self:
        """Return the address whose host is spelled as :func:`parse_host` knows, so that drivers can be given it.

        :raises ValueError: it is no such host or port; the message does not repeat the text
        """
        hosts = parse_hosts(host)
        if not 0 < port <= _MAX_PORT:
            raise ValueError("not a port")
        return cls(",".join(hosts), port)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts, each by itself: nearly always one."""
        return tuple(self.host.split(","))

    def __str__(self) -> str:
        return f"{','.join(map(_bracketed, self.hosts))}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class ApiUrl:
    """The URL of a REST API, in parts.

    :param scheme: ``http`` or ``https``
    :param host: as :func:`parse_host` spells it
    :param port: None where the URL names none
    :param path: what follows, for an API behind a proxy; empty, or with a slash at its start and none at its end
    """

    scheme: str
    host: str
    port: int | None = None
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the parts of a URL. Userinfo is dropped.

        :raises ValueError: it is no such URL; the message does not repeat the text
        """
        match = _URL.fullmatch(text)
        if match is None:
            raise ValueError
        port = int(match["port"]) if match["port"] else None
        if port is not None and not 0 < port <= _MAX_PORT:
            raise ValueError("its port is out of range")
        path = match["path"] or ""
        if any(character in path for character in "\\?#"):
            raise ValueError("has a query or fragment: give scheme, host and port only")
        return cls(match["scheme"].lower(), parse_host(match["host"]), port, path.rstrip("/"))

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(self.host, self.port or _PORTS[self.scheme])

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{_bracketed(self.host)}{port}{self.path}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
