# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from intergiro_provider.api.settings import ApiSettings, origin_of, read_settings
from intergiro_provider.exceptions import IntergiroValueError

KEY = "c5f90f4b-9d69-416a-8611-8a8c8d605c36"


def read(extra: dict[str, Any] | None = None, **fields: Any) -> ApiSettings:
    given: dict[str, Any] = {"host": None, "port": None, "schema": None, "password": KEY, **fields}
    return read_settings(extra=extra or {}, conn_id="bank", **given)


@pytest.mark.parametrize(
    ("extra", "origin", "version"),
    [
        ({}, "https://3d.intergiro.com", "v3"),
        ({"api": "3d", "environment": "staging"}, "https://3d.staging.intergiro.tech", "v3"),
        ({"api": "2d"}, "https://2d.intergiro.com", "v1"),
        ({"api": "2d", "environment": "staging"}, "https://2d.staging.intergiro.tech", "v1"),
        ({"api": None, "environment": None, "verify": None, "headers": None}, "https://3d.intergiro.com", "v3"),
        ({"api": "", "environment": ""}, "https://3d.intergiro.com", "v3"),
    ],
)
def test_an_empty_host_is_the_one_that_api_and_environment_name(
    extra: dict[str, Any], origin: str, version: str
) -> None:
    settings = read(extra)

    assert settings.origin == origin
    assert settings.url("transactions") == f"{origin}/{version}/transactions"


@pytest.mark.parametrize(
    ("fields", "origin"),
    [
        ({"host": "bank.example"}, "https://bank.example"),
        ({"host": "bank.example", "port": 8443}, "https://bank.example:8443"),
        ({"host": "bank.example:8443"}, "https://bank.example:8443"),
        ({"host": "https://Bank.Example:443/"}, "https://bank.example"),
        ({"host": "http://127.0.0.1:8765"}, "http://127.0.0.1:8765"),
        ({"host": "http://localhost", "port": 8765}, "http://localhost:8765"),
        ({"host": "127.0.0.1", "schema": "http", "port": 80}, "http://127.0.0.1"),
        ({"host": "bank.example", "port": 0}, "https://bank.example"),  # as the form advises for Airflow 3.3.2
        ({"host": "", "port": 0}, "https://3d.intergiro.com"),
        ({"host": "http://[::1]:8765"}, "http://[::1]:8765"),
        ({"host": "HTTPS://3D.INTERGIRO.COM"}, "https://3d.intergiro.com"),
        ({"host": "3D.INTERGIRO.COM", "schema": "HTTPS"}, "https://3d.intergiro.com"),
        ({"host": "HTTP://LOCALHOST", "port": 8765}, "http://localhost:8765"),
        ({"host": "Bücher.example"}, "https://xn--bcher-kva.example"),
        ({"host": "https://bücher.example:8443"}, "https://xn--bcher-kva.example:8443"),
        ({"host": "::1", "schema": "http", "port": 8765}, "http://[::1]:8765"),
    ],
)
def test_a_host_may_be_a_name_or_a_url(fields: dict[str, Any], origin: str) -> None:
    assert read(**fields).origin == origin


@pytest.mark.parametrize(
    ("fields", "extra", "names"),
    [
        ({"password": None}, {}, "password"),
        ({"password": "  "}, {}, "password"),
        ({"password": "kéy"}, {}, "password"),
        ({}, {"api": "4d"}, "`api`"),
        ({}, {"environment": "production"}, "`environment`"),
        ({}, {"environment": 1}, "`environment`"),
        ({"host": "http://bank.example"}, {}, "plain http"),
        ({"host": "bank.example", "schema": "http"}, {}, "plain http"),
        ({"host": "http://127.0.0.1.example.com"}, {}, "plain http"),
        ({"host": "https://bank.example:8443", "port": 8443}, {}, "port"),
        ({"port": 8443}, {}, "port"),
        ({"host": "ftp://bank.example"}, {}, "https"),
        ({"host": "https://user:pw@bank.example"}, {}, "password"),
        ({"host": "https://bank.example/v3"}, {}, "host"),
        ({"host": "https://bank.example:port"}, {}, "port"),
        ({"host": "https://" + "ü" * 80}, {}, "not a valid host name"),
        ({}, {"connect_timeout": 0}, "`connect_timeout`"),
        ({}, {"read_timeout": "soon"}, "`read_timeout`"),
        ({}, {"read_timeout": True}, "`read_timeout`"),
        ({}, {"max_logins_per_hour": 0}, "`max_logins_per_hour`"),
        ({}, {"max_logins_per_hour": 1.5}, "`max_logins_per_hour`"),
        ({}, {"verify": 1}, "`verify`"),
        ({}, {"headers": ["X"]}, "`headers`"),
        ({}, {"headers": "not json"}, "`headers`"),
        ({}, {"headers": {"Authorization": "Bearer x"}}, "Authorization"),
        ({}, {"proxies": {"https": 1}}, "`proxies`"),
        ({}, {"lock_conn_id": 5}, "`lock_conn_id`"),
    ],
)
def test_bad_settings_are_named(fields: dict[str, Any], extra: dict[str, Any], names: str) -> None:
    with pytest.raises(IntergiroValueError) as caught:
        read(extra, **fields)

    assert names in str(caught.value)
    assert "bank" in str(caught.value)
    assert KEY not in str(caught.value)
    assert "user:pw" not in str(caught.value)


def test_the_form_and_uris_give_text_for_numbers_and_booleans() -> None:
    settings = read(
        {
            "connect_timeout": "2.5",
            "read_timeout": "30",
            "max_logins_per_hour": "5",
            "verify": "false",
            "proxies": '{"https": "http://proxy:3128"}',
            "headers": '{"X-Team": "data"}',
        }
    )

    assert settings.timeout == (2.5, 30.0)
    assert settings.max_logins_per_hour == 5
    assert settings.verify is False
    assert settings.proxies == {"https": "http://proxy:3128"}
    assert settings.headers == {"X-Team": "data"}


def test_one_proxy_url_serves_both_schemes_and_a_path_is_a_ca_bundle() -> None:
    settings = read({"proxies": "http://proxy:3128", "verify": "/etc/ssl/bank.pem"})

    assert settings.proxies == {"http": "http://proxy:3128", "https": "http://proxy:3128"}
    assert settings.verify == "/etc/ssl/bank.pem"


def test_names_that_mean_nothing_are_told_and_do_not_become_headers() -> None:
    settings = read({"X-Trace": "staging", "x-anything": "1", "api": "3d"})

    assert settings.unknown_extras == ("X-Trace", "x-anything")
    assert settings.headers == {}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("enviroment", "environment"),
        ("read_timout", "read_timeout"),
        ("env", "environment"),
        ("ENVIRONMENT", "environment"),
        ("Environment", "environment"),
        ("extra__intergiro__environment", "environment"),
        ("extra__http__api", "api"),
        ("staging", "environment"),
        ("API", "api"),
        ("lock-conn-id", "lock_conn_id"),
    ],
)
def test_a_mistyped_name_is_an_error_since_it_could_mean_live(typed: str, meant: str) -> None:
    with pytest.raises(IntergiroValueError, match=f"`{meant}`"):
        read({typed: "staging"})


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("transactions", "/v3/transactions"),
        ("/transactions", "/v3/transactions"),
        ("v3/transactions", "/v3/transactions"),
        ("/v3/transactions", "/v3/transactions"),
        ("/v2/transactions?limit=5", "/v2/transactions?limit=5"),
        ("v10", "/v10"),
        ("venues", "/v3/venues"),
        ("v3x/transactions", "/v3/v3x/transactions"),
        ("https://bank.example/v3/transactions", "/v3/transactions"),
        ("https://bank.example:443/transactions?limit=5", "/v3/transactions?limit=5"),
        ("accounts/a1?return=https://elsewhere.example", "/v3/accounts/a1?return=https://elsewhere.example"),
        ("", "/v3/"),
        (None, "/v3/"),
        ("V3/transactions", "/v3/transactions"),
        ("/V2", "/v2"),
        ("https://BANK.example/V3/transactions", "/v3/transactions"),
        ("transactions/[x]?a=[", "/v3/transactions/[x]?a=["),
    ],
)
def test_endpoints_mean_the_same_in_every_spelling(endpoint: str | None, path: str) -> None:
    assert read(host="bank.example").url(endpoint) == f"https://bank.example{path}"


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://elsewhere.example/v3/transactions",
        "http://bank.example/v3/transactions",
        "https://bank.example:8443/v3/transactions",
        "https://bank.example@elsewhere.example/v3/transactions",
        "//elsewhere.example/v3/transactions",
        "v3/../../auth/login",
        "http://[",
        "//[",
        "https://bank.example:port/x",
        "https://bank.example]/x",
        "https://",
        "transactions\nX: y",
        "transactions\x00",
        "tr\ud800",
        5,
        ["transactions"],
    ],
)
def test_an_endpoint_elsewhere_or_nowhere_is_an_error(endpoint: Any) -> None:
    with pytest.raises(IntergiroValueError, match="endpoint"):
        read(host="bank.example").url(endpoint)


def test_the_session_is_proved_on_another_endpoint_than_the_refused_one() -> None:
    settings = read()

    assert settings.probe_url("/v3/cards").endswith("/v3/individuals")
    assert settings.probe_url("/v3/individuals").endswith("/v3/accounts")
    assert read({"api": "2d"}).probe_url("/v1/transactions").endswith("/v1/accounts")


def test_another_key_or_origin_is_another_fingerprint() -> None:
    assert len({read().key, read(password="other").key, read({"api": "2d"}).key}) == 3
    assert read().key == read({"read_timeout": 5}).key


def test_nothing_secret_is_in_the_repr() -> None:
    text = repr(read({"proxies": "http://user:pw@proxy:3128", "headers": {"X-Key": "hush"}}))

    assert KEY not in text
    assert "pw" not in text
    assert "hush" not in text


def test_origins_have_one_spelling() -> None:
    assert origin_of("HTTPS://Bank.Example:443/x") == origin_of("https://bank.example")
    assert origin_of("no url") == ""
    assert origin_of("https://bank.example:99999999") == ""
