from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from patroni_db.cluster import binaries
from patroni_db.cluster.binaries import POSTGRES_PROGRAMS, debian_folders, find_etcd, find_postgres, path_folders
from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    return path


def installation(folder: Path, without: str = "") -> Path:
    for name in POSTGRES_PROGRAMS:
        if name != without:
            program(folder / name)
    return folder


def says(text: str) -> Callable[[Sequence[str]], str]:
    def run(command: Sequence[str]) -> str:
        return text

    return run


POSTGRES_16 = "postgres (PostgreSQL) 16.4 (Debian 16.4-1)\n"
ETCD_35 = "etcd Version: 3.5.21\nGit SHA: a17edfd59\n"


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No wheels and nothing in Debian's folders."""
    monkeypatch.setattr(binaries, "_wheel_folder", lambda *_: None)
    monkeypatch.setattr(binaries, "_DEBIAN", tmp_path / "none")


def test_the_argument_comes_before_the_environment(tmp_path: Path) -> None:
    one, two = installation(tmp_path / "one"), installation(tmp_path / "two")
    environ = {"PATRONI_DB_POSTGRES_BIN": str(two)}
    assert find_postgres(one, environ, says(POSTGRES_16)).directory == one
    found = find_postgres(None, environ, says(POSTGRES_16))
    assert (found.directory, found.version) == (two, 16)


def test_a_named_folder_that_is_not_complete_is_an_error(tmp_path: Path) -> None:
    folder = installation(tmp_path / "bin", without="pg_rewind")
    with pytest.raises(ClusterError, match=r"PATRONI_DB_POSTGRES_BIN: .* has no pg_rewind"):
        find_postgres(None, {"PATRONI_DB_POSTGRES_BIN": str(folder)}, says(POSTGRES_16))
    with pytest.raises(ClusterError, match="postgres_bin: "):
        find_postgres(folder, {}, says(POSTGRES_16))


@pytest.mark.usefixtures("bare_machine")
def test_a_link_on_the_path_leads_to_the_installation(tmp_path: Path) -> None:
    real = installation(tmp_path / "lib" / "16" / "bin")
    links = tmp_path / "bin"
    links.mkdir()
    (links / "postgres").symlink_to(real / "postgres")
    assert find_postgres(None, {"PATH": f"/nowhere:{links}"}, says(POSTGRES_16)).directory == real


@pytest.mark.usefixtures("bare_machine")
def test_nothing_found_names_the_extra_and_what_was_incomplete(tmp_path: Path) -> None:
    alone = program(tmp_path / "alone" / "postgres").parent
    with pytest.raises(ClusterError, match=r"has no initdb.*patroni-db\[cluster\]"):
        find_postgres(None, {"PATH": str(alone)}, says(POSTGRES_16))
    with pytest.raises(ClusterError, match=r"no etcd was found.*patroni-db\[cluster\]"):
        find_etcd(None, {"PATH": str(alone)}, says(ETCD_35))


def test_debian_offers_the_newest_first(tmp_path: Path) -> None:
    for version in ("9.6", "15", "9", "17", "common"):
        (tmp_path / version / "bin").mkdir(parents=True)
    assert [folder.parent.name for folder in debian_folders(tmp_path)] == ["17", "15", "9"]


def test_empty_parts_of_the_path_are_no_folders() -> None:
    assert path_folders("postgres", "::") == ()
    assert path_folders("postgres", None) == ()


def test_etcd_is_named_as_program_or_folder(tmp_path: Path) -> None:
    path = program(tmp_path / "etcd")
    assert find_etcd(tmp_path, {}, says(ETCD_35)).path == path
    assert find_etcd(None, {"PATRONI_DB_ETCD_BIN": str(path)}, says(ETCD_35)).version == (3, 5)


def test_an_etcd_that_is_too_old_is_refused(tmp_path: Path) -> None:
    path = program(tmp_path / "etcd")
    with pytest.raises(ClusterError, match=r"is etcd 3\.3; 3\.4 or newer is needed"):
        find_etcd(path, {}, says("etcd Version: 3.3.27\n"))


def test_something_else_called_postgres_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="does not tell its version"):
        find_postgres(installation(tmp_path), {}, says("hello"))
