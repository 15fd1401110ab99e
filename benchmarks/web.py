"""The example project, served by gunicorn."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.children import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["manage", "serve", "shop_environment"]

_ROOT = Path(__file__).resolve().parents[1]
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 20.0
_POLL = 0.1
_TAIL = 2000


def shop_environment(urls: tuple[str, ...], dbname: str, user: str, password: str) -> dict[str, str]:
    """Return the environment in which the example project finds the cluster."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    ours = {"PATRONI_API_URL": ",".join(urls), "PGDATABASE": dbname, "PGUSER": user, "PGPASSWORD": password}
    return {**kept, **ours, "SECRET_KEY": "benchmark"}


def manage(environment: Mapping[str, str], *arguments: str) -> None:
    """Run ``manage.py``.

    :raises BenchmarkError: it failed
    """
    command = [sys.executable, "example_project/manage.py", *arguments]
    ended = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise BenchmarkError(f"manage.py {' '.join(arguments)} failed:\n{(ended.stdout + ended.stderr)[-_TAIL:]}")


@contextlib.contextmanager
def serve(environment: Mapping[str, str], log: Path, threads: int) -> Iterator[str]:
    """Serve the example project until the end of the block; yield its address.

    :param log: where gunicorn's output goes
    :param threads: requests at a time
    :raises BenchmarkError: it did not start
    """
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    settings = ["--worker-class", "gthread", "--threads", str(threads), "--timeout", "120", "--graceful-timeout", "5"]
    command = ["gunicorn", *settings, "--bind", f"127.0.0.1:{port}", "example_project.wsgi"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=_ROOT,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_answers(address, process, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_answers(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/stock/", timeout=5):  # noqa: S310 - our own server
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(_POLL)
    raise BenchmarkError(f"gunicorn does not answer:\n{log.read_text(errors='replace')[-_TAIL:]}")
