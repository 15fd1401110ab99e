"""Parameters for libpq: a connection goes to the host that was chosen, whatever else names an address."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import psycopg
import psycopg2
import pytest

from patroni_db.acquisition import Attempt
from patroni_db.connections import Stamp
from patroni_db.libpq import attempt_params
from patroni_db.topology import Address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ELSEWHERE = "127.0.0.2"


@contextlib.contextmanager
def listening(host: str, port: int, callers: list[str]) -> Iterator[int]:
    """Note who connects to `host`, and hang up; yields the port."""

    def hang_up() -> None:
        with contextlib.suppress(OSError):  # the end of the test
            while True:
                connection, _ = server.accept()
                callers.append(host)
                connection.close()

    with socket.create_server((host, port)) as server:
        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("driver", [psycopg, psycopg2], ids=["psycopg", "psycopg2"])
@pytest.mark.parametrize("how", ["PGHOSTADDR", "PGSERVICE", "service"])
def test_an_address_from_the_environment_leads_no_connection_away(
    driver: type, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "services"
    services.write_text(f"[elsewhere]\nhostaddr={ELSEWHERE}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    if how != "service":
        monkeypatch.setenv(how, ELSEWHERE if how == "PGHOSTADDR" else "elsewhere")
    params = {"user": "app", "dbname": "app", **({"service": "elsewhere"} if how == "service" else {})}
    callers: list[str] = []
    with listening("127.0.0.1", 0, callers) as port, listening(ELSEWHERE, port, callers):
        attempt = Attempt(Stamp("n1", Address("127.0.0.1", port), 0), 2.0, 2.0)
        with pytest.raises(driver.OperationalError):  # type: ignore[attr-defined]  # a module
            driver.connect(**attempt_params(params, attempt))  # type: ignore[attr-defined]  # a module
    assert callers
    assert set(callers) == {"127.0.0.1"}
