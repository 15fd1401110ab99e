"""What it costs to have connections checked for life and role each time: this library, and what one does without it.

All subjects take turns, so that whatever else the machine does hits them alike::

    python -m benchmarks.overhead --sets 5
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import random
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg

from benchmarks.children import Child
from benchmarks.machine import about_machine, about_versions
from benchmarks.subjects import FAMILIES, create_tables
from patroni_db.cluster import LocalCluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.subjects import Family

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parents[1]
_OUTPUT = Path("build/benchmarks/overhead")
# Times in one turn, turns in one set, and times that do not count.
_BATCH = 25
_ROUNDS = 60
_WARM_UP = 200
_START_TIMEOUT = 20.0

# What an application imports without this library, and with it.
_IMPORTS = (
    ("the core", "", "patroni_db.discovery, patroni_db.acquisition"),
    ("settings.py", "django.conf", "django.conf, django_backend.config"),
    ("Django's backend", "django.db.backends.postgresql.base", "django_backend.base"),
    (
        "SQLAlchemy's dialect",
        "sqlalchemy.dialects.postgresql.psycopg, psycopg",
        "sqlalchemy.dialects.postgresql.psycopg, psycopg, sqlalchemy_dialect.dialect",
    ),
)
_TIME_IMPORT = """
import sys, time
from django.conf import settings as _settings
_settings.configure()
began = time.perf_counter()
{statement}
print(time.perf_counter() - began)
"""


class _Running:
    """A subject's process.

    :param family: its family's name
    :param variant: which of it
    :param server: where the cluster is
    """

    def __init__(self, family: str, variant: str, server: Mapping[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.subjects"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.start: dict[str, float] = self._ask({"family": family, "variant": variant, "server": server})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.communicate()

    def times(self, count: int) -> list[float]:
        """Have the work done `count` times, and return the seconds each took."""
        answer: list[float] = self._ask(count)
        return answer

    def _ask(self, wish: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - by PIPE
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _measure_set(
    family: Family, server: Mapping[str, Any], rounds: int, rng: random.Random
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Let fresh processes of a family take turns.

    :returns: each variant's median of each round, and how long its first connection took
    """
    running = {subject.variant: _Running(family.maker, subject.variant, server) for subject in family.subjects}
    medians: dict[str, list[float]] = {variant: [] for variant in running}
    try:
        for subject in running.values():
            subject.times(_WARM_UP)
        for _ in range(rounds):
            order = list(running)
            rng.shuffle(order)
            for variant in order:
                medians[variant].append(statistics.median(running[variant].times(_BATCH)))
        return medians, {variant: subject.start["first"] for variant, subject in running.items()}
    finally:
        for subject in running.values():
            subject.__exit__()


def _measure(family: Family, server: Mapping[str, Any], sets: int, rounds: int) -> dict[str, dict[str, float]]:
    rng = random.Random(family.name)  # noqa: S311 - an order, no secret
    times: dict[str, list[float]] = {subject.variant: [] for subject in family.subjects}
    ratios: dict[str, list[float]] = {subject.variant: [] for subject in family.subjects}
    firsts: dict[str, list[float]] = {subject.variant: [] for subject in family.subjects}
    for number in range(sets):
        print(f"{family.name} {number + 1}/{sets}", file=sys.stderr)
        medians, first = _measure_set(family, server, rounds, rng)
        for variant, values in medians.items():
            times[variant] += values
            pairs = zip(values, medians["stock"], strict=True)
            ratios[variant].append(statistics.median(value / stock for value, stock in pairs))
            firsts[variant].append(first[variant])
    return {
        variant: {
            "seconds": statistics.median(times[variant]),
            "ratio": statistics.median(ratios[variant]),
            "least": min(ratios[variant]),
            "most": max(ratios[variant]),
            "first": statistics.median(firsts[variant]),
        }
        for variant in times
    }


@contextlib.contextmanager
def _network(server: dict[str, Any], delay: float, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield where the server is reached over a network that takes its time."""
    if not delay:
        yield server
        return
    heard: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    wish = {"servers": [(server["host"], server["port"])], "share": 0.0, "seed": 0, "delay": delay}
    with Child("answers", wish, folder / "network.log", heard.put):
        address_map = heard.get(timeout=_START_TIMEOUT)["address_map"]
        host, port = address_map.partition("=")[2].rsplit(":", 1)
        yield {**server, "host": host, "port": int(port), "address_map": address_map}


def _import_seconds(modules: str) -> float:
    statement = f"import {modules}" if modules else ""
    code = _TIME_IMPORT.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _measure_imports(times: int) -> list[dict[str, Any]]:
    found = []
    for name, without, with_it in _IMPORTS:
        print(f"imports: {name}", file=sys.stderr)
        stock, ours = [], []
        for _ in range(times):
            stock.append(_import_seconds(without))
            ours.append(_import_seconds(with_it))
        found.append({"name": name, "stock": statistics.median(stock), "ours": statistics.median(ours)})
    return found


def _tables(figures: Mapping[str, Mapping[str, Mapping[str, float]]], imports: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for family in FAMILIES:
        if family.name not in figures:
            continue
        lines += [
            f"### {family.work}\n",
            "| | \N{MICRO SIGN}s | ratio | first connection, ms |",
            "| --- | --: | --: | --: |",
        ]
        for subject in family.subjects:
            found = figures[family.name][subject.variant]
            ratio = f"{found['ratio']:.3f} ({found['least']:.3f} to {found['most']:.3f})"
            shown = "1" if subject.variant == "stock" else ratio
            lines.append(f"| {subject.name} | {found['seconds'] * 1e6:.0f} | {shown} | {found['first'] * 1e3:.0f} |")
        lines.append("")
    lines += ["### Import\n", "| | stock, ms | ours, ms |", "| --- | --: | --: |"]
    lines += [f"| {row['name']} | {row['stock'] * 1e3:.0f} | {row['ours'] * 1e3:.0f} |" for row in imports]
    return "\n".join(lines) + "\n"


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    :param words: the command line; by default this process's
    :returns: the exit status
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sets", type=int, default=5, metavar="N", help="start all processes N times, by default 5")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, metavar="N", help=f"turns, by default {_ROUNDS}")
    parser.add_argument("--output", type=Path, default=_OUTPUT, metavar="DIR", help=f"by default {_OUTPUT}")
    names = [family.name for family in FAMILIES]
    parser.add_argument("--family", action="append", choices=names, help="one of them, repeatable; by default all")
    arguments = parser.parse_args(words)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with LocalCluster(1, progress=lambda text: print(text, file=sys.stderr)) as cluster:
        node = cluster.node(cluster.wait_for_leader())
        credentials = {"user": cluster.user, "password": cluster.password}
        with psycopg.connect(cluster.conninfo(dbname="app", **credentials), autocommit=True) as connection:
            create_tables(connection)
        server = {
            "host": node.host,
            "port": node.port,
            "urls": cluster.urls,
            "address_map": "",
            "user": cluster.user,
            "password": cluster.password,
        }
        figures = {}
        for family in FAMILIES:
            if arguments.family and family.name not in arguments.family:
                continue
            with _network(server, family.delay, arguments.output) as reached:
                figures[family.name] = _measure(family, reached, arguments.sets, arguments.rounds)
    imports = _measure_imports(2 * arguments.sets)
    text = f"{about_machine()}. {about_versions()}.\n\n{_tables(figures, imports)}"
    (arguments.output / "summary.md").write_text(text, encoding="utf-8")
    (arguments.output / "figures.json").write_text(
        json.dumps({"families": figures, "imports": imports}, indent=1), encoding="utf-8"
    )
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
