"""The numbers of the contract, in one frozen object that AUTH_SUCCESS also reports."""

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Bounds for clients. Sizes in bytes, times in seconds unless the name says otherwise.

    Rates, bursts and counts an address, a user or a node may reach are 0 where there is no bound.
    """

    message_bytes: int = 65_536
    snapshot_bytes: int = 1_048_576
    state_bytes: int = 1_048_576
    state_keys: int = 2_000
    key_bytes: int = 256
    value_bytes: int = 262_144
    depth: int = 64
    number_bytes: int = 64
    changes: int = 256
    devices: int = 32
    presence_list: int = 64
    ephemeral_keys: int = 16
    ephemeral_bytes: int = 1_024
    ephemeral_per_second: int = 20
    id_bytes: int = 64
    messages_per_second: int = 50
    message_burst: int = 100
    flood_messages: int = 200
    user_messages_per_second: int = 200
    user_message_burst: int = 400
    user_joins_per_second: int = 5
    user_join_burst: int = 128
    device_joins_per_minute: int = 30
    device_join_burst: int = 10
    user_sockets: int = 256
    user_sessions: int = 1_024
    user_bytes: int = 67_108_864
    requests_per_second: int = 100
    request_burst: int = 200
    handshakes_per_second: int = 100
    handshake_burst: int = 500
    unauthenticated_per_address: int = 256
    connections: int = 65_536
    outbox_bytes: int = 1_048_576
    conflate_bytes: int = 262_144
    heartbeat_interval_ms: int = 25_000
    presence_timeout: int = 120
    auth_timeout: int = 10
    session_ttl: int = 604_800
    expiry_grace: int = 25
    expiry_warning: int = 60
    tombstones: int = 256
