"""OpenAPI 3.1 out of an application's routes. Pure; `http/documents.py` serves it.

Schemas come from msgspec: `schema_components` names every type once and refers to it. A path
parameter `session_id` is a UUID wherever it stands; other parameters are strings unless the
description says more.
"""

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from inspect import cleandoc
from typing import Any, NamedTuple

import msgspec
from starlette.routing import BaseRoute, Route

from syncbridge_server.openapi.describe import Answer, Description, Problem

REFERENCE = "#/components/schemas/{name}"
PROBLEM_TYPE = "application/problem+json"
_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
_PATH_SCHEMAS = {"session_id": {"type": "string", "format": "uuid"}}
_STRING = {"type": "string", "minLength": 1}
Json = dict[str, Any]


class Operation(NamedTuple):
    """A method of a route, and what its endpoint says about it."""

    path: str
    method: str
    description: Description
    text: str


def undescribed(routes: Iterable[BaseRoute]) -> list[str]:
    """Paths of HTTP routes whose endpoint has no description, pages excepted."""
    shown = (r for r in routes if isinstance(r, Route) and r.include_in_schema)
    return [route.path for route in shown if _description(route) is None]


def operations(routes: Iterable[BaseRoute]) -> Iterator[Operation]:
    """Every described operation, in the order of the routes; HEAD goes without saying."""
    for route in routes:
        description = _description(route) if isinstance(route, Route) else None
        if description is None or not isinstance(route, Route):
            continue
        path = _PARAMETER.sub(r"{\1}", route.path)
        text = cleandoc(route.endpoint.__doc__ or "")
        for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
            yield Operation(path, method.lower(), description, text)


def document(
    routes: Iterable[BaseRoute], version: str, optional_token: bool = False, root: str = ""
) -> Json:
    """The whole description.

    Args:
        version: of the server.
        optional_token: callers may go without a token (development on this machine).
        root: path under which a proxy shows the server.
    """
    found = list(operations(routes))
    schemas = _Schemas(found)
    paths: dict[str, Json] = {}
    for operation in found:
        described = _operation(operation, schemas, optional_token)
        paths.setdefault(operation.path, {})[operation.method] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SyncBridge",
            "version": version,
            "description": "Keeps the live state of a user's session true on all devices.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": root or "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas.shown(found),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
        },
    }


class _Schemas:
    """The schema of each type that the operations name."""

    def __init__(self, found: Iterable[Operation]) -> None:
        kinds: list[Any] = [Problem]
        for operation in found:
            kinds += [k for k in _types(operation.description) if k not in kinds]
        schemas, self.components = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
        self._by_type = list(zip(kinds, schemas, strict=True))

    def shown(self, found: Iterable[Operation]) -> Json:
        """The components, but for those of queries: nothing refers to them."""
        queries = [o.description.query for o in found if o.description.query is not None]
        hidden = {self.of(query)["$ref"].rpartition("/")[2] for query in queries}
        return {name: one for name, one in self.components.items() if name not in hidden}

    def of(self, kind: Any) -> Json:
        """The schema of a type; a reference when it has a name."""
        return next(schema for known, schema in self._by_type if known == kind)

    def members(self, kind: type[msgspec.Struct]) -> Iterator[tuple[str, Json, bool]]:
        """(name, schema, required?) of a Struct's fields."""
        name = self.of(kind)["$ref"].rpartition("/")[2]
        whole = self.components[name]
        for member, schema in whole["properties"].items():
            yield member, schema, member in whole.get("required", ())


def _types(description: Description) -> Iterator[Any]:
    for answer in description.answers.values():
        body = answer.body if isinstance(answer, Answer) else answer
        if body is not None:
            yield body
    if description.body is not None:
        yield description.body
    if description.query is not None:
        yield description.query
    yield from description.path.values()


def _description(route: Route) -> Description | None:
    found = getattr(route.endpoint, "description", None)
    return found if isinstance(found, Description) else None


def _operation(operation: Operation, schemas: _Schemas, optional_token: bool) -> Json:
    description = operation.description
    token: list[Json] = [] if description.public else [{"bearer": []}]
    if optional_token and token:
        token.append({})
    out: Json = {
        "operationId": _identifier(operation),
        "tags": [description.tag or operation.path.split("/")[1]],
        "summary": description.summary,
        "description": operation.text,
        "security": token,
        "parameters": [*_path_parameters(operation, schemas), *_others(description, schemas)],
        "responses": _responses(description, schemas),
    }
    if description.body is not None:
        content = {"application/json": {"schema": schemas.of(description.body)}}
        out["requestBody"] = {"required": True, "content": content}
    return out


def _identifier(operation: Operation) -> str:
    words = re.findall(r"\w+", operation.path)
    return "_".join([operation.method, *(words or ["root"])])


def _path_parameters(operation: Operation, schemas: _Schemas) -> Iterator[Json]:
    for name in _PARAMETER.findall(operation.path):
        kind = operation.description.path.get(name)
        schema = schemas.of(kind) if kind is not None else _PATH_SCHEMAS.get(name, _STRING)
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _others(description: Description, schemas: _Schemas) -> Iterator[Json]:
    if description.query is not None:
        for name, schema, required in schemas.members(description.query):
            yield {"name": name, "in": "query", "required": required, "schema": schema}
    for name, text in description.headers.items():
        schema = {"type": "string"}
        yield {"name": name, "in": "header", "description": text, "schema": schema}


def _responses(description: Description, schemas: _Schemas) -> Json:
    responses = {}
    for status, answer in description.answers.items():
        known = answer if isinstance(answer, Answer) else Answer(HTTPStatus(status).phrase, answer)
        responses[str(status)] = _response(known, schemas)
    for status in description.problem_statuses():
        if str(status) not in responses:
            problem = Answer(HTTPStatus(status).phrase, Problem, PROBLEM_TYPE)
            responses[str(status)] = _response(problem, schemas)
    for status_text in {"429", "503"} & responses.keys():
        responses[status_text]["headers"] |= _RETRY_AFTER
    return dict(sorted(responses.items()))


_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which repeating makes sense.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_REQUEST_ID = {
    "X-Request-ID": {
        "description": "Finds this request in the log.",
        "schema": {"type": "string"},
    }
}


def _response(answer: Answer, schemas: _Schemas) -> Json:
    out: Json = {"description": answer.text, "headers": dict(_REQUEST_ID)}
    if answer.body is not None:
        out["content"] = {answer.media_type: {"schema": schemas.of(answer.body)}}
        out["content"] |= {kind: {"schema": {"type": "string"}} for kind in answer.texts}
    return out
