"""Every number and address that an operator can set: the environment as one frozen object.

A field's name is its variable, `SYNCBRIDGE_` in front, except for the names that deployments of
this family of services already use (`SERVER_ADDR`, `REDIS_ADDR`, `JWT_SECRET`, ...). The
description of each field is the only documentation of it: `syncbridge serve --help` and
`docs/configuration.md` are printed from here (`settings_docs`).
"""

import os
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from syncbridge.limits import Limits
from syncbridge.voice.provider.signatures import secret_bytes
from syncbridge_server.addresses import Listen, parse_listen, redis_url
from syncbridge_server.durations import parse_duration

EXAMPLE_SECRETS = frozenset({"harmony-flow-secret-key", "harmony-flow-refresh-secret-key"})
MIN_SECRET_BYTES = 32


class ConfigError(Exception):
    """The configuration cannot work. The message is one line and holds no secret."""


_ORDERED = (
    ("access_ttl", "max_token_life"),
    ("refresh_ttl", "max_token_life"),
    ("conflate_bytes", "outbox_bytes"),
    ("heartbeat_interval", "presence_timeout"),
    ("value_bytes", "state_bytes"),
    ("voice_max_age", "voice_ttl"),
    ("voice_pool_ttl", "voice_ttl"),
    ("voice_idle_unjoined", "voice_ttl"),
    ("voice_breaker_open", "voice_breaker_longest"),
)


_RATES = (
    "messages_per_second",
    "message_burst",
    "flood_messages",
    "user_messages_per_second",
    "user_message_burst",
    "requests_per_second",
    "request_burst",
    "handshakes_per_second",
    "handshake_burst",
    "unauthenticated_per_address",
)


def _words(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value


def _seconds(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _public_url(value: str) -> str:
    if value and urlsplit(value).scheme not in ("http", "https"):
        raise ValueError("write an http:// or https:// URL")
    return value.rstrip("/")


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        ip_network(text, strict=False)
    return value


def _listen_texts(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("at least one address is needed")
    return tuple(text for text in value if parse_listen(text))


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=31_622_400)]
SecondsOrZero = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=31_622_400)]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(gt=0, le=2**31 - 1)]
Bytes = Annotated[int, Field(gt=0, le=2**30)]
Url = Annotated[str, AfterValidator(_public_url)]


def _spec(name: str, default: Any, text: str) -> Any:
    """A field whose variable has no prefix."""
    return Field(default, validation_alias=name, description=text)


def _set(default: Any, text: str, **bounds: Any) -> Any:
    return Field(default, description=text, **bounds)


class Settings(BaseSettings):
    """The configuration of one server process."""

    model_config = SettingsConfigDict(
        env_prefix="SYNCBRIDGE_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    # Server
    server_addr: Annotated[Words, AfterValidator(_listen_texts)] = _spec(
        "SERVER_ADDR",
        (":8080",),
        "Where to listen: host:port, :port or unix:/path; several are separated by commas.",
    )
    tls_cert: str = _set("", "File with the TLS certificate chain (PEM). With it, TLS is spoken.")
    tls_key: str = _set("", "File with the private key of the certificate (PEM).")
    workers: Count = _set(1, "Server processes that share the addresses.", le=256)
    data_dir: str = _set(".syncbridge", "Directory of the embedded Redis and of generated secrets.")
    origins: Words = _set(
        (),
        "Origins whose pages may open sockets and read answers (CORS), such as"
        " https://app.example.com; * for any. Empty: pages of this host only, and for"
        " `syncbridge dev` those of this machine on any port. Callers that send no Origin are not"
        " browsers and may connect.",
    )
    trusted_proxies: Annotated[Words, AfterValidator(_networks)] = _set(
        (), "Addresses or networks whose X-Forwarded-For is believed, such as 10.0.0.0/8."
    )
    max_connections: int = _set(
        65_536,
        "Open WebSockets of one process; 0: no bound. At the bound the one that has not sent AUTH"
        " for longest gives way to a new one; else 503.",
        ge=0,
    )
    drain: Seconds = _set(30.0, "Time for a shutdown: sockets are told to reconnect meanwhile.")
    reconnect_spread: SecondsOrZero = _set(
        15.0, "Window over which sockets are asked to come back after a shutdown."
    )
    http_body_bytes: Bytes = _set(65_536, "Largest body of a request that names no other bound.")
    http_timeout: Seconds = _set(
        30.0,
        "What clients and proxies wait for an answer: those that take several calls of the"
        " voice provider are given up after 80 % of it. The store has its own deadline.",
    )
    http2_prior_knowledge: bool = _set(
        False,
        "Whether plain connections may speak HTTP/2 from their first byte, as gRPC proxies do."
        " With TLS, HTTP/2 is agreed on by ALPN; Upgrade: h2c is never followed.",
    )
    http_root_path: str = _set("", "Path under which a proxy shows this server, such as /sync.")
    http_header_bytes: Annotated[int, Field(ge=1_024, le=1_048_576)] = _set(
        16_384, "Largest request head; above it 431."
    )
    http_header_count: Count = _set(100, "Header fields of an HTTP/1.1 request; above it 431.")
    http_target_bytes: Bytes = _set(8_192, "Longest HTTP/1.1 target; above it 414.")
    http_max_body: Bytes = _set(
        4_194_304, "Largest body that is read, whatever the route; above it 413."
    )
    http_header_timeout: Seconds = _set(10.0, "A request head must have arrived within; else 408.")
    http_body_timeout: Seconds = _set(10.0, "A request body may pause for so long; else 408.")
    http_body_rate: Count = _set(1_024, "Bytes a second at which a body must come, on the whole.")
    http_keep_alive: Seconds = _set(15.0, "An idle HTTP connection is closed after this time.")
    http_handshakes: Count = _set(
        1_024,
        "Connections that have not sent their first request yet. At the bound the one that has been"
        " silent or slow for longest gives way to a new one.",
    )
    http_requests: Count = _set(
        1_024,
        "HTTP requests worked on at the same time. At the bound the one whose body is slowest gives"
        " way to a new one; else 503.",
    )
    http_connections: Count = _set(
        4_096,
        "HTTP and TLS connections. At the bound the one that waits for its client for longest, for"
        " a request or within one, gives way to a new one; else 503.",
    )
    http_reserve: Count = _set(
        64,
        "Connections, and again requests, above these bounds that are kept for health and metrics.",
    )
    admin_update: Seconds = _set(5.0, "Between two ADMIN_UPDATE messages to admin sockets.")

    # Redis
    redis_addr: str = _spec(
        "REDIS_ADDR",
        "",
        "host:port, or a redis://, rediss:// or unix:// URL. Unset: a private Redis is started.",
    )
    redis_password: SecretStr = _spec("REDIS_PASSWORD", SecretStr(""), "Password of Redis.")
    redis_db: Annotated[int, Field(ge=0, le=65_535)] = _spec(
        "REDIS_DB", 0, "Number of the Redis database."
    )
    store_deadline: Seconds = _set(2.0, "A Redis command without an answer for so long has failed.")
    store_queue: Count = _set(65_536, "Commands that may wait for Redis; more are refused.")

    # Tokens
    jwt_secret: SecretStr = _spec(
        "JWT_SECRET", SecretStr(""), "Secret that signs access tokens, 32 bytes or more."
    )
    jwt_refresh_secret: SecretStr = _spec(
        "JWT_REFRESH_SECRET",
        SecretStr(""),
        "Secret that signs refresh tokens, 32 bytes or more, and not the same one.",
    )
    jwt_algorithm: Literal["HS256", "RS256", "ES256"] = _set(
        "HS256", "How access tokens are signed. Tokens signed in any other way are refused."
    )
    jwt_public_key: str = _set("", "RS256, ES256: public key, as PEM text or the path of a file.")
    jwt_private_key: SecretStr = _set(
        SecretStr(""), "RS256, ES256: private key (PEM text or path); without it none are issued."
    )
    jwt_jwks_url: Url = _set("", "RS256, ES256: URL of the issuer's key set (JWKS).")
    jwt_issuer: str = _set("", "When set, access tokens must name it as `iss`.")
    jwt_audience: str = _set("", "When set, access tokens must name it in `aud`.")
    access_ttl: Seconds = _set(900.0, "Life of an access token.")
    refresh_ttl: Seconds = _set(604_800.0, "Life of a refresh token.")
    max_token_life: Seconds = _set(
        604_800.0, "A token that lives longer than this is refused; revocations are kept so long."
    )
    token_leeway: SecondsOrZero = _set(60.0, "Difference between clocks that is forgiven.", le=600)
    token_bytes: Bytes = _set(4_096, "Largest token that is looked at.")
    token_cache: Count = _set(16_384, "Verified tokens that are remembered.")
    revocation_fail_open: bool = _set(
        False, "Accept tokens although the revocation list could not be read since the start."
    )

    # Rate limits
    rate_limit_enabled: bool = _set(True, "Hold connections and callers to the rates below.")
    messages_per_second: Count = _set(50, "Messages of one WebSocket, lasting rate.")
    message_burst: Count = _set(100, "Messages of one WebSocket at once.")
    flood_messages: Count = _set(200, "Messages above the rate after which the socket is closed.")
    user_messages_per_second: Count = _set(
        200, "Messages of one user over all of their WebSockets on a node, lasting rate."
    )
    user_message_burst: Count = _set(400, "Messages of one user over all WebSockets at once.")
    handshakes_per_second: Count = _set(
        100, "WebSocket handshakes of one address, lasting rate. This machine is not bounded."
    )
    handshake_burst: Count = _set(500, "WebSocket handshakes of one address at once.")
    unauthenticated_per_address: Count = _set(
        256, "WebSockets of one address that have not sent AUTH yet."
    )
    requests_per_second: Count = _set(100, "HTTP requests of one caller, lasting rate.")
    request_burst: Count = _set(200, "HTTP requests of one caller at once.")
    webhooks_per_second: Count = _set(
        2_000, "Webhooks of one address, lasting rate; more are asked to come again."
    )
    webhook_burst: Count = _set(10_000, "Webhooks of one address at once.")

    # Sockets
    auth_timeout: Seconds = _set(10.0, "A socket that did not send AUTH in time is closed.")
    heartbeat_interval: Seconds = _set(25.0, "Between two pings to a socket.")
    presence_timeout: Seconds = _set(120.0, "A device silent for so long is offline.")
    close_timeout: Seconds = _set(5.0, "Time for the other end to answer a close frame.")
    expiry_warning: SecondsOrZero = _set(
        60.0, "A socket is warned so long before its token expires."
    )
    expiry_grace: SecondsOrZero = _set(
        25.0, "A socket is closed so long after its token has expired."
    )
    message_bytes: Bytes = _set(65_536, "Largest message from a socket.")
    outbox_bytes: Bytes = _set(1_048_576, "Bytes that may wait for one slow reader.")
    conflate_bytes: Bytes = _set(
        262_144, "From so many waiting bytes on, state changes are folded into the newest."
    )

    ws_compression: bool = _set(
        True, "Agree to compression (permessage-deflate) with sockets that offer it."
    )
    ws_compression_min_bytes: Bytes = _set(
        256, "Messages to sockets are compressed from this size on."
    )

    # Sessions
    snapshot_bytes: Bytes = _set(1_048_576, "Largest body of POST /session/snapshot.")
    state_bytes: Bytes = _set(1_048_576, "Largest state of a session.")
    state_keys: Count = _set(2_000, "Keys in the state of a session.")
    key_bytes: Bytes = _set(256, "Longest key.")
    value_bytes: Bytes = _set(262_144, "Largest value of one key.")
    depth: Annotated[int, Field(gt=0, le=512)] = _set(64, "Deepest nesting of a value.")
    number_bytes: Bytes = _set(64, "Longest number, in characters.")
    max_changes: Count = _set(256, "Keys changed by one update.")
    max_devices_per_session: Count = _set(32, "Devices of one session.")
    id_bytes: Annotated[int, Field(ge=36, le=256)] = _set(64, "Longest user id or device id.")
    session_ttl: Seconds = _set(
        604_800.0, "A session is forgotten so long after its last write or connected device."
    )
    handoff_ttl: Seconds = _set(300.0, "Life of a handoff token.")
    handoff_reread: SecondsOrZero = _set(
        30.0, "The target device may read its answer again so long."
    )
    idempotency_ids: Count = _set(512, "Mutation ids remembered for a session.")
    tombstones: Count = _set(256, "Deleted keys remembered for a session.")
    freeze_after: SecondsOrZero = _set(
        600.0, "A state is stored compressed after so long without a write or device; 0: never."
    )
    freeze_bytes: Bytes = _set(4_096, "Smallest state that is stored compressed.")

    # Call sessions
    call_ttl: Seconds = _set(604_800.0, "A call session is forgotten so long after its last write.")
    call_details_bytes: Bytes = _set(65_536, "Largest details of a call session, as JSON.")

    # Voice
    voice_provider: Literal["rtk", "cloudflare"] = _set(
        "rtk", "What the voice provider speaks: the REST API of RTK_API_URL, or RealTimeKit."
    )
    rtk_api_url: Url = _spec(
        "RTK_API_URL",
        "",
        "Base URL of the voice provider. Unset: no voice; for cloudflare, its public address.",
    )
    rtk_api_key: SecretStr = _spec("RTK_API_KEY", SecretStr(""), "API key of the voice provider.")
    rtk_app_id: str = _spec("RTK_APP_ID", "", "Our application's id at the voice provider.")
    rtk_secret_key: SecretStr = _spec(
        "RTK_SECRET_KEY", SecretStr(""), "Secret of the voice provider's tokens and webhooks."
    )
    voice_webhook_secrets: SecretStr = _set(
        SecretStr(""),
        "rtk: secrets any of which may sign webhooks, for rotation. Unset: RTK_SECRET_KEY.",
    )
    cloudflare_account_id: str = _set(
        "", "cloudflare: the account of our application. Unset: no voice."
    )
    cloudflare_keys_url: Url = _set(
        "https://api.realtime.cloudflare.com/.well-known/webhooks.json",
        "cloudflare: where the public key of its webhooks is.",
    )
    worker_url: Url = _spec("WORKER_URL", "", "Our public base URL, told to the voice provider.")
    analytics_url: Url = _spec("ANALYTICS_URL", "", "Where voice metrics are sent. Unset: nowhere.")
    analytics_key: SecretStr = _spec("ANALYTICS_KEY", SecretStr(""), "Key for the analytics URL.")
    voice_deadline: Seconds = _set(5.0, "A provider request fails after this time.", le=25)
    voice_retry: Seconds = _set(
        10.0, "What the voice provider did not do is asked again after; longer each time."
    )
    voice_requests_per_minute: Count = _set(
        210,
        "Requests to the voice provider, lasting rate of all processes of this machine. With the"
        " burst no more than 1,200 in 5 minutes; several machines have to share that.",
    )
    voice_request_burst: Count = _set(150, "Requests to the voice provider at once.")
    voice_max_participants: Annotated[int, Field(gt=0, le=1_000)] = _set(
        100, "Participants of a voice channel."
    )
    voice_recording: bool = _set(False, "Record every call whose channel does not say otherwise.")
    voice_transcription: bool = _set(
        False, "Have every call transcribed whose channel does not say otherwise."
    )
    voice_token_ttl: Seconds = _set(
        3_600.0, "Life of a voice token, as far as the provider lets us choose it."
    )
    voice_tokens_per_minute: Count = _set(
        30, "Voice tokens that a user may ask for, lasting rate of a process."
    )
    voice_token_burst: Count = _set(10, "Voice tokens that a user may ask for at once.")
    voice_seat: Seconds = _set(60.0, "A seat is kept so long for who was given a voice token.")
    voice_max_age: SecondsOrZero = _set(
        86_400.0, "A call that is so long in one session is migrated to another; 0: never."
    )
    voice_migration: Seconds = _set(30.0, "Time for participants to come over in a migration.")
    voice_pool_uses: Annotated[int, Field(ge=0, le=1_000)] = _set(
        10, "A channel with so many calls a day keeps its session for the next one; 0: none does."
    )
    voice_pool_ttl: Seconds = _set(3_600.0, "A session is kept so long for the next call.")
    voice_prewarm: SecondsOrZero = _set(
        60.0, "The session of a scheduled event is opened so long before it begins."
    )
    voice_ttl: Seconds = _set(
        604_800.0, "A voice channel is forgotten so long after its last change."
    )
    voice_idle_unjoined: Seconds = _set(900.0, "A voice session that nobody joined ends then.")
    voice_idle_left: Seconds = _set(300.0, "A voice session that everybody left ends then.")
    voice_sync: Seconds = _set(30.0, "Between two comparisons with the voice provider.")
    voice_sync_share: Share = _set(0.4, "Part of the request budget that comparisons may use.")
    voice_sync_stale: Seconds = _set(
        300.0,
        "A call that agrees with the provider's list is looked at all the same after so long.",
    )
    voice_monitor: Seconds = _set(60.0, "Between two measurements of all calls.")
    voice_monitor_share: Share = _set(0.1, "Part of the request budget that measurements may use.")
    voice_attempts: Annotated[int, Field(gt=0, le=10)] = _set(
        3, "How often a request to the voice provider is sent that had no answer."
    )
    voice_breaker_failures: Count = _set(
        5, "Failures in a row after which the voice provider is not asked for a while."
    )
    voice_breaker_open: Seconds = _set(5.0, "First pause of the breaker, at most.")
    voice_breaker_longest: Seconds = _set(60.0, "Longest pause of the breaker.")
    analytics_queue: Count = _set(10_000, "Voice metrics that may wait; the oldest are dropped.")
    analytics_deadline: Seconds = _set(5.0, "Sending voice metrics fails after this time.")
    speaking_interval: Seconds = _set(0.25, "Least time between two speaking changes of a person.")
    speaking_timeout: Seconds = _set(2.0, "Speaking ends when it is not reported again in time.")
    webhook_tolerance: Seconds = _set(300.0, "Largest age of a signed webhook.")
    webhook_bytes: Bytes = _set(65_536, "Largest body of a webhook.")
    webhooks_waiting: Count = _set(
        100_000, "Webhooks that may wait to take effect; further ones are refused with 503."
    )
    dead_letters: Count = _set(
        10_000, "Webhooks that could not be taken in are kept; the oldest make room."
    )
    recording_ttl: Seconds = _set(604_800.0, "The address of a recording is kept so long.")

    # Logging
    log_format: Literal["console", "json"] = _set("json", "How log lines look.")
    log_level: Literal["debug", "info", "warning", "error"] = _set("info", "Least level logged.")
    access_log: bool = _set(True, "One line for each HTTP request.")

    # Development
    dev: bool = _set(
        False,
        "Development mode: callers from this machine act as admin without a token."
        " `syncbridge dev` sets it; `syncbridge serve` refuses it.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuse numbers that contradict each other; each line names the variables."""
        for small, large in _ORDERED:
            if getattr(self, small) > getattr(self, large):
                raise ValueError(f"{variable(small)} must not be above {variable(large)}")
        return self

    def listen_addresses(self) -> tuple[Listen, ...]:
        """The parsed SERVER_ADDR."""
        return tuple(parse_listen(text) for text in self.server_addr)

    def redis_url(self) -> str:
        """REDIS_ADDR as a URL without the password; "" for the embedded Redis."""
        return redis_url(self.redis_addr) if self.redis_addr else ""

    @property
    def voice(self) -> bool:
        """Whether a voice provider is configured."""
        if self.voice_provider == "cloudflare":
            return bool(self.cloudflare_account_id)
        return bool(self.rtk_api_url)

    def webhook_secrets(self) -> tuple[str, ...]:
        """Secrets any of which may have signed a webhook of the `rtk` provider."""
        written: tuple[str, ...] = _words(self.voice_webhook_secrets.get_secret_value())
        secret = self.rtk_secret_key.get_secret_value()
        return written or ((secret,) if secret else ())

    def limits(self) -> Limits:
        """The numbers that the rules enforce and that AUTH_SUCCESS reports."""
        return Limits(
            message_bytes=self.message_bytes,
            snapshot_bytes=self.snapshot_bytes,
            state_bytes=self.state_bytes,
            state_keys=self.state_keys,
            key_bytes=self.key_bytes,
            value_bytes=self.value_bytes,
            depth=self.depth,
            number_bytes=self.number_bytes,
            changes=self.max_changes,
            devices=self.max_devices_per_session,
            id_bytes=self.id_bytes,
            **self._rates(),
            connections=self.max_connections,
            outbox_bytes=self.outbox_bytes,
            conflate_bytes=self.conflate_bytes,
            heartbeat_interval_ms=round(self.heartbeat_interval * 1000),
            presence_timeout=round(self.presence_timeout),
            auth_timeout=round(self.auth_timeout),
            session_ttl=round(self.session_ttl),
            expiry_grace=round(self.expiry_grace),
            expiry_warning=round(self.expiry_warning),
            idempotency_ids=self.idempotency_ids,
            tombstones=self.tombstones,
        )

    def _rates(self) -> dict[str, int]:
        """What is told and enforced about rates: 0 for each of them when they are turned off."""
        on = self.rate_limit_enabled
        return {name: getattr(self, name) if on else 0 for name in _RATES}

    def with_values(self, **changes: Any) -> Self:
        """A checked copy with other values, by field name."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**(values | changes))


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment. Raises ConfigError naming the first bad variable."""
    try:
        settings = Settings(**overrides)
        settings.redis_url()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = f"{variable(str(first['loc'][0]))}: " if first["loc"] else ""
        raise ConfigError(where + first["msg"].removeprefix("Value error, ")) from None
    except ValueError as error:
        raise ConfigError(f"REDIS_ADDR: {error}") from None
    return settings


def variable(name: str) -> str:
    """The environment variable of a field (also accepts what is one already)."""
    field = Settings.model_fields.get(name)
    if field is None:
        return name.upper()
    alias = field.validation_alias
    return alias if isinstance(alias, str) else f"SYNCBRIDGE_{name.upper()}"


def validate_production(settings: Settings) -> None:
    """Raise ConfigError, one line, unless these settings are safe to serve the world with."""
    if settings.dev:
        raise ConfigError("SYNCBRIDGE_DEV is for development; use `syncbridge dev`")
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise ConfigError("SYNCBRIDGE_TLS_CERT and SYNCBRIDGE_TLS_KEY go together")
    for path in filter(None, (settings.tls_cert, settings.tls_key)):
        if not os.access(path, os.R_OK):
            raise ConfigError(f"cannot read the TLS file {path}")
    access = settings.jwt_secret.get_secret_value()
    refresh = settings.jwt_refresh_secret.get_secret_value()
    if settings.jwt_algorithm == "HS256":
        _require_secret("JWT_SECRET", access)
    elif not (settings.jwt_public_key or settings.jwt_jwks_url or settings.jwt_private_key):
        raise ConfigError(
            f"{settings.jwt_algorithm} needs SYNCBRIDGE_JWT_PUBLIC_KEY or SYNCBRIDGE_JWT_JWKS_URL"
        )
    _require_secret("JWT_REFRESH_SECRET", refresh)
    if access == refresh:
        raise ConfigError("JWT_SECRET and JWT_REFRESH_SECRET are equal; they must differ")
    _require_voice(settings)


def _require_voice(settings: Settings) -> None:
    """Raise ConfigError when there is voice, and something that it cannot do without is missing."""
    if not settings.voice:
        return
    if not settings.rtk_api_key.get_secret_value():
        raise ConfigError("RTK_API_KEY is not set; voice needs the key of its provider")
    if settings.voice_provider == "cloudflare":
        if not settings.rtk_app_id:
            raise ConfigError("RTK_APP_ID is not set; RealTimeKit needs the application's id")
        return
    secrets = settings.webhook_secrets()
    if not secrets:
        raise ConfigError(
            "RTK_SECRET_KEY is not set, nor SYNCBRIDGE_VOICE_WEBHOOK_SECRETS;"
            " webhooks could not be believed"
        )
    for secret in secrets:
        try:
            secret_bytes(secret)
        except ValueError as error:
            raise ConfigError(f"SYNCBRIDGE_VOICE_WEBHOOK_SECRETS: {error}") from None


def _require_secret(name: str, secret: str) -> None:
    advice = "make one with `openssl rand -hex 32`"
    if not secret:
        raise ConfigError(f"{name} is not set; {advice}")
    if secret in EXAMPLE_SECRETS:
        raise ConfigError(f"{name} is a published example; {advice}")
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise ConfigError(f"{name} is shorter than {MIN_SECRET_BYTES} bytes; {advice}")
