"""``patroni-db prune-markers``: what it refuses, and what it says."""

from __future__ import annotations

import pytest

from patroni_db.cli import main


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--older-than", "soon"], "--older-than: 'soon' is no age"),
        (["--older-than", "59m"], "--older-than: 59m is less than 1h"),
        (["--timeout", "-1"], "--timeout: '-1' is not a duration"),
    ],
)
def test_a_wrong_setting_is_named(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune-markers", "--url", "http://127.0.0.1:1", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err


def test_without_a_primary_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune-markers", "--url", "http://127.0.0.1:1", "--timeout", "0.2"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("patroni-db: no primary within 0.2 s")


def test_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune-markers", "--help"]) == 0
    out = capsys.readouterr().out
    for word in ("--older-than", "PGPASSWORD", "--json", "--url", "Exit codes"):
        assert word in out
