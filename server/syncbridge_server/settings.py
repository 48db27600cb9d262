"""Every number and address that an operator can set: the environment as one frozen object.

A field's name is its variable, `SYNCBRIDGE_` in front, except for the names that deployments of
this family of services already use (`SERVER_ADDR`, `REDIS_ADDR`, `JWT_SECRET`, ...). The
description of each field is the only documentation of it: `syncbridge serve --help` and
`docs/configuration.md` are printed from here (`configuration.docs`).
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from syncbridge.limits import Limits
from syncbridge_server.addresses import (
    Listen,
    checked_issuers,
    checked_listens,
    checked_listens_or_none,
    checked_networks,
    checked_origins,
    parse_listens,
    redis_url,
)
from syncbridge_server.environment import ConfigError as ConfigError
from syncbridge_server.redis.durability import Durability
from syncbridge_server.settings_fields import (
    RATES,
    Bytes,
    Claim,
    Count,
    FileMode,
    RootPath,
    Seconds,
    SecondsOrZero,
    Share,
    Url,
    Words,
    named,
    var,
    words,
)

MIN_SECRET_BYTES = 32
_MAPPED = "Claim of another issuer's token (name or JSON pointer) that"


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


CLAIMS = ("user", "role", "device", "session", "login", "voice")
"""What a claim of another issuer's token may stand for: the settings `jwt_claim_*`."""


def _durability(value: str) -> str:
    Durability.parse(value)
    return value


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
    server_addr: Annotated[Words, AfterValidator(checked_listens)] = named(
        "SERVER_ADDR",
        (":8080",),
        "Where to listen, separated by commas: host:port, :port (IPv4 and IPv6) or unix:/path.",
    )
    admin_addr: Annotated[Words, AfterValidator(checked_listens_or_none)] = var(
        (),
        "Separate address for /metrics and /admin; all other HTTP routes are at both. Unset: all at"
        " SERVER_ADDR.",
    )
    unix_socket_mode: FileMode = var(
        "", "Permissions of the files of unix sockets, octal, such as 0660. Unset: by the umask."
    )
    tls_cert: str = var("", "TLS certificate chain, a PEM file. Setting it turns TLS on.")
    tls_key: str = var("", "Private key of the certificate, a PEM file.")
    workers: Annotated[int, Field(gt=0, le=256)] = var(
        1, "Number of server processes that share the addresses."
    )
    data_dir: str = var(".syncbridge", "Directory of the embedded Redis and of generated secrets.")
    origins: Annotated[Words, AfterValidator(checked_origins)] = var(
        (),
        "Origins whose pages may open sockets and read responses (CORS), such as https://a.example"
        " or https://*.a.example; * for any. Empty: only pages of this host, and with"
        " `syncbridge dev` those of this machine. Callers that send no Origin may connect.",
    )
    trusted_proxies: Annotated[Words, AfterValidator(checked_networks)] = var(
        (), "Trusted proxies (X-Forwarded-For): addresses, networks such as 10.0.0.0/8, or `unix`."
    )
    max_connections: int = var(
        65_536,
        "Open WebSockets per process; 0: no limit. At the limit, a new one replaces the oldest that"
        " has not sent AUTH; if all have, it gets 503.",
        ge=0,
    )
    drain: Seconds = var(30.0, "Longest time for a graceful shutdown.")
    reconnect_spread: SecondsOrZero = var(
        15.0, "Window over which reconnects after a shutdown are spread."
    )
    http_body_bytes: Bytes = var(65_536, "Largest request body, unless a route has its own limit.")
    http_timeout: Seconds = var(
        30.0,
        "How long clients and proxies wait for a response. A request that needs several calls to"
        " the voice provider is given up after 80 % of this. The store has its own deadline.",
    )
    http2_prior_knowledge: bool = var(
        False,
        "Accept HTTP/2 from the first byte of a connection without TLS, as gRPC proxies send it."
        " With TLS, HTTP/2 is negotiated by ALPN; Upgrade: h2c is ignored.",
    )
    http_root_path: RootPath = var("", "Path at which a proxy serves this server, such as /sync.")
    http_header_bytes: Annotated[int, Field(ge=1_024, le=1_048_576)] = var(
        16_384, "Largest request head; a larger one gets 431."
    )
    http_header_count: Count = var(100, "Most header fields of a request; more get 431.")
    http_target_bytes: Bytes = var(8_192, "Longest request target; a longer one gets 414.")
    http_max_body: Bytes = var(4_194_304, "Largest body on any route; a larger one gets 413.")
    http_header_timeout: Seconds = var(10.0, "Longest time for a request head; then 408.")
    http_body_timeout: Seconds = var(10.0, "Longest pause within a request body; then 408.")
    http_body_rate: Count = var(1_024, "Lowest average rate of a request body, in bytes a second.")
    http_keep_alive: Seconds = var(75.0, "An idle HTTP connection is closed after this time.")
    http_handshakes: Count = var(
        1_024,
        "Connections that have not sent their first request yet. At the limit, a new one replaces"
        " the one that has been silent or slow for longest.",
    )
    http_requests: Count = var(
        1_024,
        "HTTP requests in progress. At the limit, a new one replaces the one with the slowest body;"
        " if no body is slow, it gets 503.",
    )
    http_connections: Count = var(
        4_096,
        "HTTP and TLS connections. At the limit, a new one replaces the one that has waited for its"
        " client for longest; if none waits, it gets 503.",
    )
    http_reserve: Count = var(
        64,
        "Connections, and as many requests, reserved for health and metrics above these limits.",
    )
    admin_update: Seconds = var(5.0, "Interval of ADMIN_UPDATE messages to admin sockets.")

    # Redis
    redis_addr: str = named(
        "REDIS_ADDR",
        "",
        "host:port, or a redis://, rediss:// or unix:// URL, or "
        "redis+sentinel://host:port,host:port/service. Unset: a private Redis is started.",
    )
    redis_password: SecretStr = named("REDIS_PASSWORD", SecretStr(""), "Password of Redis.")
    sentinel_password: SecretStr = var(SecretStr(""), "Password of the sentinels.")
    redis_db: Annotated[int, Field(ge=0, le=65_535)] = named(
        "REDIS_DB", 0, "Number of the Redis database."
    )
    durability: Annotated[str, AfterValidator(_durability)] = var(
        "memory",
        "When a write is acknowledged: `memory`, Redis has it; `fsync`, it is on Redis' disk (needs"
        " appendfsync always); `replicas:N`, N replicas have it: all that can be promoted.",
    )
    store_deadline: Seconds = var(2.0, "A Redis command fails after this time.")
    store_queue: Count = var(65_536, "Most commands that wait for Redis; more are refused.")

    # Tokens
    jwt_secret: SecretStr = named(
        "JWT_SECRET", SecretStr(""), "Secret that signs access tokens, 32 bytes or more."
    )
    jwt_refresh_secret: SecretStr = named(
        "JWT_REFRESH_SECRET",
        SecretStr(""),
        "Secret that signs refresh tokens, 32 bytes or more; must differ from JWT_SECRET.",
    )
    jwt_algorithm: Literal["HS256", "RS256", "ES256"] = var(
        "HS256", "Signature algorithm of access tokens. Tokens with any other are refused."
    )
    jwt_public_key: str = var("", "RS256, ES256: public key, as PEM text or the path of a file.")
    jwt_private_key: SecretStr = var(
        SecretStr(""), "RS256, ES256: private key (PEM text or path). Unset: issues no tokens."
    )
    jwt_jwks_url: Url = var("", "RS256, ES256: URL of the issuer's key set (JWKS).")
    jwt_issuer: str = var("", "Required `iss` of access tokens. Unset: any.")
    jwt_audience: Words = var(
        (), "Accepted values of `aud` (or of `client_id`, if a token has no `aud`). Unset: any."
    )
    jwt_issuers: Annotated[Words, AfterValidator(checked_issuers)] = var(
        (),
        "Other issuers whose access tokens are accepted, each as its `iss`. Their keys are found by"
        " OpenID Connect discovery, or at the URL in ISSUER=URL.",
    )
    jwt_claim_user: Claim = var("", f"{_MAPPED} is the user. Unset: `sub`.")
    jwt_claim_role: Claim = var("", f"{_MAPPED} is the role, or a list with it. Unset: none is.")
    jwt_claim_device: Claim = var("", f"{_MAPPED} binds it to a device. Unset: none does.")
    jwt_claim_session: Claim = var("", f"{_MAPPED} binds it to a session. Unset: none does.")
    jwt_claim_login: Claim = var("", f"{_MAPPED} names the login, as `fam`. Unset: none does.")
    jwt_claim_voice: Claim = var("", f"{_MAPPED} has voice grants, as `voice`. Unset: none has.")
    jwt_default_role: Literal["user", "viewer", "none"] = var(
        "user", "Role of another issuer's token that names none; `none`: refuse it."
    )
    access_ttl: Seconds = var(900.0, "Lifetime of an access token.")
    refresh_ttl: Seconds = var(604_800.0, "Lifetime of a refresh token.")
    max_token_life: Seconds = var(
        604_800.0, "Longest lifetime of a token that is accepted; revocations are kept as long."
    )
    token_leeway: SecondsOrZero = var(60.0, "Tolerated difference between clocks.", le=600)
    token_bytes: Bytes = var(4_096, "Largest token that is accepted.")
    token_cache: Count = var(16_384, "Number of verified tokens in the cache.")
    revocation_fail_open: bool = var(
        False, "Accept tokens while the revocation list has not been read since the start."
    )

    connect_url: Url = var(
        "", "URL of the application that is asked which user may join which session. Unset: any."
    )
    connect_key: SecretStr = var(SecretStr(""), "Bearer token for the connect URL.")
    connect_timeout: Seconds = var(
        3.0, "Longest wait for that answer; without one nobody new may join.", le=10
    )

    # Rate limits
    rate_limit_enabled: bool = var(True, "Enforce the rates and the bounds of users below.")
    messages_per_second: Count = var(50, "Sustained rate of messages of one WebSocket.")
    message_burst: Count = var(100, "Burst of messages of one WebSocket.")
    flood_messages: Count = var(200, "Messages in a row above the rate that close the socket.")
    user_messages_per_second: Count = var(
        200, "Sustained rate of messages of one user over all WebSockets on a node."
    )
    user_message_burst: Count = var(400, "Burst of messages of one user over all WebSockets.")
    user_joins_per_second: Count = var(5, "Sustained rate of AUTHs of one user on a node.")
    user_join_burst: Count = var(
        128, "Burst of AUTHs of one user; at least SYNCBRIDGE_MAX_DEVICES_PER_SESSION."
    )
    device_joins_per_minute: Count = var(
        30, "Sustained rate of AUTHs of one device of a session on a node."
    )
    device_join_burst: Count = var(10, "Burst of AUTHs of one device of a session.")
    user_sockets: Count = var(
        256,
        "Most WebSockets of one user on a node; at least SYNCBRIDGE_MAX_DEVICES_PER_SESSION.",
    )
    user_sessions: Annotated[int, Field(gt=0, le=8_192)] = var(1_024, "Most sessions of one user.")
    user_bytes: Annotated[int, Field(gt=0, le=2**40)] = var(
        67_108_864, "Most bytes of keys and values in all sessions of one user."
    )
    handshakes_per_second: Count = var(
        100,
        "Sustained rate of WebSocket handshakes of one address (IPv6: one /64). 127.0.0.1, ::1,"
        " unix sockets and a proxy that is not trusted have no limit.",
    )
    handshake_burst: Count = var(500, "Burst of WebSocket handshakes of one address.")
    unauthenticated_per_address: Count = var(
        256,
        "WebSockets of one address that have not sent AUTH yet, once 3/4 of"
        " SYNCBRIDGE_MAX_CONNECTIONS are open. Above it the oldest of that address give way.",
    )
    requests_per_second: Count = var(100, "Sustained rate of HTTP requests of one caller.")
    request_burst: Count = var(200, "Burst of HTTP requests of one caller.")
    webhooks_per_second: Count = var(
        2_000, "Sustained rate of webhooks of one address; more get 503, to be sent again."
    )
    webhook_burst: Count = var(10_000, "Burst of webhooks of one address.")

    # Sockets
    auth_timeout: Seconds = var(10.0, "A socket that has not sent AUTH after this time is closed.")
    heartbeat_interval: Seconds = var(25.0, "Interval of pings to a socket.")
    presence_timeout: Seconds = var(120.0, "A device that is silent for this time is offline.")
    close_timeout: Seconds = var(5.0, "Longest wait for the answer to a close frame.")
    expiry_warning: SecondsOrZero = var(
        60.0, "How long before its token expires a socket is warned."
    )
    expiry_grace: SecondsOrZero = var(
        25.0, "How long after its token has expired a socket is closed."
    )
    message_bytes: Bytes = var(65_536, "Largest message from a socket.")
    message_timeout: Seconds = var(
        30.0, "A socket is closed whose message has not ended this time after it began."
    )
    outbox_bytes: Bytes = var(
        1_048_576, "Most bytes that wait for a slow reader; then it is closed."
    )
    conflate_bytes: Bytes = var(
        262_144, "Waiting bytes above which a slow reader's state changes are merged into one."
    )

    ws_compression: bool = var(True, "Accept permessage-deflate if a socket offers it.")
    ws_compression_min_bytes: Bytes = var(256, "Smallest message that is compressed.")

    # Sessions
    snapshot_bytes: Bytes = var(1_048_576, "Largest body of POST /session/snapshot.")
    state_bytes: Bytes = var(1_048_576, "Largest state of a session.")
    state_keys: Count = var(2_000, "Most keys in the state of a session.")
    key_bytes: Bytes = var(256, "Longest key.")
    value_bytes: Bytes = var(262_144, "Largest value of one key.")
    depth: Annotated[int, Field(gt=0, le=512)] = var(64, "Deepest nesting of a value.")
    number_bytes: Bytes = var(64, "Longest number, in characters.")
    max_changes: Count = var(256, "Most keys that one update changes.")
    max_devices_per_session: Count = var(32, "Most devices of one session.")
    presence_list: Count = var(
        64,
        "Devices online above which a session reports joins and departures once a second, lists"
        " only this many devices, and carries no ephemeral values.",
    )
    ephemeral_keys: Count = var(16, "Most keys in a device's ephemeral values (`me`).")
    ephemeral_bytes: Bytes = var(1_024, "Largest ephemeral values of a device, as JSON.")
    ephemeral_per_second: Count = var(
        20, "Ephemeral changes a second that a session sends, and that a device may send unmetered."
    )
    id_bytes: Annotated[int, Field(ge=36, le=256)] = var(64, "Longest user id or device id.")
    session_ttl: Seconds = var(
        604_800.0, "How long after its last write or connected device a session is deleted."
    )
    handoff_ttl: Seconds = var(300.0, "Lifetime of a handoff token.")
    handoff_reread: SecondsOrZero = var(
        30.0, "How long the target device may read its answer again."
    )
    state_policy: str = var(
        "", "File (TOML or JSON) with rules on who may write which keys; read again on SIGHUP."
    )
    tombstones: Count = var(256, "Deleted keys remembered for a session.")
    freeze_after: SecondsOrZero = var(
        600.0, "Time without a write or device after which a state is stored compressed; 0: never."
    )
    freeze_bytes: Bytes = var(4_096, "Smallest state that is stored compressed.")
    key_writers: bool = var(False, "Keep which device wrote each key. `syncbridge dev`: true.")

    # Events
    events_kept: Count = var(100_000, "Events that can be read; the oldest make room.")
    events_bytes: Bytes = var(67_108_864, "Bytes of events that can be read, likewise.")
    events_after_reader: Seconds = var(86_400.0, "How long events are written after a read.")
    webhook_networks: Annotated[Words, AfterValidator(checked_networks)] = var(
        (),
        "Private networks in which endpoints of events may be, such as 10.0.0.0/8, also by http."
        " `syncbridge dev`: this machine.",
    )
    webhooks: str = var("", "File of endpoints for `syncbridge deliver`, TOML or JSON.")

    # Call sessions
    call_ttl: Seconds = var(604_800.0, "How long after its last write a call session is deleted.")
    call_lease: Seconds = var(60.0, "How long after its last heartbeat a call session ends.")
    call_records_kept: Seconds = var(3_456_000.0, "The export has a call so long after its end.")
    call_details_bytes: Bytes = var(65_536, "Largest details of a call session, as JSON.")

    # Voice
    voice_provider: str = var(
        "rtk",
        "The voice provider: `rtk`, the REST API of RTK_API_URL; `cloudflare`, RealTimeKit;"
        " `livekit`; or one that another package adds.",
    )
    rtk_api_url: Url = named(
        "RTK_API_URL",
        "",
        "Base URL of the voice provider. Unset: no voice; for cloudflare, its public address.",
    )
    rtk_api_key: SecretStr = named("RTK_API_KEY", SecretStr(""), "API key of the voice provider.")
    rtk_app_id: str = named("RTK_APP_ID", "", "Application id at the voice provider.")
    rtk_secret_key: SecretStr = named(
        "RTK_SECRET_KEY", SecretStr(""), "Secret of the voice provider's tokens and webhooks."
    )
    voice_webhook_secrets: SecretStr = var(
        SecretStr(""),
        "rtk: accepted webhook secrets; several, for rotation. Unset: RTK_SECRET_KEY.",
    )
    cloudflare_account_id: str = var(
        "", "cloudflare: account id of the application. Unset: no voice."
    )
    cloudflare_storage: SecretStr = var(
        SecretStr(""),
        "cloudflare: `storage_config` of recordings, a JSON object. Unset: kept for 7 days.",
    )
    cloudflare_keys_url: Url = var(
        "https://api.realtime.cloudflare.com/.well-known/webhooks.json",
        "cloudflare: URL of the public key of its webhooks.",
    )
    livekit_url: Url = var("", "livekit: URL of its server API.")
    livekit_api_key: str = var("", "livekit: API key; it also signs webhooks.")
    livekit_api_secret: SecretStr = var(SecretStr(""), "livekit: secret of the API key.")
    livekit_webhook_keys: SecretStr = var(
        SecretStr(""), "livekit: further webhook keys, as key:secret, for rotation."
    )
    livekit_recordings: str = var(
        "{room_name}-{time}", "livekit: path of a recording in the Egress worker's storage."
    )
    worker_url: Url = named(
        "WORKER_URL", "", "Public base URL of this server, for the provider's webhooks."
    )
    analytics_url: Url = named("ANALYTICS_URL", "", "URL for voice metrics. Unset: none are sent.")
    analytics_key: SecretStr = named("ANALYTICS_KEY", SecretStr(""), "Key for the analytics URL.")
    voice_deadline: Seconds = var(5.0, "A provider request fails after this time.", le=25)
    voice_retry: Seconds = var(
        10.0, "Wait before a failed task at the voice provider is repeated; it grows each time."
    )
    voice_requests_per_minute: Count = var(
        210,
        "Sustained rate of requests to the voice provider, for all processes of this machine. Rate"
        " and burst allow at most 1,200 in 5 minutes, which several machines share.",
    )
    voice_request_burst: Count = var(150, "Burst of requests to the voice provider.")
    voice_max_participants: Annotated[int, Field(gt=0, le=1_000)] = var(
        100, "Most participants of a voice channel."
    )
    voice_recording: bool = var(False, "Record calls, unless the channel is configured otherwise.")
    voice_transcription: bool = var(
        False, "Transcribe calls, unless the channel is configured otherwise."
    )
    voice_ai_voice: bool = var(
        False, "Request the feature aiVoice, unless the channel is configured otherwise."
    )
    voice_token_ttl: Seconds = var(
        3_600.0, "Lifetime of a voice token, where the provider lets SyncBridge choose it."
    )
    voice_tokens_per_minute: Count = var(
        30, "Sustained rate of voice tokens of one user, per process."
    )
    voice_token_burst: Count = var(10, "Burst of voice tokens of one user.")
    voice_seat: Seconds = var(60.0, "How long a voice token reserves a seat in the call.")
    voice_max_age: SecondsOrZero = var(
        86_400.0, "Age of a session at which its call is migrated; 0: never."
    )
    voice_migration: Seconds = var(30.0, "Time for participants to join a migration's new session.")
    voice_pool_uses: Annotated[int, Field(ge=0, le=1_000)] = var(
        10, "Calls a day from which a channel keeps its session for the next call; 0: never."
    )
    voice_pool_ttl: Seconds = var(3_600.0, "How long a session is kept for the next call.")
    voice_prewarm: SecondsOrZero = var(
        60.0, "How long before a scheduled event its session is opened."
    )
    voice_ttl: Seconds = var(
        604_800.0, "How long after its last change a voice channel is deleted."
    )
    voice_idle_unjoined: Seconds = var(
        900.0, "Time after which a voice session that nobody joined ends."
    )
    voice_idle_left: Seconds = var(
        300.0, "Time after which a voice session that everybody left ends."
    )
    voice_sync: Seconds = var(30.0, "Interval of comparisons with the voice provider.")
    voice_sync_share: Share = var(0.4, "Share of the request budget for comparisons.")
    voice_sync_stale: Seconds = var(
        300.0,
        "Time after which a call is checked even if it agrees with the provider's list.",
    )
    voice_monitor: Seconds = var(60.0, "Interval of measurements of all calls.")
    voice_monitor_share: Share = var(0.1, "Share of the request budget for measurements.")
    voice_attempts: Annotated[int, Field(gt=0, le=10)] = var(
        3, "Most attempts of a request to the voice provider that gets no answer."
    )
    voice_breaker_failures: Count = var(
        5, "Failures in a row that open the circuit breaker of the voice provider."
    )
    voice_breaker_open: Seconds = var(5.0, "Longest first pause of the circuit breaker.")
    voice_breaker_longest: Seconds = var(60.0, "Longest pause of the circuit breaker.")
    analytics_queue: Count = var(10_000, "Most voice metrics that wait; the oldest are dropped.")
    analytics_deadline: Seconds = var(5.0, "Sending voice metrics fails after this time.")
    speaking_interval: Seconds = var(
        0.25, "Shortest time between two speaking changes of a participant."
    )
    speaking_timeout: Seconds = var(
        2.0, "Speaking ends when it is not reported again within this time."
    )
    webhook_tolerance: Seconds = var(300.0, "Largest age of a signed webhook.")
    webhook_bytes: Bytes = var(65_536, "Largest body of a webhook.")
    webhooks_waiting: Count = var(100_000, "Most webhooks that wait to be processed; more get 503.")
    dead_letters: Count = var(
        10_000, "Most webhooks kept that could not be processed; the oldest are dropped."
    )
    recording_ttl: Seconds = var(604_800.0, "How long the address of a recording is kept.")

    # Logging
    log_format: Literal["console", "json"] = var("json", "Format of log lines.")
    log_level: Literal["debug", "info", "warning", "error"] = var(
        "info", "Lowest level that is logged."
    )
    audit_log: str = var("", "File of the audit log; - for standard output. Unset: no audit log.")
    access_log: bool = var(True, "Log one line for each HTTP request.")

    # Tracing
    otlp_url: Url = var(
        "", "Base URL of an OpenTelemetry collector that takes OTLP over HTTP. Unset: no traces."
    )
    trace_share: Share = var(0.01, "Share of updates, requests and webhooks that is traced.")

    # Development
    dev: bool = var(
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
        if self.durable.replicas and not self.redis_addr:
            raise ValueError("SYNCBRIDGE_DURABILITY replicas:N needs REDIS_ADDR")
        return self

    def admin_addresses(self) -> tuple[Listen, ...]:
        """The parsed SYNCBRIDGE_ADMIN_ADDR."""
        return tuple(found for text in self.admin_addr for found in parse_listens(text))

    def listen_addresses(self) -> tuple[Listen, ...]:
        """The parsed SERVER_ADDR."""
        return tuple(found for text in self.server_addr for found in parse_listens(text))

    def redis_url(self) -> str:
        """REDIS_ADDR as a URL without the password; "" for the embedded Redis."""
        return redis_url(self.redis_addr) if self.redis_addr else ""

    @property
    def durable(self) -> Durability:
        """The parsed SYNCBRIDGE_DURABILITY."""
        return Durability.parse(self.durability)

    @property
    def voice(self) -> bool:
        """Whether a voice provider is configured."""
        needed = {"rtk": self.rtk_api_url, "cloudflare": self.cloudflare_account_id}
        return bool(needed.get(self.voice_provider, self.voice_provider))

    @property
    def maps_claims(self) -> bool:
        """Whether tokens of our own key may have claims that are not ours."""
        return any(getattr(self, f"jwt_claim_{name}") for name in CLAIMS)

    def webhook_secrets(self) -> tuple[str, ...]:
        """Secrets any of which may have signed a webhook of the `rtk` provider."""
        written: tuple[str, ...] = words(self.voice_webhook_secrets.get_secret_value())
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
            presence_list=self.presence_list,
            ephemeral_keys=self.ephemeral_keys,
            ephemeral_bytes=self.ephemeral_bytes,
            ephemeral_per_second=self.ephemeral_per_second,
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
            tombstones=self.tombstones,
        )

    def _rates(self) -> dict[str, int]:
        """What is told and enforced about rates: 0 for each of them when they are turned off."""
        on = self.rate_limit_enabled
        return {name: getattr(self, name) if on else 0 for name in RATES}

    def with_values(self, **changes: Any) -> Self:
        """A checked copy with other values, by field name."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**(values | changes))


def variable(name: str) -> str:
    """The environment variable of a field (also accepts what is one already)."""
    field = Settings.model_fields.get(name)
    if field is None:
        return name.upper()
    alias = field.validation_alias
    return alias if isinstance(alias, str) else f"SYNCBRIDGE_{name.upper()}"
