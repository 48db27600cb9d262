"""Which resource a path names, and which methods it takes (RFC 9110 sections 9.1, 10.2.1). Pure.

A resource is all routes that share a path. A path without parameters is looked up first, so
`/session/snapshot` is never the session `snapshot`; then those whose parameters are whole segments,
by their first segment and number of segments; then those in which a parameter may hold slashes. Of
these several can fit one path (`/sessions/a/state` is the state of the call `a`, and the call
`a/state`): the first that takes the method answers, and what the path takes is all of theirs.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from starlette.convertors import PathConvertor, StringConvertor
from starlette.routing import BaseRoute, Route

_PARAMETERS = (StringConvertor, PathConvertor)


class Resource(NamedTuple):
    """The routes of one path, by method; GET has brought HEAD with it."""

    pattern: re.Pattern[str]
    routes: Mapping[str, Route]
    route: Route


class Found(NamedTuple):
    """The resource of a path. `parameters`: those that are in the path; they are not to be changed.

    `route`: takes the method; None: no route does, and `resource` says what would be taken.
    """

    resource: Resource
    route: Route | None
    parameters: dict[str, str]
    methods: frozenset[str]


class Resources:
    """The resources of an application. Raises ValueError for a path that it cannot look up."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._literal: dict[str, Resource] = {}
        self._by_segments: dict[tuple[int, str], list[Resource]] = {}
        self._deep: list[Resource] = []
        for resource in _grouped(routes):
            self._place(resource)
        self.methods = frozenset(method for one in self._all() for method in one.routes)
        self._exact = {
            (path, method): _found(resource, method, {})
            for path, resource in self._literal.items()
            for method in resource.routes
        }

    def _place(self, resource: Resource) -> None:
        path, kinds = resource.route.path, resource.route.param_convertors.values()
        first = path.split("/", 2)[1]
        if "{" in first or any(type(kind) not in _PARAMETERS for kind in kinds):
            raise ValueError(f"{path}: begin with a plain segment; parameters are texts or paths")
        if not kinds:
            self._literal[path] = resource
        elif any(isinstance(kind, PathConvertor) for kind in kinds):
            self._deep.append(resource)
        else:
            self._by_segments.setdefault((path.count("/"), first), []).append(resource)

    def _all(self) -> list[Resource]:
        middle = [one for some in self._by_segments.values() for one in some]
        return [*self._literal.values(), *middle, *self._deep]

    def find(self, path: str, method: str) -> Found | None:
        """The resource of a path, or None. Where it stands in the table decides how long that
        takes."""
        found = self._exact.get((path, method))
        if found is not None:
            return found
        resource = self._literal.get(path)
        if resource is not None:
            return _found(resource, method, {})
        parts = path.split("/", 2)
        if len(parts) < 2:
            return None
        for resource in self._by_segments.get((path.count("/"), parts[1]), ()):
            match = resource.pattern.match(path)
            if match is not None:
                return _found(resource, method, match.groupdict())
        return self._find_deep(path, method)

    def _find_deep(self, path: str, method: str) -> Found | None:
        matches = [(one, one.pattern.match(path)) for one in self._deep]
        fitting = [(one, match) for one, match in matches if match is not None]
        if not fitting:
            return None
        taken = frozenset(taken for one, _ in fitting for taken in one.routes)
        for one, match in fitting:
            if method in one.routes:
                return Found(one, one.routes[method], match.groupdict(), taken)
        one, match = fitting[0]
        return Found(one, None, match.groupdict(), taken)


def _found(resource: Resource, method: str, parameters: dict[str, str]) -> Found:
    route = resource.routes.get(method)
    return Found(resource, route, parameters, frozenset() if route else frozenset(resource.routes))


def _grouped(routes: Iterable[BaseRoute]) -> list[Resource]:
    groups: dict[str, dict[str, Route]] = {}
    first: dict[str, Route] = {}
    for route in routes:
        if isinstance(route, Route):
            first.setdefault(route.path, route)
            group = groups.setdefault(route.path, {})
            for method in route.methods or ():
                group.setdefault(method, route)
    return [Resource(one.path_regex, groups[path], one) for path, one in first.items()]
