"""The environment as settings: names, forms, defaults, and what production refuses."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.auth_kit import make_settings
from syncbridge.limits import Limits
from syncbridge_server.addresses import Listen, is_loopback, parse_listen, redis_url
from syncbridge_server.configuration.docs import markdown, plain_text, rows
from syncbridge_server.configuration.load import load_settings
from syncbridge_server.durations import clock_duration, parse_duration, short_duration
from syncbridge_server.production import validate_production
from syncbridge_server.settings import (
    ConfigError,
    Settings,
    variable,
)

SPEC_NAMES = {
    "SERVER_ADDR",
    "REDIS_ADDR",
    "REDIS_PASSWORD",
    "REDIS_DB",
    "JWT_SECRET",
    "JWT_REFRESH_SECRET",
    "RTK_API_URL",
    "RTK_API_KEY",
    "RTK_APP_ID",
    "RTK_SECRET_KEY",
    "WORKER_URL",
    "ANALYTICS_URL",
    "ANALYTICS_KEY",
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in rows():
        monkeypatch.delenv(row.name, raising=False)


def test_limits_of_an_empty_environment_are_the_documented_ones() -> None:
    """Nothing set: the limits are those of the catalogue."""
    assert Limits() == load_settings().limits()


def test_names_are_those_of_the_family_or_carry_our_prefix() -> None:
    """Every variable is one of the known names or begins with SYNCBRIDGE_."""
    assert {r.name for r in rows() if not r.name.startswith("SYNCBRIDGE_")} == SPEC_NAMES


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("SERVER_ADDR", "127.0.0.1:1,unix:/x", "server_addr", ("127.0.0.1:1", "unix:/x")),
        ("REDIS_DB", "3", "redis_db", 3),
        ("SYNCBRIDGE_ORIGINS", "https://a, https://b", "origins", ("https://a", "https://b")),
        ("SYNCBRIDGE_ACCESS_TTL", "20m", "access_ttl", 1200.0),
        ("SYNCBRIDGE_DRAIN", "5", "drain", 5.0),
        ("SYNCBRIDGE_RATE_LIMIT_ENABLED", "false", "rate_limit_enabled", False),
        ("SYNCBRIDGE_MAX_DEVICES_PER_SESSION", "2", "max_devices_per_session", 2),
        ("WORKER_URL", "https://x.example/", "worker_url", "https://x.example"),
        ("SYNCBRIDGE_TRUSTED_PROXIES", "10.0.0.0/8", "trusted_proxies", ("10.0.0.0/8",)),
        ("SERVER_ADDR", "", "server_addr", (":8080",)),
        ("REDIS_DB", "", "redis_db", 0),
        ("SYNCBRIDGE_ORIGINS", "", "origins", ()),
    ],
)
def test_variable_becomes_field(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, field: str, value: Any
) -> None:
    """A variable is read in its written form; an empty one counts as unset."""
    monkeypatch.setenv(name, text)

    assert value == getattr(load_settings(), field)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SERVER_ADDR", "8o80"),
        ("SERVER_ADDR", ":99999"),
        ("SERVER_ADDR", "::1:80"),
        ("SERVER_ADDR", "unix:"),
        ("SERVER_ADDR", ","),
        ("REDIS_ADDR", "http://x:1"),
        ("REDIS_ADDR", "host:port"),
        ("REDIS_DB", "-1"),
        ("REDIS_DB", "none"),
        ("SYNCBRIDGE_DRAIN", "soon"),
        ("SYNCBRIDGE_DRAIN", "0"),
        ("SYNCBRIDGE_DRAIN", "-5"),
        ("SYNCBRIDGE_DEPTH", "100000"),
        ("SYNCBRIDGE_WORKERS", "0"),
        ("SYNCBRIDGE_JWT_ALGORITHM", "none"),
        ("SYNCBRIDGE_LOG_FORMAT", "xml"),
        ("SYNCBRIDGE_TRUSTED_PROXIES", "everybody"),
        ("RTK_API_URL", "ftp://x"),
        ("SYNCBRIDGE_REFRESH_TTL", "30d"),
        ("SYNCBRIDGE_CONFLATE_BYTES", "2000000"),
        ("SYNCBRIDGE_PRESENCE_TIMEOUT", "3"),
    ],
)
def test_bad_variable_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """A value that cannot work raises ConfigError, one line with the variable's name."""
    monkeypatch.setenv(name, text)

    with pytest.raises(ConfigError) as caught:
        load_settings()

    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_are_frozen() -> None:
    """A setting cannot be changed after loading."""
    settings = load_settings()

    with pytest.raises(ValueError, match="frozen"):
        settings.redis_db = 3


def test_secrets_do_not_show() -> None:
    """Printing the settings shows no secret."""
    secret = "correct-horse-battery-staple-1234567890"
    settings = make_settings(jwt_secret=secret, redis_password=secret, rtk_secret_key=secret)

    assert secret not in repr(settings) + str(settings.model_dump())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"jwt_secret": ""}, "JWT_SECRET is not set"),
        ({"jwt_refresh_secret": ""}, "JWT_REFRESH_SECRET is not set"),
        ({"jwt_secret": "x" * 31}, "JWT_SECRET is shorter than 32"),
        ({"jwt_refresh_secret": "x" * 31}, "JWT_REFRESH_SECRET is shorter than 32"),
        ({"jwt_secret": "harmony-flow-secret-key"}, "JWT_SECRET is a published example"),
        (
            {"jwt_refresh_secret": "harmony-flow-refresh-secret-key"},
            "JWT_REFRESH_SECRET is a published example",
        ),
        ({"jwt_secret": "s" * 40, "jwt_refresh_secret": "s" * 40}, "they must differ"),
        ({"dev": True}, "SYNCBRIDGE_DEV"),
        ({"tls_cert": "x.pem"}, "go together"),
        ({"tls_cert": "/no/x.pem", "tls_key": "/no/x.pem"}, "cannot read the TLS file /no/x.pem"),
        ({"jwt_algorithm": "RS256"}, "SYNCBRIDGE_JWT_PUBLIC_KEY"),
        ({"rtk_api_url": "https://x"}, "RTK_API_KEY is not set"),
        ({"rtk_api_url": "https://x", "rtk_api_key": "k"}, "RTK_SECRET_KEY is not set"),
        (
            {"rtk_api_url": "https://x", "rtk_api_key": "k", "voice_webhook_secrets": "whsec_!"},
            "SYNCBRIDGE_VOICE_WEBHOOK_SECRETS: the webhook secret is not base64",
        ),
        (
            {
                "voice_provider": "cloudflare",
                "cloudflare_account_id": "a",
                "rtk_api_key": "k",
            },
            "RTK_APP_ID is not set",
        ),
    ],
)
def test_production_refuses(values: dict[str, Any], words: str) -> None:
    """Each unsafe configuration is refused with one line that says which variable."""
    with pytest.raises(ConfigError, match=words) as caught:
        validate_production(make_settings(**values))

    assert "\n" not in str(caught.value)


def test_production_accepts_two_good_secrets() -> None:
    """Two different secrets of 32 bytes are enough."""
    validate_production(make_settings(jwt_secret="a" * 32, jwt_refresh_secret="b" * 32))


def test_voice_is_what_its_provider_needs() -> None:
    """A URL for rtk, an account for cloudflare; several secrets, or the one of the provider."""
    rtk = {"rtk_api_url": "https://x", "rtk_api_key": "k", "rtk_secret_key": "s"}
    account = {"voice_provider": "cloudflare", "cloudflare_account_id": "a"}
    rotating = make_settings(**rtk, voice_webhook_secrets="new, old")

    validate_production(make_settings(**rtk))
    validate_production(make_settings(**account, rtk_api_key="k", rtk_app_id="app"))
    assert [False, True] == [make_settings(**v).voice for v in ({}, rtk)]
    assert [False, True] == [
        make_settings(**v).voice for v in ({"voice_provider": "cloudflare"}, account)
    ]
    assert (("s",), ("new", "old"), ()) == (
        make_settings(**rtk).webhook_secrets(),
        rotating.webhook_secrets(),
        make_settings().webhook_secrets(),
    )
    assert "old" not in repr(rotating)


def test_configuration_page_is_current() -> None:
    """docs/configuration.md is what the settings print."""
    page = Path(__file__).parents[3] / "docs" / "configuration.md"

    assert markdown() == page.read_text("utf-8")


def test_every_setting_is_described_in_both_texts() -> None:
    """Each variable has a description and is on the page and in the help."""
    assert [] == [r.name for r in rows() if not r.text or not r.section]
    assert {variable(name) for name in Settings.model_fields} == {r.name for r in rows()}
    page, text = markdown(), plain_text()
    assert [] == [r.name for r in rows() if f"`{r.name}`" not in page]
    assert [] == [r.name for r in rows() if f"    {r.name}" not in text]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":8080", Listen("0.0.0.0", 8080)),
        ("8080", Listen("0.0.0.0", 8080)),
        ("host:1", Listen("host", 1)),
        ("[::1]:8080", Listen("::1", 8080)),
        ("unix:/run/x.sock", Listen(path="/run/x.sock")),
        ("unix:///run/x.sock", Listen(path="/run/x.sock")),
        ("127.0.0.1:0", Listen("127.0.0.1", 0)),
    ],
)
def test_listen_address(text: str, address: Listen) -> None:
    """Each written form is understood, and its text is understood again."""
    assert address == parse_listen(text)
    assert address == parse_listen(str(address))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:6379", "redis://localhost:6379"),
        ("redis", "redis://redis:6379"),
        ("rediss://u:p@h:1/2", "rediss://u:p@h:1/2"),
        ("unix:///tmp/redis.sock", "unix:///tmp/redis.sock"),
        ("redis+sentinel://a:1,b/s/0", "redis+sentinel://a:1,b/s/0"),
        ("[::1]:6379", "redis://[::1]:6379"),
        ("u:p@h:1", "redis://u:p@h:1"),
    ],
)
def test_redis_url(text: str, url: str) -> None:
    """host:port becomes a URL; a URL stays."""
    assert url == redis_url(text)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    """Only this machine is loopback."""
    assert expected is is_loopback(host)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("15m", 900.0), ("250ms", 0.25), ("7d", 604_800.0), ("1h30m", 5_400.0)],
)
def test_duration(text: str, seconds: float) -> None:
    """Numbers with and without units, also several."""
    assert seconds == parse_duration(text)


@pytest.mark.parametrize("text", ["", "m", "15 minutes", "-1", "1e9", "nan", "15m!", "1" * 40])
def test_bad_duration(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(0, 10**9))
def test_short_duration_reads_back(milliseconds: int) -> None:
    """The short spelling means the same time."""
    seconds = milliseconds / 1000

    assert seconds == pytest.approx(parse_duration(short_duration(seconds)), abs=1e-9)


@pytest.mark.parametrize(
    ("seconds", "text"), [(260_130.9, "72h15m30s"), (240, "4m0s"), (7, "7s"), (0, "0s")]
)
def test_clock_duration(seconds: float, text: str) -> None:
    """Uptime in hours, minutes and seconds."""
    assert text == clock_duration(seconds)
