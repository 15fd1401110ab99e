"""Asking Patroni for a switchover, and hearing its no."""

from __future__ import annotations

import dataclasses
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from patroni_db.cluster import rest
from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Refusal", "SwitchoverRequest"]

# Seconds that the whole may take: Patroni answers when the old leader is a replica.
_TIMEOUT: Final = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """Why there will be no switchover.

    :param why: what Patroni said, or that nobody listens
    :param status: of its answer; None when there was none
    """

    why: str
    status: int | None = None

    @property
    def is_temporary(self) -> bool:
        """Whether Patroni sees nobody just now who could take over (``is_failover_possible`` in its ``api.py``)."""
        return self.status == HTTPStatus.PRECONDITION_FAILED

    def error(self) -> ClusterError:
        """Return it as an error."""
        return ClusterError(f"Patroni refused the switchover: {self.why}")


class SwitchoverRequest:
    """``POST /switchover``, in a thread of its own: Patroni refuses soon, but says yes only seconds after it is done.

    :param endpoint: host and port of the leader's API
    :param body: who leads, and who shall
    :param login: who may ask for it
    """

    def __init__(self, endpoint: tuple[str, int], body: Mapping[str, Any], login: rest.Login) -> None:
        self._refusal: Refusal | None = None
        self._thread = threading.Thread(
            target=self._run, args=(endpoint, body, login), name="patroni-db-switchover", daemon=True
        )
        self._thread.start()

    def refusal(self, within: float = 0.0) -> Refusal | None:
        """Return Patroni's no, if it has said so.

        :param within: seconds to wait for its answer
        """
        self._thread.join(within)
        return self._refusal

    def _run(self, endpoint: tuple[str, int], body: Mapping[str, Any], login: rest.Login) -> None:
        try:
            status, text = rest.request("POST", endpoint, "/switchover", body, timeout=_TIMEOUT, login=login)
        except ConnectionRefusedError as error:
            self._refusal = Refusal(str(error))
        except OSError:
            return  # the node may go down in the middle of it; the leader tells
        else:
            if status not in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
                self._refusal = Refusal(f"{status}, {text.strip()}", status)
