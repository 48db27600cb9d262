"""What the hub and the listener take out of the settings."""

from types import MappingProxyType

from syncbridge_core.hub import ENCODING_JSON, ENCODING_PROTOBUF, HubLimits
from syncbridge_server.listener.contract import (
    SUBPROTOCOL_JSON,
    SUBPROTOCOL_PROTOBUF,
    ListenerConfig,
)
from syncbridge_server.origins import Origins
from syncbridge_server.proxies import TrustedProxies
from syncbridge_server.settings import Settings

SUBPROTOCOLS = {SUBPROTOCOL_JSON: ENCODING_JSON, SUBPROTOCOL_PROTOBUF: ENCODING_PROTOBUF}

PROBES = ("/health", "/health/live", "/health/ready", "/metrics")
"""Answered when every bound is reached; otherwise a supervisor would restart the server then."""


def hub_limits(settings: Settings) -> HubLimits:
    """The hub's bounds, out of the settings."""
    limited = settings.rate_limit_enabled
    return HubLimits(
        max_message=settings.message_bytes,
        conflate_bytes=settings.conflate_bytes,
        max_outbox=settings.outbox_bytes,
        ping_interval=round(settings.heartbeat_interval * 1000),
        idle_timeout=round(settings.presence_timeout * 1000),
        close_timeout=round(settings.close_timeout * 1000),
        rate_per_second=settings.messages_per_second if limited else 0,
        rate_burst=settings.message_burst,
        flood_messages=settings.flood_messages,
        max_connections=settings.max_connections,
        deflate_from=settings.ws_compression_min_bytes,
        message_timeout=round(settings.message_timeout * 1000),
    )


def listener_config(settings: Settings) -> ListenerConfig:
    """The listener's configuration, out of the settings."""
    return ListenerConfig(
        binds=tuple(str(address) for address in settings.listen_addresses()),
        unix_mode=int(settings.unix_socket_mode, 8) if settings.unix_socket_mode else None,
        origins=Origins(settings.origins, loopback=settings.dev),
        subprotocols=MappingProxyType(SUBPROTOCOLS),
        drain_timeout=settings.drain,
        reconnect_spread=settings.reconnect_spread,
        compression=settings.ws_compression,
        http2_prior_knowledge=settings.http2_prior_knowledge,
        root_path=settings.http_root_path,
        max_header_bytes=settings.http_header_bytes,
        max_header_count=settings.http_header_count,
        max_target_bytes=settings.http_target_bytes,
        max_body_bytes=max(settings.http_max_body, settings.snapshot_bytes),
        max_requests=settings.http_requests,
        max_connections=settings.http_connections,
        max_handshakes=settings.http_handshakes,
        max_probes=settings.http_reserve,
        probe_paths=frozenset(
            root + path for path in PROBES for root in {"", settings.http_root_path}
        ),
        header_timeout=settings.http_header_timeout,
        body_timeout=settings.http_body_timeout,
        min_body_rate=settings.http_body_rate,
        keep_alive_timeout=settings.http_keep_alive,
        certfile=settings.tls_cert or None,
        keyfile=settings.tls_key or None,
        proxies=TrustedProxies(settings.trusted_proxies),
    )
