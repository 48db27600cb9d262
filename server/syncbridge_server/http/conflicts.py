"""Writes of clients that were away: `POST /session/incremental` and `/session/conflict/resolve`.

An incremental update is one script. To resolve, the session is read with what is known of the
client's base, the rule (`syncbridge.resolve`) is applied, and the result is committed on condition
that the session is still at the version that was read; else everything is done again. Devices
receive only the keys that differ.
"""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from syncbridge import encode, ids
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity, Role, authorize
from syncbridge.kernels import compose, render_pairs
from syncbridge.records.sessions import Apply, Mode, Outcome, Place, Review, Reviewed, Status
from syncbridge.resolve import Claim, Conflict, Resolution, Strategy, resolve
from syncbridge.updates import check_lineage, check_stream, check_version
from syncbridge_server.auth.audit import audited
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.gateway.engine import conflict_list, outcome_error
from syncbridge_server.gateway.gateway import Gateway
from syncbridge_server.http.support.answers import etag, place_of
from syncbridge_server.http.support.problem import decode_json, read_json_body
from syncbridge_server.http.support.ready import tagged_json
from syncbridge_server.openapi.describe import (
    JsonObject,
    RawObject,
    ShortId,
    Uuid,
    VersionNumber,
    describe,
)
from syncbridge_server.ports.store import Store

AUDITED_KEYS = 20
"""Keys that an audit event names."""

ATTEMPTS = 8
"""Most attempts of one resolution; then the caller is told to try again."""

RETRY_AFTER = 0.2

MODES = {
    None: Mode.REJECT,
    Strategy.SERVER_WINS: Mode.YIELD,
    Strategy.CLIENT_WINS: Mode.OVERWRITE,
    Strategy.MERGE: Mode.OVERWRITE,
}
"""How a change set treats keys that changed after its base, by strategy."""


class IncrementalBody(msgspec.Struct):
    """Body of `POST /session/incremental`, as in the session state document."""

    session_id: Uuid
    base_version: VersionNumber
    user_id: ShortId = ""
    device_id: ShortId = ""
    base_lineage: str = ""
    stream: str = ""
    seq: VersionNumber = 0
    changes: RawObject | msgspec.UnsetType = msgspec.UNSET
    deleted_keys: list[str] = []
    correlation_id: ShortId = ""
    resolution_strategy: Strategy | None = None


class LostKey(msgspec.Struct):
    """A key that was not applied: the server's value, or that the server deleted it."""

    key: str
    server_value: Any | msgspec.UnsetType = msgspec.UNSET
    deleted: bool | msgspec.UnsetType = msgspec.UNSET


class AppliedBody(msgspec.Struct):
    """Answer to an incremental update. `duplicate`: it had been done before, as that version.

    `seq`: of a numbered update that is one, the last number of its stream.
    """

    session_id: Uuid
    version: VersionNumber
    epoch: str
    lineage: str
    applied: list[str]
    conflicts: list[LostKey]
    duplicate: bool | msgspec.UnsetType = msgspec.UNSET
    seq: VersionNumber | msgspec.UnsetType = msgspec.UNSET


class ResolveBody(msgspec.Struct):
    """Body of `POST /session/conflict/resolve`, as in the session state document."""

    session_id: Uuid
    client_version: VersionNumber
    client_state: RawObject
    resolution_strategy: Strategy
    changed_keys: list[str] | None = None
    complete: bool = False
    device_id: ShortId = ""
    user_id: ShortId = ""
    epoch: str = ""
    lineage: str = ""


class DecidedKey(msgspec.Struct):
    """A key with a conflict: the side that won, and the winning value, or that it is deleted."""

    key: str
    winner: str
    value: Any | msgspec.UnsetType = msgspec.UNSET
    deleted: bool | msgspec.UnsetType = msgspec.UNSET


class ResolvedBody(msgspec.Struct):
    """Answer to a resolution. `base`: `changed_keys`, `journal` or `unknown`.

    `kept`, with a state policy: keys that the caller may not write, and that are unchanged.
    """

    session_id: Uuid
    version: VersionNumber
    epoch: str
    lineage: str
    state_data: JsonObject
    resolution_strategy: Strategy
    conflicts: list[DecidedKey]
    base: str
    kept: list[str] | msgspec.UnsetType = msgspec.UNSET


class ConflictRoutes:
    """The routes, on one store and gateway."""

    def __init__(self, gateway: Gateway, store: Store, authenticate: BearerAuth) -> None:
        self._gateway = gateway
        self._store = store
        self._authenticate = authenticate
        self._limits = gateway.limits

    def routes(self) -> list[Route]:
        """For the application's router."""
        return [
            Route("/session/incremental", self.apply, methods=["POST"]),
            Route("/session/conflict/resolve", self.resolve, methods=["POST"]),
        ]

    @describe(
        "Change some keys of a session",
        body=IncrementalBody,
        answers={200: AppliedBody},
        errors=(404, 409),
    )
    async def apply(self, request: Request) -> Response:
        """Apply a change set that was made from `base_version`."""
        identity = await self._authenticate(request, session_bound=True)
        text = await read_json_body(request, self._limits.snapshot_bytes)
        body: IncrementalBody = decode_json(text, IncrementalBody)
        write = self._write(identity, body)
        await self._gateway.require_join(identity, write.sid)
        if identity.role is Role.ADMIN:
            keys = [key.decode() for key in [*write.sets[::2], *write.deletes][:AUDITED_KEYS]]
            audited(request.scope, session_id=write.sid, keys=keys)
        outcome = await self._gateway.commit(write)
        if outcome.status not in (Status.OK, Status.DUPLICATE):
            raise self._gateway.engine.refusal(outcome)
        return answered(applied(write, outcome), outcome)

    @describe(
        "Merge a client's whole state into the session",
        body=ResolveBody,
        answers={200: ResolvedBody},
        errors=(404,),
    )
    async def resolve(self, request: Request) -> Response:
        """Resolve a conflict by one of the three strategies."""
        identity = await self._authenticate(request, session_bound=True)
        text = await read_json_body(request, self._limits.snapshot_bytes)
        body: ResolveBody = decode_json(text, ResolveBody)
        sid, device_id = self._place(identity, body)
        await self._gateway.require_join(identity, sid)
        claim, strategy = self._claim(body), body.resolution_strategy
        for _ in range(ATTEMPTS):
            known = await self._review(identity, sid, claim)
            resolution = resolve(strategy, known, claim)
            write = self._resolving(identity, sid, device_id, known, resolution)
            kept = self._spare(identity, write, known, resolution)
            place = await self._commit(write, known)
            if place is not None:
                body_of = resolved(sid, place, known, strategy, resolution)
                return answered(body_of | kept, place)
        raise SyncBridgeError(
            ErrorCode.OVERLOADED,
            "other devices keep writing to the session; try again",
            retry_after=RETRY_AFTER,
        )

    def _place(self, identity: Identity, body: IncrementalBody | ResolveBody) -> tuple[str, str]:
        """The session and the writing device; raises as `authorize`."""
        sid = ids.session_id(body.session_id)
        authorize(identity, user_id=body.user_id, session_id=sid, device_id=body.device_id)
        if body.device_id:
            ids.short_id("device_id", body.device_id, self._limits.id_bytes)
        return sid, body.device_id or identity.device_id

    def _write(self, identity: Identity, body: IncrementalBody) -> Apply:
        sid, device_id = self._place(identity, body)
        check_version("base_version", body.base_version)
        check_lineage("base_lineage", body.base_lineage)
        check_stream(body.stream, body.seq)
        if body.correlation_id:
            ids.short_id("correlation_id", body.correlation_id, self._limits.id_bytes)
        changes = None if body.changes is msgspec.UNSET else body.changes
        sets, deletes = self._gateway.parser.several(changes, body.deleted_keys)
        strategy = body.resolution_strategy
        policy = self._gateway.policy.policy
        if policy is not None and strategy is None:
            strategy = policy.strategy((*sets[::2], *deletes))
        write = Apply(
            sid,
            identity.user_id,
            device_id,
            sets,
            deletes,
            mutation_id=body.correlation_id,
            base_version=body.base_version,
            base_lineage=body.base_lineage,
            stream=body.stream,
            seq=body.seq,
            mode=MODES[strategy],
            owner_check=not identity.privileged,
            create=False,
        )
        if policy is not None:
            policy.hold(identity, write)
        return write

    def _claim(self, body: ResolveBody) -> Claim:
        check_version("client_version", body.client_version)
        check_lineage("lineage", body.lineage)
        parser, names = self._gateway.parser, body.changed_keys
        return Claim(
            parser.split(body.client_state, "client_state"),
            body.client_version,
            body.epoch,
            body.complete,
            None if names is None else frozenset(parser.deleted(names)),
            body.lineage,
        )

    async def _review(self, identity: Identity, sid: str, claim: Claim) -> Reviewed:
        known: Reviewed = await self._store.call(
            Review(sid, identity.user_id, not identity.privileged, claim.version, claim.lineage)
        )
        if known.status is not Status.OK:
            raise outcome_error(Outcome(known.status))
        return known

    def _resolving(
        self,
        identity: Identity,
        sid: str,
        device_id: str,
        known: Reviewed,
        resolution: Resolution,
    ) -> Apply:
        """The write of a resolution."""
        return Apply(
            sid,
            identity.user_id,
            device_id,
            resolution.sets,
            resolution.deletes,
            base_version=known.version,
            base_lineage=known.lineage,
            mode=Mode.WHOLE,
            owner_check=not identity.privileged,
            create=False,
        )

    def _spare(
        self, identity: Identity, write: Apply, known: Reviewed, resolution: Resolution
    ) -> dict[str, object]:
        """Leave the keys that the caller may not write; there the server has won."""
        policy = self._gateway.policy.policy
        if policy is None:
            return {}
        kept = policy.spare(identity, write, known.flat)
        resolution.sets, resolution.deletes = write.sets, write.deletes
        state = dict(zip(known.flat[::2], known.flat[1::2], strict=True))
        for conflict in resolution.conflicts:
            if conflict.key in kept:
                conflict.winner, conflict.value = "server", state.get(conflict.key)
        return {"kept": [key.decode() for key in kept]}

    async def _commit(self, write: Apply, known: Reviewed) -> Place | None:
        """The place with the resolution in it; None when the session has moved on."""
        if not write.sets and not write.deletes:
            return Place(known.epoch, known.version, known.lineage)
        outcome = await self._gateway.commit(write)
        if outcome.status in (Status.CONFLICT, Status.BASE_LOST):
            return None
        if outcome.status is not Status.OK:
            raise outcome_error(outcome)
        return place_of(outcome)


def applied(write: Apply, outcome: Outcome) -> dict[str, object]:
    """Answer to an incremental update."""
    lost = outcome.conflicts
    duplicate = outcome.status is Status.DUPLICATE
    keys = [] if duplicate else [*write.sets[::2], *write.deletes]
    if lost:
        names = set(lost[::2])
        keys = [key for key in keys if key not in names]
    members: dict[str, object] = {
        "session_id": write.sid,
        "version": outcome.version,
        "epoch": outcome.epoch,
        "lineage": outcome.lineage,
        "applied": [key.decode() for key in keys],
        "conflicts": conflict_list(lost) if lost else [],
    }
    if duplicate:
        members["duplicate"] = True
        if write.seq:
            members["seq"] = outcome.last
    return members


def resolved(
    sid: str, place: Place, known: Reviewed, strategy: Strategy, resolution: Resolution
) -> dict[str, object]:
    """Answer to a resolution; unchanged values are passed on as they are stored."""
    state, _ = compose((known.flat, []), (resolution.sets, resolution.deletes))
    return {
        "session_id": sid,
        "version": place.version,
        "epoch": place.epoch,
        "lineage": place.lineage,
        "state_data": msgspec.Raw(render_pairs(state)),
        "resolution_strategy": strategy,
        "conflicts": [decided(conflict) for conflict in resolution.conflicts],
        "base": resolution.base,
    }


def decided(conflict: Conflict) -> dict[str, object]:
    """A key that was lost, and the value that won."""
    members: dict[str, object] = {"key": conflict.key.decode(), "winner": conflict.winner}
    if conflict.value is None:
        return members | {"deleted": True}
    return members | {"value": msgspec.Raw(conflict.value)}


def answered(members: dict[str, object], place: Place | Outcome) -> Response:
    """200 with the entity tag of the state."""
    return tagged_json(encode.to_json(members), etag(place))
