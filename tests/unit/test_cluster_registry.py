from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from patroni_db.cluster import registry
from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def control(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("c")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        # A relative path: the absolute one may be too long for a socket.
        monkeypatch.chdir(folder)
        listener.bind("control")
        listener.listen()
        yield Path("control")


def test_a_name_leads_to_the_running_cluster(control: Path) -> None:
    registry.publish("demo", control)
    assert registry.control_of("demo") == control
    with pytest.raises(ClusterError, match="'demo' is running already"):
        registry.publish("demo", control)
    with pytest.raises(ClusterError, match="'demo' is running already"):
        registry.require_free("demo")


def test_nothing_remains_of_a_withdrawn_name(control: Path, runtime: Path) -> None:
    registry.publish("demo", control)
    registry.withdraw("demo", Path("/another/cluster"))
    assert registry.control_of("demo") == control
    registry.withdraw("demo", control)
    assert list(runtime.iterdir()) == []
    registry.require_free("demo")


def test_a_name_whose_owner_was_killed_is_free_again(control: Path, runtime: Path) -> None:
    registry.publish("demo", runtime / "gone")
    with pytest.raises(ClusterError, match="no cluster named 'demo' is running"):
        registry.control_of("demo")
    registry.publish("demo", runtime / "gone")
    registry.publish("demo", control)
    assert registry.control_of("demo") == control


def test_whoever_asks_for_a_name_that_is_not_there_is_told_those_that_are(control: Path, runtime: Path) -> None:
    assert registry.running_names() == ()
    with pytest.raises(ClusterError, match=r"no cluster named 'default' is running \(running: none\)"):
        registry.control_of("default")
    for name in ("two", "one"):
        registry.publish(name, control)
    registry.publish("gone", runtime / "gone")
    assert registry.running_names() == ("one", "two")
    with pytest.raises(ClusterError, match=r"no cluster named 'default' is running \(running: one, two\)"):
        registry.control_of("default")


def test_a_damaged_entry_is_forgotten(control: Path) -> None:
    registry.publish("demo", control)
    (registry.folder() / "demo.json").write_text("{")
    registry.publish("demo", control)
    assert registry.control_of("demo") == control


def test_a_folder_that_others_can_write_is_not_trusted(control: Path) -> None:
    registry.folder().mkdir()
    registry.folder().chmod(0o777)
    with pytest.raises(ClusterError, match="does not belong to this user alone"):
        registry.publish("demo", control)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "a\n"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(ClusterError, match="is no name for a cluster"):
        registry.require_free(name)
