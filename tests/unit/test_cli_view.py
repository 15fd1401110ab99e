"""What the command line makes of a cluster: doubts, pictures, documents, changes and conditions. No I/O."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from patroni_db import DiscoveryError
from patroni_db.cli.changes import changes
from patroni_db.cli.conditions import Condition
from patroni_db.cli.document import error_document, status_document
from patroni_db.cli.render import ViewDisplay
from patroni_db.cli.text import age, size, tags
from patroni_db.client import NodeStatus
from patroni_db.escaping import plain
from patroni_db.network import AddressBook
from tests.unit.views import BODIES, NO_ANSWER, RUNNING_PRIMARY, RUNNING_REPLICA, member, recorded, row, view

if TYPE_CHECKING:
    from patroni_db.cli.view import View


def shown(of: View, width: int = 80, encoding: str = "utf-8") -> str:
    """Return what a terminal of that width would show."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", write_through=True)
    console = Console(file=file, width=width, markup=False, emoji=False, highlight=False)
    console.print(ViewDisplay(of))
    return raw.getvalue().decode(encoding)


def line_of(text: str, name: str) -> str:
    """Return the table's line for the member `name`."""
    return next(line for line in text.splitlines() if name in line.split()[:2])


# -- Small texts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 kB"),
        (16 << 20, "16 MB"),
        (int(1.5 * (1 << 30)), "1.5 GB"),
        (1 << 60, "1048576 TB"),
    ],
)
def test_sizes_read_as_postgresql_writes_them(number: int, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-0.1, "0.0 s"), (0.42, "0.4 s"), (9.94, "9.9 s"), (12.4, "12 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_tags_are_spelled_as_the_setting_takes_them() -> None:
    assert tags({"zone": "a", "nofailover": True, "priority": 2}) == "nofailover=true, priority=2, zone=a"


def test_what_a_terminal_would_obey_is_made_visible() -> None:
    assert plain("n1\x1b[2J\n") == "n1\\x1b[2J\\n"
    assert plain("Größe") == "Größe"


# -- Doubt ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "state", "answer", "doubt"),
    [
        ("leader", "running", RUNNING_PRIMARY, None),
        ("leader", "running", NodeStatus("master", "running", 1, None), None),
        ("leader", "running", RUNNING_REPLICA, "says replica, running"),
        ("leader", "running", NodeStatus("primary", "crashed", 1, None), "says primary, crashed"),
        ("leader", "running", NO_ANSWER, "no answer"),
        ("leader", "running", DiscoveryError("http://n1", "TLS failed"), "unusable answer"),
        ("leader", "running", None, None),
        ("replica", "streaming", RUNNING_REPLICA, None),
        ("replica", "streaming", NodeStatus("replica", "stopped", 1, None), "says replica, stopped"),
        ("sync_standby", "streaming", RUNNING_PRIMARY, "says primary, running"),
        ("replica", "starting", NodeStatus("replica", "starting", 1, None), None),
        ("standby_leader", "running", NodeStatus("standby_leader", "running", 1, None), None),
        ("standby_leader", "running", RUNNING_PRIMARY, "says primary, running"),
    ],
)
def test_a_member_is_doubted_when_its_own_word_differs(
    role: str, state: str, answer: NodeStatus | DiscoveryError | None, doubt: str | None
) -> None:
    seen = view(row("n1", role, state=state), answers={} if answer is None else {"n1": answer})
    assert seen.doubt(member(seen, "n1")) == doubt


@pytest.mark.parametrize(
    ("rows", "answers", "leads"),
    [
        ([row("n1", "leader")], {}, True),
        ([row("n1", "standby_leader")], {}, True),
        ([row("n1")], {}, False),
        ([], {}, False),
        ([row("n1", "leader")], {"n1": NO_ANSWER}, False),
    ],
)
def test_whether_somebody_leads(rows: list[dict[str, Any]], answers: dict[str, Any], leads: bool) -> None:
    assert view(*rows, answers=answers).leads is leads


# -- The picture ----------------------------------------------------------------------------------------------


def test_a_healthy_cluster_at_a_glance() -> None:
    text = shown(recorded("patroni-4.1.5-quorum"))
    assert text.startswith("Cluster lab: primary n2, 2 replicas, timeline 7\nSeen through http://n1:8008\n")
    assert line_of(text, "n2").split() == ["★", "n2", "leader", "running", "127.0.0.1:25432", "-", "7"]
    assert "quorum standby" in line_of(text, "n3")
    assert "noloadbalance=true" in line_of(text, "n3")
    assert "0 B" in line_of(text, "n3")
    assert "\x1b" not in text


def test_every_recording_fits_80_columns() -> None:
    for body in BODIES.glob("*.json"):
        text = shown(recorded(body.stem))
        assert "MEMBER" in text
        assert max(map(len, text.splitlines())) <= 80


def test_a_standby_cluster_is_called_one() -> None:
    assert "standby cluster, leader n2" in shown(recorded("patroni-4.1.5-standby-cluster"))


def test_a_cluster_without_leader_says_so_first() -> None:
    text = shown(view(row("n1"), row("n2")))
    assert text.startswith("Cluster lab: no leader, 2 replicas")
    assert "★" not in text


def test_a_dead_leader_is_not_shown_as_primary_without_a_word() -> None:
    text = shown(view(row("n1", "leader"), row("n2"), answers={"n1": NO_ANSWER, "n2": RUNNING_REPLICA}))
    assert "primary n1 (no answer)" in text
    assert "running (no answer)" in line_of(text, "n1")
    assert "n1: http://n1:8008/patroni: Connection refused" in text


def test_unknown_things_are_shown_as_unknown() -> None:
    bare = {"name": "n2", "role": "replica", "state": "", "lag": "unknown"}
    text = shown(view(row("n1", "leader"), bare))
    assert line_of(text, "n2").split() == ["n2", "replica", "?", "-", "unknown", "-"]


def test_pause_and_scheduled_switchover_are_told() -> None:
    planned = {"at": "2026-12-01T03:00:00+00:00", "from": "n1", "to": "n2"}
    text = shown(view(row("n1", "leader"), row("n2"), pause=True, scheduled_switchover=planned))
    assert "Paused" in text
    assert "Switchover scheduled at 2026-12-01T03:00:00+00:00 from n1 to n2." in text


def test_no_member_at_all() -> None:
    assert "no leader, 0 replicas" in shown(view())


@pytest.mark.parametrize("width", [20, 40, 60])
def test_a_narrow_terminal_gets_blocks_and_loses_nothing(width: int) -> None:
    text = shown(recorded("patroni-4.1.5-quorum"), width)
    assert max(map(len, text.splitlines())) <= width
    joined = "".join(text.split())
    for part in ("★n2leader", "127.0.0.1:25433", "noloadbalance=true", "quorumstandby"):
        assert part in joined


def test_many_tags_go_below_the_table() -> None:
    many = {f"tag{number}": "value" for number in range(12)}
    text = shown(view(row("n1", "leader"), row("n2", tags=many)))
    assert max(map(len, text.splitlines())) <= 80
    assert "MEMBER" in text
    assert all(f"{name}=value" in text for name in many)


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_a_locale_without_utf_8_gets_plain_marks(encoding: str) -> None:
    text = shown(view(row("n1", "leader"), row("größe☃")), encoding=encoding)
    assert line_of(text, "n1").startswith("*")
    assert not set("★─|") & set(text)
    assert "\\u2603" in text


def test_names_cannot_drive_the_terminal_or_the_markup() -> None:
    text = shown(view(row("\x1b[31mn1", "leader", tags={"\x1b]0;x\x07": "[bold]"}), scope="[red]lab\x1b[2J"))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]lab\\x1b[2J" in text
    assert "[bold]" in text


def test_addresses_are_those_reachable_from_here() -> None:
    assert "n1.test:6432" in shown(view(row("n1", "leader"), book=AddressBook(port=6432)))


# -- Documents ------------------------------------------------------------------------------------------------


def test_the_document_holds_everything_and_is_json() -> None:
    planned = {"at": "2026-12-01T03:00:00+00:00", "from": "n1", "to": None}
    seen = view(
        row("n1", "leader"),
        row("n2", lag="unknown", tags={"zone": "a"}),
        answers={"n1": RUNNING_PRIMARY, "n2": NO_ANSWER},
        pause=True,
        scheduled_switchover=planned,
    )
    assert json.loads(json.dumps(status_document(seen))) == {
        "scope": "lab",
        "source": "http://n1:8008",
        "primary": "n1",
        "leader": "n1",
        "healthy": True,
        "timeline": 1,
        "paused": True,
        "scheduled_switchover": planned,
        "members": [
            {
                "name": "n1",
                "role": "leader",
                "state": "running",
                "host": "n1.test",
                "port": 5432,
                "api_url": "http://n1:8008",
                "timeline": 1,
                "lag": None,
                "tags": {},
                "answers": True,
                "problem": None,
            },
            {
                "name": "n2",
                "role": "replica",
                "state": "streaming",
                "host": "n2.test",
                "port": 5432,
                "api_url": "http://n2:8008",
                "timeline": 1,
                "lag": None,
                "tags": {"zone": "a"},
                "answers": False,
                "problem": "no answer",
            },
        ],
        "failures": [],
    }


def test_a_standby_cluster_has_a_leader_but_no_primary() -> None:
    document = status_document(recorded("patroni-4.1.5-standby-cluster"))
    assert (document["leader"], document["primary"], document["healthy"]) == ("n2", None, True)


def test_a_failed_discovery_as_document() -> None:
    errors = [DiscoveryError("http://a/cluster", "refused"), DiscoveryError("http://b/cluster", "status 500")]
    document = error_document(DiscoveryError.combined(errors))
    assert document["failures"] == [
        {"url": "http://a/cluster", "reason": "refused"},
        {"url": "http://b/cluster", "reason": "status 500"},
    ]
    assert "http://a/cluster: refused" in document["error"]
    assert error_document(errors[0])["failures"] == [{"url": "http://a/cluster", "reason": "refused"}]


# -- Changes --------------------------------------------------------------------------------------------------

_TWO = view(row("n1", "leader"), row("n2"))


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (_TWO, []),
        (view(row("n1", "leader"), row("n2", lag=5000)), []),
        (view(row("n1", state="running"), row("n2", "leader", state="streaming")), ["n2 leads now, n1 did before"]),
        (view(row("n1", state="running"), row("n2")), ["n1 no longer leads, nobody does"]),
        (view(row("n1", "leader", timeline=2), row("n2")), ["timeline 2 now"]),
        (view(row("n1", "leader")), ["n2 is gone"]),
        (view(row("n1", "leader"), row("n2"), row("n3")), ["n3 is new: streaming"]),
        (view(row("n1", "leader"), row("n2", state="stopped")), ["n2: streaming, then stopped"]),
        (view(row("n1", "leader"), row("n2", port=6000)), ["n2: address n2.test:6000"]),
        (view(row("n1", "leader"), row("n2", tags={"a": 1})), ["n2: tags changed"]),
        (view(row("n1", "leader"), row("n2"), pause=True), ["paused (maintenance mode)"]),
        (view(row("n1", "leader"), row("n2"), scheduled_switchover={"at": "x"}), ["a switchover is scheduled"]),
        (view(row("n1", "leader"), row("n2"), answers={"n1": NO_ANSWER}), ["n1: no answer"]),
        (view(row("n1", "standby_leader"), row("n2")), ["n1 is standby leader now"]),
    ],
)
def test_changes_are_told_in_words(after: View, told: list[str]) -> None:
    assert list(changes(_TWO, after)) == told


def test_the_way_back_is_told_too() -> None:
    silent = view(row("n1", "leader"), row("n2"), answers={"n1": NO_ANSWER})
    assert list(changes(silent, _TWO)) == ["n1 answers as expected again"]
    paused = view(row("n1", "leader"), row("n2"), pause=True, scheduled_switchover={"at": "x"})
    assert list(changes(paused, _TWO)) == ["resumed (maintenance mode ended)", "no switchover is scheduled any more"]
    nobody = view(row("n1", state="running"), row("n2"))
    assert list(changes(nobody, _TWO)) == ["n1 leads now"]


# -- Conditions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "replicas"), [("primary", 0), ("replica", 1), ("1-replica", 1), ("2-replicas", 2), ("12-replicas", 12)]
)
def test_conditions_are_parsed(text: str, replicas: int) -> None:
    assert Condition.parse(text) == Condition(replicas)


@pytest.mark.parametrize("text", ["", "leader", "0-replicas", "-1-replicas", "replicas", "2 replicas", "٢-replicas"])
def test_other_conditions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not one of primary, replica, 2-replicas"):
        Condition.parse(text)


def test_conditions_print_as_they_are_written() -> None:
    assert [str(Condition(number)) for number in range(3)] == ["primary", "replica", "2-replicas"]


@pytest.mark.parametrize(
    ("seen", "met", "text"),
    [
        (view(row("n1", "leader")), True, "n1 is primary"),
        (view(row("n1", "leader"), answers={"n1": RUNNING_PRIMARY}), True, "n1 is primary"),
        (view(row("n1", "leader"), answers={"n1": NO_ANSWER}), False, "n1 is named as leader, but: no answer"),
        (view(row("n1")), False, "nobody leads"),
        (view(row("n1", "standby_leader")), False, "n1 leads a standby cluster"),
        (view(row("n1", "leader", host=None)), False, "n1 leads, but has no address"),
    ],
)
def test_a_primary_counts_when_it_does_not_deny_it(seen: View, met: bool, text: str) -> None:
    verdict = Condition.parse("primary").judge(seen)
    assert (verdict.met, verdict.text) == (met, text)
    assert [m.name for m in verdict.members] == (["n1"] if met else [])


def test_replicas_count_when_reads_may_go_there() -> None:
    seen = view(
        row("n1", "leader"),
        row("n2"),
        row("n3", tags={"noloadbalance": True}),
        row("n4", state="starting"),
        row("n5", lag=10_000_000),
        row("n6"),
        answers={"n6": NO_ANSWER},
    )
    verdict = Condition.parse("2-replicas").judge(seen)
    assert verdict.met
    assert [m.name for m in verdict.members] == ["n2", "n5"]
    close = Condition.parse("2-replicas").judge(seen, max_lag=1_000_000)
    assert not close.met
    assert close.text == "1 of 2 replicas; n6: no answer"
