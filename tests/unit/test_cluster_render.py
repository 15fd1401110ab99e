from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from patroni_db.cluster.addresses import layouts
from patroni_db.cluster.binaries import EtcdBinary, PostgresBinaries
from patroni_db.cluster.certificates import CertificateFiles
from patroni_db.cluster.ipc import segments_of
from patroni_db.cluster.privileges import without_capability
from patroni_db.cluster.render import (
    Credentials,
    dynamic_config,
    environment,
    etcd_command,
    nodes_of,
    patroni_config,
)
from patroni_db.cluster.settings import ClusterSettings

LAYOUT = next(layouts(3, many_addresses=True))
NODES = nodes_of(LAYOUT, Path("/c"), Path("/r"))
CREDENTIALS = Credentials("super-secret", "replication-secret", "rewind-secret", "app-secret", "api-secret")
CERTIFICATES = CertificateFiles(Path("/c"))


def config(version: int = 18, **wishes: object) -> dict[str, object]:
    settings = ClusterSettings(**wishes)  # type: ignore[arg-type]
    postgres = PostgresBinaries(Path("/pg/bin"), version)
    return patroni_config(NODES[1], settings, LAYOUT, "scope", postgres, CREDENTIALS, CERTIFICATES)


def test_nodes_have_usual_ports_on_addresses_of_their_own() -> None:
    assert [node.api_url for node in NODES] == [f"http://127.0.77.{index}:8008" for index in (1, 2, 3)]
    assert {node.port for node in NODES} == {5432}


@pytest.mark.parametrize("many_addresses", [True, False])
def test_no_layout_shares_an_endpoint_with_another(many_addresses: bool) -> None:
    taken: set[tuple[str, int]] = set()
    for layout in islice(layouts(32, many_addresses=many_addresses), 80):
        mine = {layout.lock, *layout.endpoints}
        assert len(mine) == 3 + 2 * 32
        assert not mine & taken
        taken |= mine


def test_the_configuration_is_json_and_names_the_node() -> None:
    rendered = json.loads(json.dumps(config(tags={"n2": {"nofailover": True}})))
    assert rendered["name"] == "n2"
    assert rendered["restapi"]["listen"] == "127.0.77.2:8008"
    assert rendered["etcd3"]["hosts"] == ["127.0.77.100:2379"]
    assert rendered["tags"] == {"nofailover": True}
    assert rendered["postgresql"]["parameters"]["unix_socket_directories"] == "/r/n2"
    assert rendered["postgresql"]["data_dir"] == "/c/n2/data"


def test_no_server_of_the_cluster_trusts_everybody_on_the_machine() -> None:
    rendered = json.loads(json.dumps(config()))
    assert rendered["restapi"]["authentication"] == {"username": "patroni", "password": "api-secret"}
    assert rendered["etcd3"]["protocol"] == "https"
    assert "trust" not in json.dumps(rendered["postgresql"]["pg_hba"])
    assert {"auth-host": "scram-sha-256"} in rendered["bootstrap"]["initdb"]
    command = etcd_command(EtcdBinary(Path("/etcd"), (3, 5)), LAYOUT, Path("/c/etcd"), CERTIFICATES)
    assert {"--client-cert-auth", "--peer-client-cert-auth"} <= set(command)
    assert not any("http://" in word or word.endswith("=*") for word in command)


def test_a_program_without_the_capability_is_called_by_its_own_name_whatever_its_path() -> None:
    assert without_capability("/my pg/postgres", "/usr/bin/setpriv").splitlines() == [
        "#!/bin/sh",
        "exec /usr/bin/setpriv --ambient-caps=-all --inh-caps=-all '/my pg/postgres' \"$@\"",
    ]


def test_wishes_reach_the_dynamic_configuration() -> None:
    dynamic = dynamic_config(
        ClusterSettings(synchronous=True, failsafe=True, primary_start_timeout=300, parameters={"max_connections": 50})
    )
    assert dynamic["synchronous_mode"] is True
    assert dynamic["failsafe_mode"] is True
    assert dynamic["primary_start_timeout"] == 300
    assert dynamic["postgresql"]["parameters"]["max_connections"] == 50
    assert dynamic["postgresql"]["parameters"]["fsync"] == "off"


def test_only_versions_that_know_it_get_the_builtin_locale() -> None:
    assert {"builtin-locale": "C.UTF-8"} in config(17)["bootstrap"]["initdb"]  # type: ignore[index]
    assert {"builtin-locale": "C.UTF-8"} not in config(16)["bootstrap"]["initdb"]  # type: ignore[index]


def test_only_versions_that_know_it_run_without_fsync() -> None:
    new = etcd_command(EtcdBinary(Path("/etcd"), (3, 5)), LAYOUT, Path("/c/etcd"), CERTIFICATES)
    old = etcd_command(EtcdBinary(Path("/etcd"), (3, 4)), LAYOUT, Path("/c/etcd"), CERTIFICATES)
    assert set(new) - set(old) == {"--unsafe-no-fsync"}


def test_servers_do_not_see_the_owners_variables() -> None:
    inherited = {"PATRONI_SCOPE": "x", "PGHOST": "x", "ETCD_NAME": "x", "PYTHONPATH": "x", "PATH": "/x", "TZ": "UTC"}
    seen = environment(Path("/c/n1"), [Path("/pg/bin")], inherited)
    assert seen["TZ"] == "UTC"
    assert seen["PATH"].startswith("/pg/bin:")
    assert not {"PATRONI_SCOPE", "PGHOST", "ETCD_NAME", "PYTHONPATH"} & set(seen)


def test_passwords_are_in_no_repr() -> None:
    assert "secret" not in repr(CREDENTIALS)


def test_only_unused_segments_of_our_own_are_found() -> None:
    table = (
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid\n"
        "   2222834          7   600                    56   101   110      0   999   999   999   999\n"
        "   2222835          8   600                    56   102   110      3   999   999   999   999\n"
        "   2222836          9   600                    56   555   556      0   999   999   999   999\n"
    )
    assert segments_of(table, {101, 102}) == (7,)
    assert segments_of("", {101}) == ()
