"""System checks of what the settings say of reading what was written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from django_backend.checks import check_reads
from django_backend.router import PrimaryReplicaRouter

CAUSAL = "django_backend.causal_middleware.CausalMiddleware"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
OTHER = "django.middleware.common.CommonMiddleware"


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("document", ["README.md", "docs/django.md"])
def test_the_documented_settings_are_clean(tmp_path: Path, document: str) -> None:
    if not (ROOT / document).exists():
        pytest.skip("the wheel is tested, without the documents")
    done = check(tmp_path, documented_settings(document))
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "System check identified no issues (0 silenced).\n",
        "",
    )


def test_a_misspelled_setting_is_a_message_and_not_a_traceback(tmp_path: Path) -> None:
    if not (ROOT / "docs").exists():
        pytest.skip("the wheel is tested, without the documents")
    settings = documented_settings("docs/django.md").replace("patroni_urls", "patroni_url")
    done = check(tmp_path, settings, "--database", "default")  # as `migrate` does, and Django 6.1 for itself
    told = "(patroni.E001) DATABASES['default']['OPTIONS']: patroni_url: is not a setting: did you mean patroni_urls?\n"
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


def documented_settings(document: str) -> str:
    found = re.findall(r"```python\n([^`]*INSTALLED_APPS \+= [^`]*)```", (ROOT / document).read_text())
    assert len(found) == 1
    return str(found[0])


def check(folder: Path, settings: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run ``manage.py check`` in a new project with these settings at the end of its own."""
    call_command("startproject", "site_of_somebody", folder)
    with (folder / "site_of_somebody" / "settings.py").open("a") as file:
        file.write(settings)
    words = [sys.executable, "manage.py", "check", "--fail-level", "INFO", *options]
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "site_of_somebody.settings"}  # not that of these tests
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def ids(*, routed: bool = True, partners: bool = True) -> list[str | None]:
    routers = [PrimaryReplicaRouter()] if routed else []
    return [message.id for message in check_reads({"replica": "default"} if partners else {}, routers)]


def test_nothing_is_said_of_settings_that_fit(settings: Any) -> None:
    settings.MIDDLEWARE = []
    assert ids() == []
    settings.MIDDLEWARE = [OTHER, CAUSAL, SESSIONS]
    settings.PATRONI_CAUSAL_COOKIE = None
    settings.PATRONI_CAUSAL_HEADER = "X-Token"
    settings.PATRONI_CAUSAL_MAX_AGE = 60
    assert ids() == []
    settings.MIDDLEWARE = [OTHER]
    assert ids(partners=False) == []
    assert ids(routed=False) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATRONI_CAUSAL_COOKIE", ""),
        ("PATRONI_CAUSAL_HEADER", 7),
        ("PATRONI_CAUSAL_MAX_AGE", 0),
        ("PATRONI_CAUSAL_MAX_AGE", "60"),
        ("PATRONI_CAUSAL_MAX_AGE", True),
    ],
)
def test_a_wrong_setting_is_named(settings: Any, name: str, value: object) -> None:
    setattr(settings, name, value)
    (message,) = check_reads({}, [])
    assert message.id == "patroni.E006"
    assert name in message.msg


@pytest.mark.parametrize(
    ("middleware", "routed", "told"),
    [
        ([OTHER], True, "patroni.W008"),
        ([SESSIONS, CAUSAL], True, "patroni.W009"),
        ([CAUSAL, SESSIONS], False, "patroni.W009"),
    ],
)
def test_middleware_that_is_missing_or_misplaced(settings: Any, middleware: list[str], routed: bool, told: str) -> None:
    settings.MIDDLEWARE = middleware
    assert ids(routed=routed) == [told]
