"""Connection strings mean the same to libpq's own parser, whatever is in their parts."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from patroni_db import Address, Target
from patroni_db.cli.connection_string import Form, connection_string
from patroni_db.libpq import session_attrs

_N1 = Address("10.0.0.1", 5432)
_N2 = Address("fe80::1", 5433)
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


def test_a_uri_for_people() -> None:
    assert (
        connection_string(Form.URI, [_N1], target=Target.PRIMARY, dbname="app", user="app")
        == "postgresql://app@10.0.0.1:5432/app?target_session_attrs=read-write"
    )


def test_nothing_is_said_that_was_not_given() -> None:
    assert connection_string(Form.URI, [_N1], target=Target.ANY) == "postgresql://10.0.0.1:5432/"
    assert connection_string(Form.LIBPQ, [_N1], target=Target.ANY) == "host=10.0.0.1 port=5432"
    assert connection_string(Form.ENV, [_N1], target=Target.ANY) == "export PGHOST=10.0.0.1\nexport PGPORT=5432"


@pytest.mark.parametrize(
    ("target", "attrs"),
    [
        (Target.PRIMARY, "read-write"),
        (Target.PRIMARY_PREFERRED, None),
        (Target.REPLICA, "standby"),
        (Target.REPLICA_PREFERRED, "prefer-standby"),
        (Target.ANY, None),
    ],
)
@pytest.mark.parametrize("form", [Form.URI, Form.LIBPQ])
def test_libpq_proves_the_role(target: Target, attrs: str | None, form: Form) -> None:
    assert session_attrs(target) == attrs
    parsed = conninfo_to_dict(connection_string(form, [_N1], target=target))
    assert parsed.get("target_session_attrs") == attrs


@pytest.mark.parametrize("form", [Form.URI, Form.LIBPQ])
def test_several_servers_keep_their_order_and_ports(form: Form) -> None:
    parsed = conninfo_to_dict(connection_string(form, [_N2, _N1], target=Target.REPLICA))
    assert (parsed["host"], parsed["port"]) == ("fe80::1,10.0.0.1", "5433,5432")


@pytest.mark.parametrize("form", [Form.URI, Form.LIBPQ])
def test_a_member_with_two_hosts_in_one_text_has_its_port_on_both(form: Form) -> None:
    parsed = conninfo_to_dict(connection_string(form, [Address("a,b", 6000), _N1], target=Target.ANY))
    assert (parsed["host"], parsed["port"]) == ("a,b,10.0.0.1", "6000,6000,5432")


@given(form=st.sampled_from([Form.URI, Form.LIBPQ]), dbname=_TEXT, user=_TEXT, password=_TEXT)
def test_libpq_reads_back_what_was_put_in(form: Form, dbname: str, user: str, password: str) -> None:
    text = connection_string(form, [_N1, _N2], target=Target.PRIMARY, dbname=dbname, user=user, password=password)
    parsed: dict[str, Any] = conninfo_to_dict(text)
    assert (parsed["dbname"], parsed["user"], parsed["password"]) == (dbname, user, password)
    assert (parsed["host"], parsed["port"]) == ("10.0.0.1,fe80::1", "5432,5433")


def test_a_shell_reads_back_what_was_put_in() -> None:
    nasty = 'it\'s $HOME `id` "x" \\ !'
    text = connection_string(Form.ENV, [_N1, _N2], target=Target.REPLICA, dbname="app", user=nasty, password=nasty)
    script = f'{text}\nprintf "%s|" "$PGHOST" "$PGPORT" "$PGDATABASE" "$PGUSER" "$PGPASSWORD" "$PGTARGETSESSIONATTRS"'
    result = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True)  # noqa: S607
    assert result.stdout == f"10.0.0.1,fe80::1|5432,5433|app|{nasty}|{nasty}|standby|"
    assert all(len(shlex.split(line)) == 2 for line in text.splitlines())
