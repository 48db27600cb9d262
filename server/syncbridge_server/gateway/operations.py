"""STATE_UPDATE with an operation: sent to the store as it is, or computed here for MERGE.

MERGE reads the key's value from this node's replica (or assumes that there is none), applies the
patch, and commits the result on condition that the value is still the one that it was computed
from. When it is not, the answer carries the present value, and the next attempt starts from there.
So a node without a replica needs one more round trip, and while other devices write to the same
key, MERGE may take effect after later messages of the same device.
"""

from collections.abc import Callable

import msgspec

from syncbridge import operations
from syncbridge.errors import ErrorCode, StoreError, SyncBridgeError
from syncbridge.messages import UpdatePayload
from syncbridge.policy import Current
from syncbridge.records.sessions import Apply, Operation, Outcome, Status
from syncbridge.updates import UpdateParser
from syncbridge_server.gateway.connection import Connection
from syncbridge_server.gateway.message_sender import MessageSender
from syncbridge_server.gateway.store_queue import StoreQueue

ATTEMPTS = 8
"""Most attempts of one MERGE; then its sender is told to try again."""

RETRY_AFTER = 0.1

Answered = Callable[[Outcome | StoreError, Connection, Apply], None]


class Operations:
    """Starts operations.

    Args:
        answered: called with the store's answer, as for any write. policy: checked against merged
            values.
    """

    def __init__(
        self,
        store_queue: StoreQueue,
        sender: MessageSender,
        parser: UpdateParser,
        answered: Answered,
        policy: Current,
    ) -> None:
        self._store_queue = store_queue
        self._sender = sender
        self._parser = parser
        self._answered = answered
        self._policy = policy

    def start(self, connection: Connection, request: Apply, payload: UpdatePayload) -> None:
        """Execute an operation; `request` writes its key and operand.

        Raises:
            SyncBridgeError: INVALID_MESSAGE when it needs a `correlation_id` and has none, or what
                is wrong with `expected`.
        """
        if not request.seq:
            operations.require_id(payload.operation, request.mutation_id)
        if payload.operation == operations.MERGE:
            self._merge(connection, request)
            return
        operation = operations.ATOMIC[payload.operation]
        request = operations.prepared(request, operation, self._parser.expected(payload))
        self._store_queue.ask(request, self._answered, connection, request)

    def _merge(self, connection: Connection, request: Apply) -> None:
        key, patch = request.sets
        session = connection.session
        replica = session.doc if session is not None else None
        value = replica.get(key) if replica is not None else None
        self._attempt(connection, request, value or b"", patch, 1)

    def _attempt(
        self, connection: Connection, request: Apply, value: bytes, patch: bytes, attempt: int
    ) -> None:
        sets = [request.sets[0], self._parser.merged(value, patch)]
        if self._policy.policy is not None:
            self._policy.policy.hold_value(*sets)
        request = msgspec.structs.replace(
            request, sets=sets, operation=Operation.CAS, expected=value
        )
        self._store_queue.ask(request, self._compared, connection, request, patch, attempt)

    def _compared(
        self,
        answer: Outcome | StoreError,
        connection: Connection,
        request: Apply,
        patch: bytes,
        attempt: int,
    ) -> None:
        if isinstance(answer, StoreError) or answer.status is not Status.PRECONDITION:
            self._answered(answer, connection, request)
            return
        try:
            if attempt >= ATTEMPTS:
                raise SyncBridgeError(
                    ErrorCode.OVERLOADED,
                    "MERGE: other devices keep writing to the key; try again",
                    retry_after=RETRY_AFTER,
                )
            self._attempt(connection, request, answer.conflicts[1], patch, attempt + 1)
        except SyncBridgeError as error:
            self._sender.error(connection, error, request.mutation_id or None)
