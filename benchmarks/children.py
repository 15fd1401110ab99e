"""The benchmark's own processes: one line of JSON in, lines out, and an end when their standard input ends."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["BenchmarkError", "Child"]

_ROOT = Path(__file__).resolve().parents[1]
_TAIL = 2000


class BenchmarkError(Exception):
    """The benchmark could not be carried out."""


class Child:
    """A program of this folder, running.

    :param module: its name
    :param wish: what it is told
    :param log: where its error output goes
    :param heard: called with each line that it says, in a thread of its own
    """

    def __init__(self, module: str, wish: Mapping[str, Any], log: Path, heard: Callable[[Any], None]) -> None:
        self.name = log.stem
        self._log = log
        self._heard = heard
        with log.open("ab") as errors:
            # In a session of its own: Ctrl-C is for the benchmark, which ends it in its own way.
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"benchmarks.{module}"],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdin is not None  # noqa: S101 - by stdin=PIPE
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        self._reader = threading.Thread(target=self._read, name=f"reader of {self.name}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.tell_to_stop()
        with contextlib.suppress(BenchmarkError):
            self.end(0.0)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """Make sure that it runs.

        :raises BenchmarkError: when it has ended; the message holds the end of what it said
        """
        status = self._process.poll()
        if status is not None:
            raise BenchmarkError(f"{self.name} ended (exit status {status}):\n{self.said()}")

    def tell_to_stop(self) -> None:
        """End its standard input."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def end(self, deadline: float) -> None:
        """Wait until it has ended and all it said was heard.

        :param deadline: in seconds of the monotonic clock; past it the process is killed
        :raises BenchmarkError: when it did not end by itself, or not well
        """
        self.tell_to_stop()
        try:
            status = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise BenchmarkError(f"{self.name} did not end:\n{self.said()}") from None
        finally:
            self._reader.join(5.0)
        if status:
            raise BenchmarkError(f"{self.name} failed (exit status {status}):\n{self.said()}")

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - by stdout=PIPE
        with self._process.stdout as lines:
            for line in lines:
                self._heard(json.loads(line))

    def said(self) -> str:
        """Return the end of its error output."""
        return self._log.read_text(errors="replace")[-_TAIL:].strip() or "(it said nothing)"
