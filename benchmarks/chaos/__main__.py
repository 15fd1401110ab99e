"""Random faults, and applications that must not notice more than they must.

A real cluster, Django and SQLAlchemy clients that write and read, faults drawn from a seed, and an account of the whole
history::

    python -m benchmarks.chaos --seed 123 --minutes 5
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks.chaos.course import Settings, clients_of, run
from benchmarks.chaos.files import write_history
from benchmarks.chaos.schedule import KINDS
from benchmarks.chaos.tables import show
from benchmarks.chaos.verdict import Rules, judge
from benchmarks.children import BenchmarkError
from benchmarks.machine import about_machine, about_versions
from benchmarks.partition import enter_own_network, why_impossible
from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

__all__ = ["main"]

_FOLDER = Path("build/chaos")
_VIOLATION = 1
# Columns of a file.
_WIDTH = 160
_NOT_CARRIED_OUT = 2
# Seconds in which a client may still write to a deposed primary, with asynchronous replication: until its next look
# at the API (patroni_refresh, jittered), and the time that takes.
_LEARNING = 3.0


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Leaves the text as it is."""


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__, formatter_class=_Raw)
    names = [kind.name for kind in KINDS]
    parser.add_argument("--seed", type=int, help="of the faults; by default a new one, which is printed")
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M", help="by default 5")
    replication = parser.add_mutually_exclusive_group()
    replication.add_argument("--synchronous", action="store_true", default=True, help="the default")
    replication.add_argument("--asynchronous", dest="synchronous", action="store_false", help="writes may be lost")
    parser.add_argument("--fault", action="append", choices=names, help="one of them, repeatable; by default all")
    parser.add_argument(
        "--behind",
        type=float,
        default=1.0,
        metavar="S",
        help="seconds that a client may be behind the cluster, by default 1: servers and clients share the processors",
    )
    parser.add_argument(
        "--behind-once",
        type=float,
        default=2.0,
        metavar="S",
        help="the same for transactions that run again, by default 2: what is in doubt is asked about first",
    )
    parser.add_argument(
        "--behind-reads",
        type=float,
        default=5.5,
        metavar="S",
        help="the same for reads, by default 5.5: one under way on a server that hangs is ended within 5 s",
    )
    parser.add_argument("--pace", type=float, default=0.05, metavar="S", help="pause of a worker, by default 0.05 s")
    parser.add_argument("--output", type=Path, default=_FOLDER, metavar="DIR", help=f"by default {_FOLDER}")
    parser.add_argument("--debug", action="store_true", help="let the clients log all that they do")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run a chaos test.

    :param words: the command line; by default this process's
    :returns: the exit status
    """
    arguments = _arguments(words)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    why = why_impossible()
    if why is None:
        enter_own_network()
    else:
        console.print(f"without a partition: {why}")
    kinds = tuple(kind for kind in KINDS if not arguments.fault or kind.name in arguments.fault)
    settings = Settings(
        seed,
        arguments.minutes * 60,
        arguments.synchronous,
        kinds,
        why is None and any(kind.name == "partition" for kind in kinds),
        arguments.pace,
        arguments.debug,
    )
    folder: Path = (arguments.output / str(seed)).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(0o755)  # the servers' user goes through it
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:6.1f} s  {text}")

    mode = "synchronous" if settings.synchronous else "asynchronous"
    console.print(f"seed {seed}, {arguments.minutes:g} minutes, {mode} replication; {folder}")
    try:
        history = run(settings, folder, say)
    except (BenchmarkError, ClusterError) as error:
        console.print(f"seed {seed}: could not be carried out: {error}", markup=False)
        return _NOT_CARRIED_OUT
    except KeyboardInterrupt:
        console.print(f"seed {seed}: interrupted")
        return 128 + signal.SIGINT
    deposed = 0.0 if settings.synchronous else _LEARNING
    rules = Rules(settings.synchronous, arguments.behind, arguments.behind_once, arguments.behind_reads, deposed)
    findings = judge(history, clients_of(settings), rules)
    about = {
        "seed": seed,
        "mode": mode,
        "kinds": [kind.name for kind in kinds],
        "machine": about_machine(),
        "versions": about_versions(),
    }
    write_history(folder / "history.jsonl", about, history, findings)
    show(console, seed, history, findings, rules)
    return _VIOLATION if findings.violations else 0


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
    """Leave as after an error: everything that was started ends."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
