"""Text from elsewhere in logs and errors: whatever it is, it stays in its line and commands nothing."""

from __future__ import annotations

import ast
import importlib.util
import io
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patroni_db import errors
from patroni_db.cli.exits import DiscoveryFailure, Failure
from patroni_db.escaping import LOGGERS, plain
from patroni_db.etcd_client import EtcdError

HOSTILE = "n1\r\nCRITICAL forged\x1b]0;pwn\x07\x1b[31m\x9b2J\u202e\u2028\x85\x00\ud800"

LOGGING = ("patroni_db", "django_backend", "sqlalchemy_dialect")


@given(st.text())
def test_plain_text_is_one_line_of_printable_characters(text: str) -> None:
    assert plain(text).isprintable()
    if text.isprintable():
        assert plain(text) == text


def test_what_is_escaped_can_be_read() -> None:
    assert plain("a\nb\x1b[31m\u202e") == r"a\nb\x1b[31m\u202e"
    assert plain("größe ☃ 数") == "größe ☃ 数"
    assert plain("connection refused\n\tIs the server running?") == "connection refused Is the server running?"


@pytest.mark.parametrize(
    "error",
    [
        errors.PatroniError(HOSTILE),
        errors.ConfigError("patroni_urls", HOSTILE),
        errors.DiscoveryError(HOSTILE, HOSTILE),
        errors.DiscoveryError.combined([errors.DiscoveryError(HOSTILE, HOSTILE)] * 2),
        errors.NoPrimaryError(HOSTILE),
        errors.NoReplicaError(HOSTILE),
        errors.CommitOutcomeUnknown(HOSTILE),
        errors.CausalTokenError(HOSTILE),
        EtcdError(HOSTILE, HOSTILE),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_text_of_an_error_is_one_plain_line(error: Exception) -> None:
    for shown in (str(error), repr(error), f"{error}"):
        assert shown.isprintable()


def test_the_log_in_an_error_of_a_local_cluster_keeps_its_lines() -> None:
    error = errors.ClusterError("n1 did not start\n\x1b[31mFATAL: no space\n")
    assert str(error).split("\n") == ["n1 did not start", r"\x1b[31mFATAL: no space", ""]


@pytest.mark.parametrize("name", LOGGERS)
@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("%s leads", (HOSTILE,)),
        ("%s", (RuntimeError(HOSTILE),)),
        ("%s and %r, %d, %.1f, %s", (HOSTILE, HOSTILE, 7, 0.5, None)),
        ("%(name)s", ({"name": HOSTILE},)),
        ("nothing to fill in", ()),
    ],
)
def test_no_record_of_the_library_has_more_than_one_line(name: str, message: str, arguments: tuple[Any, ...]) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        logger.warning(message, *arguments)
    finally:
        logger.removeHandler(handler)
    text, end = stream.getvalue()[:-1], stream.getvalue()[-1:]
    assert end == "\n"
    assert text.isprintable()


def test_no_line_of_a_traceback_passes_for_a_record() -> None:
    logger, shown = logging.getLogger(LOGGERS[0]), io.StringIO()
    handler = logging.StreamHandler(shown)
    logger.addHandler(handler)
    error = ValueError(HOSTILE)
    error.__cause__ = RuntimeError(HOSTILE)
    error.add_note(HOSTILE)
    try:
        logger.error("%s failed", "it", exc_info=error)
    finally:
        logger.removeHandler(handler)
    first, *others = shown.getvalue().removesuffix("\n").split("\n")
    assert first == "it failed"
    assert all(line.startswith("  ") and line.isprintable() for line in others)
    assert sum("CRITICAL forged" in line for line in others) == 3


def test_a_record_keeps_what_handlers_group_by(caplog: pytest.LogCaptureFixture) -> None:
    harmless = OSError("refused")
    logging.getLogger(LOGGERS[0]).warning("%s, %d of %s", harmless, 3, "n1")
    (record,) = caplog.records
    assert record.msg == "%s, %d of %s"
    assert record.args == (harmless, 3, "n1")


def test_a_long_text_is_cut_and_an_unprintable_object_named(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    logging.getLogger(LOGGERS[0]).warning("%s%s", "x" * 100_000, Broken())
    assert caplog.messages[0].endswith("x... (100000 characters)<Broken>")
    assert len(caplog.messages[0]) < 5000


def test_every_logger_of_the_library_escapes() -> None:
    named = set()
    for package in LOGGING:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        for path in Path(spec.origin).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("logging.getLogger", "getLogger"):
                    named |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    # The command line hangs a NullHandler on their common parent, to which nobody writes.
    assert {name for name in map(str, named) if name.startswith("patroni_db.")} <= set(LOGGERS)


def test_a_failure_of_the_command_line_is_told_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    failures = [errors.DiscoveryError("http://pg1:8008", HOSTILE)] * 2
    for failure in (Failure(HOSTILE), DiscoveryFailure(errors.DiscoveryError.combined(failures))):
        failure.show()
    lines = capsys.readouterr().err.split("\n")
    assert all(line.isprintable() for line in lines)
    assert sum(line.startswith(("patroni-db: ", "  http://pg1")) for line in lines) == 4
