"""Every setting is checked when it is given, and the error names it."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from patroni_db.config import PatroniConfig, split_options
from patroni_db.errors import ConfigError
from patroni_db.selection import Target
from patroni_db.topology import Address

if TYPE_CHECKING:
    from pathlib import Path

URL = "http://pg1:8008"


def config(**settings: Any) -> PatroniConfig:
    return PatroniConfig(**{"urls": URL, **settings})


def test_text_and_values_mean_the_same() -> None:
    text = PatroniConfig.from_options(
        {
            "patroni_urls": "http://pg1:8008, http://pg2:8008/patroni",
            "patroni_target": "replica_preferred",
            "patroni_max_lag": "16MB",
            "patroni_tags": "zone=a,fast=true;zone=b;",
            "patroni_failover_timeout": "90",
            "patroni_refresh": "500ms",
            "patroni_port": "6432",
            "patroni_address_map": "10.0.0.1:5432=localhost:5433",
            "patroni_fallback_hosts": "pg1:5432,[::1]:5433",
            "patroni_allowed_hosts": "10.0.0.0/8,PG1",
            "sslmode": "require",
        }
    )
    values = PatroniConfig(
        urls=["http://pg1:8008", "http://pg2:8008"],
        target=Target.REPLICA_PREFERRED,
        max_lag=16 << 20,
        tags=[{"zone": "a", "fast": "true"}, {"zone": "b"}, {}],
        failover_timeout=90,
        refresh=0.5,
        port=6432,
        address_map={"10.0.0.1:5432": "localhost:5433"},
        fallback_hosts=[Address("pg1", 5432), "[::1]:5433"],
        allowed_hosts=["10.0.0.0/8", "pg1"],
    )
    assert text == values
    assert hash(text) == hash(values)
    assert text.urls == ("http://pg1:8008", "http://pg2:8008")
    assert copy.deepcopy(text) == pickle.loads(pickle.dumps(text)) == text


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("urls", "pg1:8008"),
        ("urls", "ftp://pg1"),
        ("urls", "http://"),
        ("urls", "http://pg1:99999"),
        ("urls", "http://user:secret@pg1:8008"),
        ("urls", "http://pg1:8008?x=1"),
        ("urls", "http://a..b:8008"),
        ("urls", f"http://{'a' * 70}.example.com:8008"),
        ("urls", "http://evil\\x.example.com:8008"),
        ("urls", "http://0x7f.1:8008"),
        ("urls", 5),
        ("urls", [5]),
        ("target", "master"),
        ("max_lag", "16 megs"),
        ("max_lag", -1),
        ("max_lag", True),
        ("tags", "zone"),
        ("tags", ["zone=a"]),
        ("failover_timeout", -1),
        ("failover_timeout", "soon"),
        ("failover_timeout", float("inf")),
        ("failover_timeout", True),
        ("refresh", 0),
        ("timeout", "0s"),
        ("ca", "/nonexistent/ca.pem"),
        ("port", 0),
        ("port", "x"),
        ("port", 65536),
        ("port", 5432.5),
        ("port", True),
        ("port", "\u0665"),
        ("port", "5_432"),
        ("address_map", "10.0.0.1:5432"),
        ("address_map", 5),
        ("fallback_hosts", "pg1"),
        ("fallback_hosts", "/run/postgresql:5432"),
        ("fallback_hosts", "@abstract:5432"),
        ("fallback_hosts", "pg1:\u0665\u0664\u0663\u0662"),
        ("address_map", "10.0.0.1:5432=/var/run/postgresql:5432"),
        ("address_map", {"10.0.0.1:5432": "pg1\x00:5432"}),
        ("allowed_hosts", "*"),
        ("allowed_hosts", "*.example.com:5432"),
        ("allowed_hosts", "pg1;pg2"),
        ("allowed_hosts", "10.0.0.0/33"),
        ("scope", 5),
        ("etcd", "etcd1:2379"),
        ("etcd", "ftp://etcd1"),
        ("etcd", "http://root:secret@etcd1:2379"),
        ("etcd", 5),
        ("namespace", 5),
        ("etcd_ca", "/nonexistent/ca.pem"),
        ("etcd_user", 5),
    ],
)
def test_a_bad_value_names_its_setting(setting: str, value: object) -> None:
    target = "primary" if setting == "target" else "replica"
    with pytest.raises(ConfigError, match=f"^patroni_{setting}: ") as caught:
        PatroniConfig.from_options({"patroni_urls": URL, "patroni_target": target, f"patroni_{setting}": value})
    assert caught.value.setting == f"patroni_{setting}"
    assert "secret" not in str(caught.value)


# What is taken as it is: any text is right.
_FREE_TEXT = {"scope", "tags", "user", "password", "namespace", "etcd_user", "etcd_password"}
_MISTYPED = [
    "http://user:S3CRET@h:8008",
    "http://user:S3C/RET@h:8008",
    "user:S3CRET@h:8008",
    "http:/user:S3CRET@h",
    "http:user:S3CRET@h:8008",
    "https://user:S3CRET@",
    "http://user:S3C#RET@h",
    "http://user:S3C?RET@h",
    "http://user:S3C[RET@h",
    "//user:S3CRET@h",
    "http:\\\\user:S3CRET@h:8008",
    "http://user:S3CRET@h:99999",
    "ftp://user:S3CRET@h",
    "http://user:S3CRET",
    "user:S3CRET",
    "http://user:S3CRET%40h:8008",
    "http://user:S3CRET\uff20h:8008",
    "http://h:8008/?password=S3CRET",
    "http://h:8008/#S3CRET",
    "host=h password=S3CRET",
    "http://user:S3CRET h",
    "-----BEGIN PRIVATE KEY-----\nS3CRET\n-----END PRIVATE KEY-----",
]


@pytest.mark.parametrize("text", _MISTYPED)
@pytest.mark.parametrize("setting", sorted({f.name for f in dataclasses.fields(PatroniConfig)} - _FREE_TEXT))
def test_credentials_in_the_wrong_place_are_never_shown(setting: str, text: str) -> None:
    needed = {"patroni_urls": URL, "patroni_target": "replica", "patroni_etcd": "http://etcd1"}
    for value in (text, [text], [{"x": text}], text.encode()):
        with pytest.raises(ConfigError) as caught:
            PatroniConfig.from_options({**needed, f"patroni_{setting}": value})
        for shown in (str(caught.value), repr(caught.value), str(caught.value.args)):
            assert "S3C" not in shown
            assert "RET" not in shown


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("patroni_url", "patroni_urls"),
        ("patroni_allowed_host", "patroni_allowed_hosts"),
        ("patroni_failovertimeout", "patroni_failover_timeout"),
        ("patroni_max-lag", "patroni_max_lag"),
        ("PATRONI_URLS", "patroni_urls"),
        ("patroniurls", "patroni_urls"),
        ("patroni_passwd", "patroni_password"),
    ],
)
def test_a_misspelled_name_is_told_what_was_meant(given: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{given}: is not a setting: did you mean {meant}\?"):
        PatroniConfig.from_options({"patroni_urls": URL, given: "x"})


NUMBERS = [
    float("nan"),
    float("inf"),
    float("-inf"),
    "nan",
    "inf",
    "1e9",
    "9" * 12,
    "9" * 5000,
    10**400,
    10**5000,
    1e300,
    -1,
    "-1",
    1e-9,
    "0.0001ms",
    "٣",
    True,
]
DURATIONS = ("failover_timeout", "causal_wait", "refresh", "timeout")


@pytest.mark.parametrize("setting", DURATIONS)
@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: repr(value)[:20] if value != 10**5000 else "huge")
def test_a_duration_is_between_a_millisecond_and_a_day(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^patroni_{setting}: ") as caught:
        config(**{setting: value})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("setting", "least"), [(name, "10ms" if name == "refresh" else "1ms") for name in DURATIONS])
def test_the_longest_and_the_shortest_duration_are_accepted(setting: str, least: str) -> None:
    assert getattr(config(**{setting: "1440min"}), setting) == 86400
    assert getattr(config(**{setting: least}), setting) == float(least.removesuffix("ms")) / 1000


@pytest.mark.parametrize("zero", [0, 0.0, "0", "0s", "0ms", " 0.0 "])
def test_a_wait_may_be_zero(zero: float | str) -> None:
    made = config(failover_timeout=zero, causal_wait=zero)
    assert made.failover_timeout == made.causal_wait == 0


@pytest.mark.parametrize("value", [2**64, "9" * 30, "9" * 5000, "16777216TB", 1.5, float("nan")])
def test_a_size_is_what_postgresql_can_count_to(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^patroni_max_lag: ") as caught:
        config(target="replica", max_lag=value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", ["54_32", "٥٤٣٢", 5432.5, float("inf"), "5432x", True])
def test_a_port_is_a_whole_number_in_digits(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^patroni_port: "):
        config(port=value)


def test_an_unknown_name_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"patroni_colour: is not a setting\. There are patroni_urls, "):
        PatroniConfig.from_options({"patroni_colour": URL})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_lag": "1MB"}, "patroni_max_lag"),
        ({"tags": "zone=a"}, "patroni_tags"),
        ({"password": "x"}, "patroni_password"),
        ({"ca": __file__}, "patroni_ca"),
        ({"cert": __file__}, "patroni_cert"),
        ({"key": __file__, "urls": "https://pg1"}, "patroni_key"),
        ({"namespace": "/prod"}, "patroni_namespace"),
        ({"etcd_user": "root", "etcd_password": "x"}, "patroni_etcd_user"),
        ({"etcd_ca": __file__}, "patroni_etcd_ca"),
        ({"etcd": "http://etcd1", "etcd_ca": __file__}, "patroni_etcd_ca"),
        ({"etcd": "http://etcd1", "etcd_cert": __file__}, "patroni_etcd_cert"),
        ({"etcd": "https://etcd1", "etcd_key": __file__}, "patroni_etcd_key"),
        ({"etcd": "https://etcd1", "etcd_user": "root"}, "patroni_etcd_user"),
        ({"etcd": "https://etcd1", "etcd_password": "x"}, "patroni_etcd_password"),
    ],
)
def test_settings_that_contradict_each_other_are_an_error(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"^{named}: "):
        config(**settings)


def test_the_environment_gives_urls_that_were_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATRONI_API_URL", "http://env1:8008,http://env2:8008")
    assert PatroniConfig().urls == ("http://env1:8008", "http://env2:8008")
    assert config().urls == (URL,)
    monkeypatch.delenv("PATRONI_API_URL")
    with pytest.raises(ConfigError, match="patroni_urls: is required"):
        PatroniConfig()


def test_no_secret_appears_in_a_repr() -> None:
    assert "hunter2" not in repr(config(user="u", password="hunter2"))
    assert "hunter2" not in repr(config(etcd="http://etcd1", etcd_user="u", etcd_password="hunter2"))


def test_uses_of_one_cluster_share_a_discovery_whatever_they_use_it_for() -> None:
    writer = config(urls=["http://a", "http://b"])
    reader = config(urls=["http://b", "http://a"], target="replica", max_lag="1MB", failover_timeout=5)
    assert writer.discovery_key == reader.discovery_key
    assert writer.discovery_key != config(urls=["http://a", "http://b"], scope="x").discovery_key


def test_etcd_has_its_own_port_and_the_order_of_its_members_does_not_matter() -> None:
    one = config(etcd="http://etcd1, https://[::1]/, http://etcd2:12379")
    assert one.etcd == ("http://etcd1:2379", "https://[::1]:2379", "http://etcd2:12379")
    assert one.discovery_key == one.replace(etcd=one.etcd[::-1]).discovery_key
    assert one.discovery_key != config().discovery_key
    assert one.discovery_key != one.replace(namespace="prod").discovery_key


@pytest.mark.parametrize(
    ("text", "meant"),
    [(None, "/service"), ("", "/service"), ("service", "/service"), ("/service/", "/service"), ("//a//b/", "/a/b")],
)
def test_a_namespace_is_written_as_patroni_writes_it(text: str | None, meant: str) -> None:
    assert config(etcd="http://etcd1", namespace=text).namespace == meant


def test_existing_files_are_accepted(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    assert config(urls="https://pg1", ca=ca).ca == str(ca)


def test_zero_failover_timeout_means_not_to_wait() -> None:
    assert config(failover_timeout=0).failover_timeout == config(failover_timeout="0").failover_timeout == 0


def test_options_are_split_into_ours_and_the_drivers() -> None:
    assert split_options({"patroni_urls": URL, "sslmode": "require"}) == ({"patroni_urls": URL}, {"sslmode": "require"})
