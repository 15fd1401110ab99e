"""Patroni's REST API over HTTP: one call, one answer or one :class:`~patroni_db.errors.DiscoveryError`.

The only module that uses requests (with :mod:`~patroni_db.deadline`, its transport). It keeps nothing from one request
to the next, no connection and no cookie, and looks at no environment variable: a proxy or a ``.netrc`` meant for the
internet has no business between an application and its database cluster.
"""

from __future__ import annotations

import dataclasses
import json
import ssl
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final, Self

import requests
import urllib3
from requests.auth import HTTPBasicAuth
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from patroni_db.deadline import DeadlineAdapter
from patroni_db.errors import DiscoveryError
from patroni_db.escaping import plain_cause
from patroni_db.lineage import LineageError, parse_history
from patroni_db.network import AddressBook
from patroni_db.sockets import NoHostError
from patroni_db.tls import tls_of
from patroni_db.topology import PayloadError, Topology, parse_cluster, timeline_or_none

if TYPE_CHECKING:
    from collections.abc import Mapping

    from patroni_db.config import PatroniConfig

__all__ = ["NodeStatus", "PatroniClient"]

# A row of /cluster is below 1 kB; even hundreds of members stay far under this. More is not Patroni.
_MAX_BODY: Final = 4 << 20
_CHUNK: Final = 64 << 10
_PRIMARY_ROLES: Final = frozenset({"primary", "master"})
_OK: Final = 200
_SERVICE_UNAVAILABLE: Final = 503
_SERVER_ERROR: Final = 500
_UNAUTHORIZED: Final = 401
_WITHHELD: Final = (
    ": it wants a password, and that goes only to patroni_urls and patroni_allowed_hosts (see patroni_password_for)"
)
_REDIRECTS: Final = range(300, 400)


@dataclasses.dataclass(frozen=True, slots=True)
class NodeStatus:
    """What one node's own API says about itself (``GET /patroni``).

    :param role: ``primary`` (``master`` before 4.0), ``replica``, ``demoted``, ...
    :param state: PostgreSQL's state: ``running``, ``starting``, ``stopped``, ...
    :param timeline: its timeline, when it says so
    :param system_identifier: the cluster's identity, chosen by initdb; None while PostgreSQL is not up
    """

    role: str
    state: str
    timeline: int | None
    system_identifier: str | None

    @property
    def is_primary(self) -> bool:
        """Whether its PostgreSQL runs as primary; not so while a promotion is only about to happen."""
        return self.role in _PRIMARY_ROLES and self.state == "running"


class PatroniClient:
    """A client for all endpoints of one cluster. Its methods may be called from any thread.

    :param config: timeout, TLS and authentication settings
    """

    def __init__(self, config: PatroniConfig) -> None:
        self._timeout = config.timeout
        self._book = AddressBook.of(config)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # Without a setting the authorities are those that requests has: certifi's.
        tls = tls_of(config.ca or DEFAULT_CA_BUNDLE_PATH, config.cert, config.key)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, DeadlineAdapter(tls))
        self._session.headers["Accept"] = "application/json"
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.headers["Connection"] = "close"
        # As bytes, in UTF-8: requests would write text in Latin-1, and Patroni expects what its own file has.
        self._login: HTTPBasicAuth | None = None
        if config.user is not None:
            self._login = HTTPBasicAuth(config.user.encode(), (config.password or "").encode())

    def cluster(self, base_url: str) -> Topology:
        """Return the cluster as the node at `base_url` sees it (``GET /cluster``).

        What it names and must not be connected to is left out.

        :raises DiscoveryError: the answer is missing, late, or not Patroni's
        """
        url = f"{base_url}/cluster"
        _, body = self._get(url, accept=(_OK,))
        try:
            return self._book.admitted(parse_cluster(body))
        except PayloadError as exc:
            raise DiscoveryError(url, str(exc)) from exc

    def node(self, base_url: str) -> NodeStatus:
        """Return what the node at `base_url` says about itself (``GET /patroni``).

        :raises DiscoveryError: the answer is missing, late, or not Patroni's
        """
        url = f"{base_url}/patroni"
        # 503 is a normal answer here: it carries the same body while PostgreSQL is not running.
        _, body = self._get(url, accept=(_OK, _SERVICE_UNAVAILABLE))
        try:
            payload = json.loads(body)
        except (ValueError, RecursionError) as exc:
            raise DiscoveryError(url, f"the body is not JSON ({exc})") from exc
        if not isinstance(payload, dict) or not isinstance(payload.get("state"), str):
            raise DiscoveryError(url, "the body is JSON but not Patroni's: it has no state")
        return NodeStatus(
            role=str(payload.get("role", "")),
            state=payload["state"],
            timeline=timeline_or_none(payload.get("timeline")),
            system_identifier=_text_or_none(payload.get("database_system_identifier")),
        )

    def history(self, base_url: str) -> Mapping[int, int]:
        """Return where each earlier timeline was left, in bytes, as the node at `base_url` knows it (``GET /history``).

        :raises DiscoveryError: the answer is missing, late, or not Patroni's
        """
        url = f"{base_url}/history"
        _, body = self._get(url, accept=(_OK,))
        try:
            return parse_history(body)
        except LineageError as exc:
            raise DiscoveryError(url, str(exc)) from exc

    def close(self) -> None:
        """Forget the pools, in which no connection is kept. The client can still be used."""
        self._session.close()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it."""
        self.close()

    def _get(self, url: str, accept: tuple[int, ...]) -> tuple[int, bytes]:
        try:
            login = self._login if self._login and self._book.may_have_password(url) else None
            with self._session.get(
                url, auth=login, timeout=self._timeout, allow_redirects=False, stream=True
            ) as response:
                status = response.status_code
                if status in _REDIRECTS:
                    location = response.headers.get("Location", "nowhere")
                    raise DiscoveryError(url, f"redirects to {location}: give the URL of Patroni itself")
                if status not in accept:
                    hint = _WITHHELD if status == _UNAUTHORIZED and self._login and not login else ""
                    reason = f"answered with HTTP status {status}{hint}"
                    raise DiscoveryError(url, reason, transient=status >= _SERVER_ERROR)
                return status, self._read(response, url)
        except requests.RequestException as exc:
            raise _failure(url, exc, self._timeout) from plain_cause(exc)
        except ssl.SSLError as exc:  # a file that holds no certificate
            raise DiscoveryError(url, f"TLS failed: {exc}", transient=False) from exc
        except urllib3.exceptions.TimeoutError as exc:
            raise DiscoveryError(url, f"no complete answer within {self._timeout:g} s", transient=True) from exc
        except (urllib3.exceptions.HTTPError, ValueError, OSError) as exc:
            # Below requests: the body broke off; a host is no valid name; a key file cannot be read.
            mends = not isinstance(exc, ValueError)  # a host's name stays wrong
            raise DiscoveryError(url, f"{type(exc).__name__}: {exc}", transient=mends) from plain_cause(exc)

    def _read(self, response: requests.Response, url: str) -> bytes:
        body = bytearray()
        while chunk := response.raw.read(_CHUNK, decode_content=False):
            body += chunk
            if len(body) > _MAX_BODY:
                raise DiscoveryError(url, f"the body is larger than {_MAX_BODY} bytes")
        return bytes(body)


def _failure(url: str, exc: requests.RequestException, timeout: float) -> DiscoveryError:
    if isinstance(exc, requests.exceptions.SSLError):
        return DiscoveryError(url, f"TLS failed: {_innermost(exc)}", transient=False)
    if isinstance(exc, requests.Timeout) or isinstance(_innermost(exc), TimeoutError):
        return DiscoveryError(url, f"no answer within {timeout:g} s", transient=True)
    if isinstance(exc, requests.ConnectionError):
        cause = _innermost(exc)
        if isinstance(cause.__cause__, OSError) and cause.__cause__.strerror:
            mends = not isinstance(cause.__cause__, NoHostError)
            return DiscoveryError(url, cause.__cause__.strerror, transient=mends)
        text = str(cause)
        return DiscoveryError(url, text if text.isprintable() else f"not HTTP: {text!a}", transient=True)
    return DiscoveryError(url, f"{type(exc).__name__}: {exc}", transient=False)


def _innermost(exc: BaseException) -> BaseException:
    """Return the error at the bottom of the layers of requests and urllib3, which only repeat it."""
    while True:
        inner = next((arg for arg in (*exc.args, getattr(exc, "reason", None)) if isinstance(arg, BaseException)), None)
        if inner is None or inner is exc:
            return exc
        exc = inner


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
