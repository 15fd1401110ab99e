"""A network that loses what matters most: stands between applications and servers, and breaks connections at COMMIT.

Of a share of all COMMITs either the answer is lost, after the server has given it, or the COMMIT itself. The
application cannot tell one from the other. The child's first line tells the addresses, as ``patroni_address_map``
takes them; each of its later ones how often either has happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["main"]

# How drivers spell it; nothing else that the clients send has it in capitals.
_COMMIT = b"COMMIT"
_CHUNK = 1 << 16
_REPORT = 0.5


@dataclass(slots=True)
class _Losses:
    """What is lost, and what was.

    :param share: of COMMITs whose connection breaks
    :param rng: decides which
    :param delay: seconds that whatever is carried takes, each way
    """

    share: float
    rng: random.Random
    delay: float = 0.0
    answers: int = 0
    requests: int = 0


class _Session:
    """One connection of an application, and the one to the server that belongs to it."""

    def __init__(self, losses: _Losses, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._losses = losses
        self._writers = (near, far)
        self._near, self._far = near, far
        self._deaf = False

    async def carry_requests(self, source: asyncio.StreamReader) -> None:
        """Pass on what the application sends."""
        while data := await source.read(_CHUNK):
            if _COMMIT in data and self._losses.rng.random() < self._losses.share:
                if self._losses.rng.random() < 1 / 2:
                    self._losses.requests += 1
                    return
                self._deaf = True
            await self._pass_on(self._far, data)

    async def carry_answers(self, source: asyncio.StreamReader) -> None:
        """Pass on what the server answers, until that is to be lost."""
        while data := await source.read(_CHUNK):
            if self._deaf:
                self._losses.answers += 1
                return
            await self._pass_on(self._near, data)

    async def _pass_on(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self._losses.delay:
            # What comes next may be on its way at the same time.
            asyncio.get_running_loop().call_later(self._losses.delay, writer.write, data)
        else:
            writer.write(data)
            await writer.drain()

    def end(self) -> None:
        """Break both connections, without a good-bye."""
        for writer in self._writers:
            writer.transport.abort()


async def _serve(losses: _Losses, host: str, port: int) -> str:
    async def carry(near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            far_reader, far = await asyncio.open_connection(host, port)
        except OSError:
            near.transport.abort()
            return
        session = _Session(losses, near, far)
        ways = (session.carry_requests(near_reader), session.carry_answers(far_reader))
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.end()
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    listening = server.sockets[0].getsockname()
    return f"{host}:{port}={listening[0]}:{listening[1]}"


async def _run(servers: Iterable[tuple[str, int]], losses: _Losses, ended: threading.Event) -> None:
    routes = [await _serve(losses, host, port) for host, port in servers]
    print(json.dumps({"address_map": ",".join(routes)}), flush=True)
    while not ended.is_set():
        await asyncio.sleep(_REPORT)
        print(json.dumps({"answers": losses.answers, "requests": losses.requests}), flush=True)


def main() -> None:
    """Stand between, as the first line of the standard input asks, until that ends."""
    wish = json.loads(sys.stdin.readline())
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    rng = random.Random(wish["seed"])  # noqa: S311 - is to be foreseen, if one knows the seed
    asyncio.run(_run(wish["servers"], _Losses(wish["share"], rng, wish.get("delay", 0.0)), ended))


if __name__ == "__main__":
    main()
