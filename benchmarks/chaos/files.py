"""The whole history as a file, for the post-mortem: one JSON object a line, in the order of time."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from benchmarks.chaos.verdict import Findings, History
    from benchmarks.records import Probe

__all__ = ["write_history"]


def write_history(path: Path, about: Mapping[str, Any], history: History, findings: Findings) -> None:
    """Write it. Times are seconds since the beginning.

    :param path: the file
    :param about: what the first line tells
    """
    events = sorted(_events(history, findings), key=lambda event: event["at"])
    with path.open("w", encoding="utf-8") as file:
        for event in ({"event": "settings", **about}, *events):
            file.write(json.dumps(event) + "\n")


def _events(history: History, findings: Findings) -> Iterator[dict[str, Any]]:
    zero = history.began

    def since(time: float | None) -> float | None:
        return None if time is None else round(time - zero, 4)

    for incident in history.incidents:
        yield {"event": "fault", **asdict(incident), "at": since(incident.at), "undone": since(incident.undone)}
    for sighting in history.sightings:
        yield {"event": "leader", "at": since(sighting.at), "node": sighting.node}
    for first, last, count in _spans(history.probes):
        said = {"node": first.node, "timeline": first.timeline, "answered": first.answered}
        yield {"event": "oracle", "at": since(first.began), "until": since(last.ended), "count": count, **said}
    for operation in history.operations:
        kind = type(operation).__name__.lower()
        times = {"at": since(operation.began), "ended": since(operation.ended)}
        yield {"event": kind} | {k: v for k, v in asdict(operation).items() if k != "began"} | times
    for moment, censuses in ((history.began, history.before), (history.ended, history.after)):
        for census in censuses:
            yield {"event": "census", "at": since(moment), **asdict(census)}
    for finding in findings.violations:
        at = history.ended if finding.at is None else finding.at
        yield {"event": "violation", **asdict(finding), "at": since(at)}


def _spans(probes: Iterable[Probe]) -> Iterator[tuple[Probe, Probe, int]]:
    """Return equal answers of a node that followed each other: the first, the last, and how many."""
    ordered = sorted(probes, key=lambda probe: (probe.node, probe.ended))
    for _, group in itertools.groupby(ordered, key=lambda probe: (probe.node, probe.timeline, probe.answered)):
        answers = list(group)
        yield answers[0], answers[-1], len(answers)
