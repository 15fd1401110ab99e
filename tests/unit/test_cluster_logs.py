from __future__ import annotations

from pathlib import Path

import pytest

from patroni_db.cluster.logs import LogFile, chosen_logs
from patroni_db.errors import ClusterError

LOGS = {name: Path(name) for name in ("etcd", "n1/patroni", "n1/postgres", "n2/patroni", "n2/postgres")}


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ((), list(LOGS)),
        (("etcd",), ["etcd"]),
        (("n2",), ["n2/patroni", "n2/postgres"]),
        (("postgres",), ["n1/postgres", "n2/postgres"]),
        (("n1/patroni", "etcd"), ["etcd", "n1/patroni"]),
    ],
)
def test_a_log_is_named_by_itself_its_node_or_its_program(wanted: tuple[str, ...], meant: list[str]) -> None:
    assert list(chosen_logs(LOGS, wanted)) == meant


def test_an_unknown_log_is_answered_with_those_that_are() -> None:
    with pytest.raises(ClusterError, match=r"no log 'n3' \(logs: etcd, n1/patroni, "):
        chosen_logs(LOGS, ("n1", "n3"))


@pytest.mark.parametrize("count", [0, 1, 3, 2000, 5000])
def test_the_last_lines_are_whole_lines(tmp_path: Path, count: int) -> None:
    path = tmp_path / "log"
    lines = [f"line {number} " + "x" * (number % 97) for number in range(3000)]
    path.write_text("\n".join([*lines, "half a li"]))
    log = LogFile(path)
    assert log.last(count) == (lines[-count:] if count else [])
    with path.open("a") as file:
        file.write("ne\nand ")
    assert log.fresh() == ["half a line"]
    assert log.fresh() == []


def test_a_log_may_begin_later_and_begin_anew(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    assert log.last(5) == log.fresh() == []
    (tmp_path / "log").write_bytes(b"one\r\n\xff\n")
    assert log.fresh() == ["one", "\ufffd"]
    (tmp_path / "log").write_text("two\n")
    assert log.fresh() == ["two"]
