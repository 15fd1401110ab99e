"""How far applications are behind the cluster after a fault: this library, and what one does without it.

A real cluster, an oracle that knows when it can be written to, and all clients writing through the same fault::

    python -m benchmarks.failover --fault switchover --fault node-frozen --repeat 3
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.catalogue import CLIENTS, HAPROXY
from benchmarks.children import BenchmarkError
from benchmarks.experiment import Settings, experiment
from benchmarks.faults import FAULTS, fault_of
from benchmarks.haproxy import find_haproxy
from benchmarks.machine import about_machine, about_versions
from benchmarks.partition import enter_own_network, why_impossible
from benchmarks.report import as_json, outage, overview, result_of, table
from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.faults import FaultKind
    from benchmarks.report import Result

__all__ = ["main"]

_WINDOW = 30.0
_FOLDER = Path("build/benchmarks")


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failover", description=__doc__, formatter_class=_Raw)
    faults, clients = [kind.name for kind in FAULTS], [kind.name for kind in CLIENTS]
    parser.add_argument("--fault", action="append", choices=faults, help="one of them, repeatable; by default all")
    parser.add_argument("--client", action="append", choices=clients, help="one of them, repeatable; by default all")
    replication = parser.add_mutually_exclusive_group()
    replication.add_argument("--synchronous", action="store_true", help="synchronous replication")
    replication.add_argument("--asynchronous", dest="synchronous", action="store_false", help="the default")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="make each fault N times")
    parser.add_argument(
        "--window", type=float, default=_WINDOW, metavar="S", help=f"watch for S seconds, by default {_WINDOW:g}"
    )
    parser.add_argument(
        "--expire", action="store_true", help="take a killed node's lock away at once, instead of after the ttl (20 s)"
    )
    parser.add_argument("--output", type=Path, default=_FOLDER, metavar="DIR", help=f"by default {_FOLDER}")
    parser.add_argument("--keep-logs", action="store_true", help="keep everybody's log there, and let ours log it all")
    return parser.parse_args(words)


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Leaves the text as it is."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    :param words: the command line; by default this process's
    :returns: the exit status
    """
    arguments = _arguments(words)
    faults = [fault_of(name) for name in dict.fromkeys(arguments.fault or [kind.name for kind in FAULTS])]
    clients = tuple(kind for kind in CLIENTS if not arguments.client or kind.name in arguments.client)
    program = find_haproxy()
    if program is None:
        print("without HAProxy: it is not installed", file=sys.stderr)
        clients = tuple(kind for kind in clients if kind.name != HAPROXY)
    if any(fault.needs_partition for fault in faults):
        why = why_impossible()
        if why is not None:
            print(f"without a partition: {why}", file=sys.stderr)
            faults = [fault for fault in faults if not fault.needs_partition]
        else:
            enter_own_network()
    settings = Settings(clients, arguments.synchronous, arguments.window, arguments.expire, arguments.keep_logs)
    mode = "synchronous" if arguments.synchronous else "asynchronous"
    folder: Path = arguments.output / mode
    folder.mkdir(parents=True, exist_ok=True)
    labels = {kind.name: kind.label for kind in clients}
    results: dict[str, list[Result]] = {}
    try:
        for fault in faults:
            results[fault.name] = _repeat(fault, settings, arguments.repeat, folder, labels)
    except (BenchmarkError, ClusterError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    finally:
        if results:
            _write(results, labels, mode, program, folder)
    return 0


def _repeat(fault: FaultKind, settings: Settings, repeat: int, folder: Path, labels: Mapping[str, str]) -> list[Result]:
    """Make a fault some times; print its table and draw the first one."""
    from benchmarks.plots import plot  # noqa: PLC0415 - slow to load

    results: list[Result] = []
    for number in range(1, repeat + 1):
        began = time.monotonic()

        def say(text: str, number: int = number, began: float = began) -> None:
            print(f"{fault.name} {number}/{repeat} {time.monotonic() - began:5.1f} s  {text}", file=sys.stderr)

        with tempfile.TemporaryDirectory(prefix="patroni-db-benchmark-") as temporary:
            logs = Path(temporary)
            if settings.verbose:
                logs = folder / "logs" / f"{fault.name}-{number}"
                logs.mkdir(parents=True)
            logs.chmod(0o755)  # the servers' user goes through it
            observation = experiment(fault, settings, logs, say)
        results.append(result_of(observation))
        if number == 1:
            mode = "synchronous" if settings.synchronous else "asynchronous"
            title = f"{fault.label}, {mode} replication"
            plot(observation, labels, title[0].upper() + title[1:], folder / f"{fault.name}.png")
        (folder / f"{fault.name}.json").write_text(
            json.dumps([as_json(result) for result in results], indent=1), encoding="utf-8"
        )
    print(_section(fault, results, labels), flush=True)
    return results


def _section(fault: FaultKind, results: Sequence[Result], labels: Mapping[str, str]) -> str:
    title = fault.label[0].upper() + fault.label[1:]
    return f"### {title}\n\nThe cluster took writes after: {outage(results)}.\n\n{table(results, labels)}\n"


def _write(
    results: Mapping[str, Sequence[Result]], labels: Mapping[str, str], mode: str, program: str | None, folder: Path
) -> None:
    names = {name: fault_of(name).label for name in results}
    sections = [_section(fault_of(name), of_one, labels) for name, of_one in results.items()]
    repeats = max(map(len, results.values()))
    text = "\n".join(
        [
            f"## {mode.capitalize()} replication\n",
            f"{about_machine()}. {about_versions(program if HAPROXY in labels else None)}.",
            f"Medians of {repeats}, the worst in parentheses.\n" if repeats > 1 else "",
            overview(results, labels, names) + "\n",
            *sections,
        ]
    )
    (folder / "summary.md").write_text(text, encoding="utf-8")
    print(f"{folder / 'summary.md'}, with a picture and JSON of each fault", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
