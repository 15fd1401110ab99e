"""Leaving in order when the program is told to end: ``kill`` and a closed terminal clean up as an error would."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["in_order"]

# What else than Ctrl-C ends a program politely; by default it would end at once, and leave the cursor hidden.
_SIGNALS: Final = ("SIGTERM", "SIGHUP")


@contextlib.contextmanager
def in_order() -> Iterator[None]:
    """Let the signals that end a program raise :class:`SystemExit` inside the block. For the main thread."""
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, _leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
    sys.exit(128 + number)
