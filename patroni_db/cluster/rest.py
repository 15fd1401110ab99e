"""What a local cluster says to Patroni's REST API and to etcd's JSON gateway.

Not the library's own client: this one must see and do what applications never do, and its users test that client.
"""

from __future__ import annotations

import base64
import http.client
import json
from typing import TYPE_CHECKING, Any

from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["delete_key", "read_key", "request"]


def request(
    method: str, endpoint: tuple[str, int], path: str, body: Mapping[str, Any] | None = None, *, timeout: float = 5.0
) -> tuple[int, str]:
    """Make one HTTP request, past any proxy.

    :param endpoint: host and port
    :param timeout: seconds for connecting, and again for each wait for data
    :returns: status and body
    :raises OSError: when there is no answer, ``TimeoutError`` when it was too late
    """
    connection = http.client.HTTPConnection(*endpoint, timeout=timeout)
    try:
        payload = None if body is None else json.dumps(body).encode()
        connection.request(method, path, payload, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except http.client.HTTPException as error:
        raise ConnectionError(f"{endpoint[0]}:{endpoint[1]}: {error!r}") from error
    finally:
        connection.close()


def get_json(endpoint: tuple[str, int], path: str, *, timeout: float = 5.0) -> dict[str, Any] | None:
    """Return the JSON object of an answer with any status, or None when there was no such answer."""
    try:
        _, text = request("GET", endpoint, path, timeout=timeout)
        value = json.loads(text)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _etcd(endpoint: tuple[str, int], path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    status, text = request("POST", endpoint, path, body, timeout=3.0)
    if status != http.HTTPStatus.OK:
        raise ClusterError(f"etcd answered {status} to {path}: {text[:300]}")
    answer: dict[str, Any] = json.loads(text)
    return answer


def _key(name: str) -> dict[str, str]:
    return {"key": base64.b64encode(name.encode()).decode()}


def read_key(endpoint: tuple[str, int], name: str) -> str | None:
    """Return the value of an etcd key, None when there is none.

    :raises OSError: when etcd does not answer
    :raises ClusterError: when its answer is an error
    """
    rows = _etcd(endpoint, "/v3/kv/range", _key(name)).get("kvs", [])
    # The gateway leaves out what is empty.
    return base64.b64decode(rows[0].get("value", "")).decode() if rows else None


def delete_key(endpoint: tuple[str, int], name: str) -> bool:
    """Delete an etcd key; tell whether it was there.

    :raises OSError: when etcd does not answer
    :raises ClusterError: when its answer is an error
    """
    return int(_etcd(endpoint, "/v3/kv/deleterange", _key(name)).get("deleted", 0)) > 0
