"""Connection parameters for libpq's drivers (psycopg, psycopg2): defaults, and those of one attempt. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from patroni_db.acquisition import Attempt

__all__ = ["ADDRESSING", "DEFAULTS", "attempt_params", "with_defaults"]

# A path that went dead without a word is noticed after about six seconds instead of libpq's two hours:
# idle connections by keepalives, data in flight by tcp_user_timeout (in milliseconds, Linux only;
# elsewhere libpq ignores it).
DEFAULTS: Final[Mapping[str, Any]] = {
    "keepalives": 1,
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 6000,
}
# What discovery decides: naming a server or a role beside it would contradict it.
ADDRESSING: Final = frozenset({"host", "hostaddr", "port", "target_session_attrs", "load_balance_hosts"})
# libpq and psycopg raise a smaller connect_timeout to two seconds.
_LEAST_CONNECT_TIMEOUT: Final = 2


def with_defaults(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return `params` with short timeouts for a dead network path where the user set none."""
    return {**DEFAULTS, **params}


def attempt_params(params: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
    """Return `params` that lead to the attempt's server, within its time unless the user set ``connect_timeout``."""
    timeout = max(_LEAST_CONNECT_TIMEOUT, math.ceil(attempt.timeout))
    return {"connect_timeout": timeout, **params, "host": attempt.address.host, "port": attempt.address.port}
