"""Every bound and deadline of a session, with its default."""

from dataclasses import dataclass

from syncbridge_client.conflicts import Policy


@dataclass(frozen=True, slots=True)
class Hello:
    """Who this device is; the server shows it to the user's other devices."""

    device_id: str
    session_id: str | None = None
    device_type: str = ""
    device_name: str = ""
    os_version: str = ""
    app_version: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """Times in seconds, sizes in bytes.

    Attributes:
        conflict: None, the default: the last writer of a key wins and nothing is reported. Else
            SET and DELETE are sent with the version that this device has seen, and this decides
            when somebody else was faster; see `Conflict`.
        connect_timeout: for one attempt, from the TCP connection to AUTH_SUCCESS.
        start_timeout: entering `connect` waits so long to be online, then raises ConnectFailed;
            0 enters at once, offline.
        close_timeout: leaving waits so long for acknowledgements of updates, then raises
            UnsentUpdates; 0 does not wait.
        send_timeout: a connection that takes no bytes for so long is given up.
        request_timeout: for `snapshot()`, `authenticate()`, and for one call of a `token` callable.
        ack_timeout: an update without an answer for so long is sent again, with the same id; after
            two such times the connection is replaced.
        backoff_base, backoff_cap: of the waits between attempts to connect.
        stable_after: a connection that lived so long lets the waits start small again.
        queue_updates, queue_bytes: updates that may wait for an acknowledgement.
        window: updates on the way at once.
        change_keys: keys that wait for one `changes()` iterator, then it is given the whole state.
        event_count: events that wait for one `events()` iterator, then the oldest is dropped.
        message_bytes: largest message that is accepted from the server.
    """

    conflict: Policy | None = None
    connect_timeout: float = 10.0
    start_timeout: float = 30.0
    close_timeout: float = 5.0
    send_timeout: float = 10.0
    request_timeout: float = 10.0
    ack_timeout: float = 10.0
    backoff_base: float = 0.25
    backoff_cap: float = 30.0
    stable_after: float = 5.0
    queue_updates: int = 1_000
    queue_bytes: int = 1_048_576
    window: int = 32
    change_keys: int = 4_096
    event_count: int = 256
    message_bytes: int = 8_388_608

    def __post_init__(self) -> None:
        if self.conflict not in (None, "server_wins", "client_wins") and not callable(
            self.conflict
        ):
            raise ValueError("conflict: server_wins, client_wins or a function is expected")
