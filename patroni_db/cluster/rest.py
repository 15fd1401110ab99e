"""What a local cluster says to Patroni's REST API and to etcd's JSON gateway.

Not the library's own client: this one must see and do what applications never do, and its users test that client.
"""

from __future__ import annotations

import base64
import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

__all__ = ["Etcd", "Login", "get_json", "request"]

_HEALTH_TIMEOUT = 2.0
_KEY_TIMEOUT = 3.0


@dataclass(frozen=True, slots=True)
class Login:
    """Who may change things through Patroni's REST API.

    :param user: the name
    :param password: the password
    """

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.user!r}, ...)"

    @property
    def header(self) -> str:
        """The value of the header ``Authorization``."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def request(
    method: str,
    endpoint: tuple[str, int],
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    timeout: float = 5.0,
    login: Login | None = None,
    context: ssl.SSLContext | None = None,
) -> tuple[int, str]:
    """Make one HTTP request, past any proxy.

    :param endpoint: host and port
    :param timeout: seconds for connecting, and again for each wait for data
    :param login: of a request that changes something
    :param context: for TLS; without it the request is plain HTTP
    :returns: status and body
    :raises OSError: when there is no answer, ``TimeoutError`` when it was too late
    """
    connection = (
        http.client.HTTPConnection(*endpoint, timeout=timeout)
        if context is None
        else http.client.HTTPSConnection(*endpoint, timeout=timeout, context=context)
    )
    headers = {"Content-Type": "application/json"}
    if login is not None:
        headers["Authorization"] = login.header
    try:
        payload = None if body is None else json.dumps(body).encode()
        connection.request(method, path, payload, headers)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except http.client.HTTPException as error:
        raise ConnectionError(f"{endpoint[0]}:{endpoint[1]}: {error!r}") from error
    finally:
        connection.close()


def get_json(
    endpoint: tuple[str, int], path: str, *, timeout: float = 5.0, context: ssl.SSLContext | None = None
) -> dict[str, Any] | None:
    """Return the JSON object of an answer with any status, or None when there was no such answer."""
    try:
        _, text = request("GET", endpoint, path, timeout=timeout, context=context)
        value = json.loads(text)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Etcd:
    """A local cluster's etcd, and the right to use it.

    :param endpoint: host and port of its client API
    :param context: trusts its certificate and holds ours
    """

    endpoint: tuple[str, int]
    context: ssl.SSLContext

    @property
    def is_healthy(self) -> bool:
        """Whether etcd says so of itself."""
        answer = get_json(self.endpoint, "/health", timeout=_HEALTH_TIMEOUT, context=self.context) or {}
        return str(answer.get("health")) == "true"

    def read_key(self, name: str) -> str | None:
        """Return the value of a key, None when there is none.

        :raises OSError: when etcd does not answer
        :raises ClusterError: when its answer is an error
        """
        rows = self._call("/v3/kv/range", _key(name)).get("kvs", [])
        # The gateway leaves out what is empty.
        return base64.b64decode(rows[0].get("value", "")).decode() if rows else None

    def delete_key(self, name: str) -> bool:
        """Delete a key; tell whether it was there.

        :raises OSError: when etcd does not answer
        :raises ClusterError: when its answer is an error
        """
        return int(self._call("/v3/kv/deleterange", _key(name)).get("deleted", 0)) > 0

    def _call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        status, text = request("POST", self.endpoint, path, body, timeout=_KEY_TIMEOUT, context=self.context)
        if status != http.HTTPStatus.OK:
            raise ClusterError(f"etcd answered {status} to {path}: {text[:300]}")
        answer: dict[str, Any] = json.loads(text)
        return answer


def _key(name: str) -> dict[str, str]:
    return {"key": base64.b64encode(name.encode()).decode()}
