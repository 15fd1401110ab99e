"""The command line: its options, messages and exit codes. Nothing is asked over a network but loopback."""

from __future__ import annotations

import contextlib
import json
import os
import socketserver
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from patroni_db import __version__
from patroni_db.cli import app as app_module
from patroni_db.cli import main
from patroni_db.config import ENV_API_URL

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click

# Port 1 (tcpmux) on loopback: nobody listens there.
_REFUSED = "http://127.0.0.1:1"
_COMMANDS = ("status", "watch", "dsn", "wait")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PATRONI_", "PG")):
            monkeypatch.delenv(name)


@contextlib.contextmanager
def one_answer(answer: bytes) -> Iterator[str]:
    """Serve `answer` once or more while the block runs; give the URL."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answer)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def stderr_of(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    return err


# -- Numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e300", "9" * 400])
@pytest.mark.parametrize(
    "command",
    [
        ["demo", "--seconds"],
        ["cluster", "up", "--start-timeout"],
        ["cluster", "fault", "kill-postgres", "--wait"],
        ["wait", "--url", _REFUSED, "--timeout"],
        ["watch", "--url", _REFUSED, "--interval"],
        ["status", "--url", _REFUSED, "--request-timeout"],
        ["prune-markers", "--url", _REFUSED, "--older-than"],
    ],
    ids=" ".join,
)
def test_a_duration_without_sense_names_its_option(
    command: list[str], value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, value]) == 2
    error = stderr_of(capsys)
    assert command[-1] in error
    assert len(error) < 500


# -- Help -----------------------------------------------------------------------------------------------------


def test_help_names_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for word in (*_COMMANDS, "cluster", "demo", "Exit codes", "130", "PATRONI_API_URL"):
        assert word in out


@pytest.mark.parametrize("command", _COMMANDS)
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    for word in ("--url", "--json", "--ca", "--api-user", "PATRONI_PASSWORD", "Exit codes", "no Patroni API"):
        assert word in out
    assert "--password" not in out
    assert "\\b" not in out, "a paragraph was to be left as it is"


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"patroni-db {__version__}\n"


def test_without_arguments_the_help_is_shown_as_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: patroni-db" in capsys.readouterr().err


def test_an_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stauts"]) == 2
    assert "No such command 'stauts'" in stderr_of(capsys)


# -- Wrong settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", _COMMANDS)
def test_nobody_to_ask_is_a_wrong_setting(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 2
    assert stderr_of(capsys) == "patroni-db: --url: is required (or set PATRONI_API_URL)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "pg1"], "--url: 'pg1' is not a URL such as http://10.0.0.1:8008"),
        (
            ["--url", "http://u:hidden@pg1"],
            "--url: credentials do not belong in a URL: use --api-user and PATRONI_PASSWORD",
        ),
        (["--url", _REFUSED, "--ca", "/nowhere"], "--ca: no such file: /nowhere"),
        (["--url", _REFUSED, "--ca", os.devnull], "--ca: needs https:// in every --url"),
        (["--url", "https://pg1", "--key", os.devnull], "--key: needs --cert"),
        (
            ["--url", _REFUSED, "--request-timeout", "soon"],
            "--request-timeout: 'soon' is not a duration in seconds such as 2, 0.5 or 500ms",
        ),
        (["--url", _REFUSED, "--port", "x"], "--port: 'x' is not a port"),
        (["--url", _REFUSED, "--address-map", "x"], "--address-map: 'x' is not host:port"),
    ],
)
@pytest.mark.parametrize("command", _COMMANDS)
def test_a_wrong_option_is_named_in_one_line(
    command: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, *arguments]) == 2
    assert stderr_of(capsys) == f"patroni-db: {message}\n"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (ENV_API_URL, "pg1", "PATRONI_API_URL: 'pg1' is not a URL such as http://10.0.0.1:8008"),
        ("PATRONI_CA", "/nowhere", "PATRONI_CA: no such file: /nowhere"),
        ("PATRONI_TIMEOUT", "-1", "PATRONI_TIMEOUT: '-1' is not a duration in seconds such as 2, 0.5 or 500ms"),
        ("PATRONI_PASSWORD", "hidden", "PATRONI_PASSWORD: needs --api-user"),
    ],
)
def test_a_wrong_variable_is_named_in_one_line(
    variable: str, value: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_API_URL, _REFUSED)
    monkeypatch.setenv(variable, value)
    assert main(["status"]) == 2
    err = stderr_of(capsys)
    assert err == f"patroni-db: {message}\n"
    assert "hidden" not in err


def test_the_option_goes_before_the_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_API_URL, "http://from-the-variable.invalid")
    assert main(["status", "--url", _REFUSED]) == 3
    assert "from-the-variable" not in stderr_of(capsys)


def test_a_port_variable_that_kubernetes_sets_is_not_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATRONI_PORT", "tcp://10.96.0.12:8008")
    assert main(["status", "--url", _REFUSED]) == 3
    assert "PATRONI_PORT" not in stderr_of(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dsn", "--target", "master"], "--target: 'master' is not one of primary,"),
        (["dsn", "--max-lag", "16MB"], "--max-lag: makes no sense with --target=primary"),
        (["dsn", "--target", "replica", "--tags", "zone"], "--tags: 'zone' is not a tag such as zone=a"),
        (["wait", "--timeout", "-1"], "--timeout: '-1' is not a duration"),
        (["wait", "--max-lag", "much"], "--max-lag: 'much' is not a size such as 16MB"),
        (["watch", "--interval", "0"], "--interval: '0' is not more than zero"),
    ],
)
def test_wrong_options_of_single_commands(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--url", _REFUSED]) == 2
    assert stderr_of(capsys).startswith(f"patroni-db: {message}")


@pytest.mark.parametrize("arguments", [["dsn", "--format", "jdbc"], ["wait", "--for", "leader"], ["status", "--nope"]])
def test_what_click_refuses_is_wrong_usage_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--url", _REFUSED]) == 2
    assert "Error: " in stderr_of(capsys)


def test_a_password_is_not_asked_for_where_nobody_sits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.devnull) as nobody:  # noqa: PTH123 - a device, not a path
        monkeypatch.setattr(sys, "stdin", nobody)
        assert main(["dsn", "--with-password", "--url", _REFUSED]) == 2
    assert stderr_of(capsys).startswith("patroni-db: --with-password: PGPASSWORD is not set")


# -- Nobody answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["status", "dsn"])
def test_an_api_that_is_down_is_told_in_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--url", _REFUSED]) == 3
    assert stderr_of(capsys) == f"patroni-db: {_REFUSED}/cluster: Connection refused\n"


def test_each_api_that_is_down_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", f"{_REFUSED},http://127.0.0.1:2", "--url", "http://127.0.0.1:3"]) == 3
    assert stderr_of(capsys).splitlines() == [
        "patroni-db: no Patroni API gave a usable answer",
        "  http://127.0.0.1:1/cluster: Connection refused",
        "  http://127.0.0.1:2/cluster: Connection refused",
        "  http://127.0.0.1:3/cluster: Connection refused",
    ]


@pytest.mark.parametrize("command", ["status", "dsn"])
def test_json_stays_json_when_nobody_answers(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--url", _REFUSED, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["failures"] == [{"url": f"{_REFUSED}/cluster", "reason": "Connection refused"}]


def test_waiting_in_vain_ends_with_1_and_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wait", "--url", _REFUSED, "--timeout", "0.2"]) == 1
    err = stderr_of(capsys)
    assert err.startswith("patroni-db: not there after ")
    assert err.endswith(f"{_REFUSED}/cluster: Connection refused\n")


def test_waiting_in_vain_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wait", "--url", _REFUSED, "--timeout", "0", "--json", "--for", "2-replicas"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["met"] is False
    assert document["conditions"][0]["condition"] == "2-replicas"
    assert "Connection refused" in document["error"]


@pytest.mark.parametrize("command", _COMMANDS)
def test_credentials_in_a_mistyped_url_are_not_shown(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([command, "--url", "http:/app:hush@pg1:8008"]) == 2
    assert "hush" not in stderr_of(capsys)
    monkeypatch.setenv(ENV_API_URL, "http://app:S3C/RET@pg1:8008")
    assert main([command]) == 2
    assert "S3C" not in stderr_of(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["http://app:hush@pg1:8008"],
        ["status", "http://app:hush@pg1:8008"],
        ["status", "http://app:hush"],
        ["wait", "--for", "http://app:hush@pg1"],
        ["dsn", "--format=http://app:hush@pg1"],
        ["status", "--ulr=http://app:hush@pg1:8008"],
    ],
)
def test_a_url_in_the_wrong_place_shows_no_password(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "hush" not in stderr_of(capsys)


@pytest.mark.parametrize("command", ["wait", "watch"])
def test_what_can_never_be_ends_at_once(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with one_answer(b"HTTP/1.0 404 Not Found\r\n\r\n") as url:
        assert main([command, "--url", url]) == 3
        assert f"patroni-db: {url}/cluster: answered with HTTP status 404" in stderr_of(capsys)


# -- The program ----------------------------------------------------------------------------------------------


def test_a_missing_library_of_a_command_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = app_module._Lazy("patroni_db.cli.no_such_module", "nothing", "Nothing.", "cluster")
    monkeypatch.setattr(app_module, "_COMMANDS", {**app_module._COMMANDS, "demo": lazy})
    assert main(["demo", "--any", "word"]) == 2
    assert stderr_of(capsys) == (
        "patroni-db: 'demo' is not available (No module named 'patroni_db.cli.no_such_module'): "
        "pip install 'patroni-db[cluster]'\n"
    )
    assert main(["--help"]) == 0


def test_ctrl_c_ends_with_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_context: click.Context) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app_module.app, "invoke", interrupted)
    assert main(["status"]) == 130
    assert "Traceback" not in capsys.readouterr().err


_WITHOUT = """
import sys
sys.modules.update({name: None for name in sys.argv[1].split(",")})
from patroni_db.cli import main
sys.exit(main(["status"]))
"""


@pytest.mark.parametrize(
    ("missing", "told"), [("click", "click is"), ("rich", "rich is"), ("click,rich", "click and rich are")]
)
def test_without_the_extra_the_program_says_which_to_install(missing: str, told: str) -> None:
    result = subprocess.run([sys.executable, "-c", _WITHOUT, missing], check=False, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stdout == ""
    assert (
        result.stderr == f"patroni-db: {told} not installed; install the extra 'cli': pip install 'patroni-db[cli]'\n"
    )


def test_the_package_runs_as_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "patroni_db", "status", "--url", _REFUSED], check=False, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr == f"patroni-db: {_REFUSED}/cluster: Connection refused\n"


_LIGHT = """
import sys
from patroni_db.cli import main
main(["status", "--url", "http://127.0.0.1:1"])
print(*(name for name in ("patroni_db.cluster", "psycopg", "rich.live", "patroni_db.cli.watch") if name in sys.modules))
"""


def test_status_loads_nothing_of_the_other_commands() -> None:
    result = subprocess.run([sys.executable, "-c", _LIGHT], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == ""
