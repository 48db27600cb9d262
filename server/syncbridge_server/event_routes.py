"""The routes of events: reading them, and what administers the endpoints to which they are sent."""

from starlette.routing import BaseRoute

from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.events.assembly import Events
from syncbridge_server.http.endpoints import EndpointRoutes
from syncbridge_server.http.events import EventRoutes


def event_routes(events: Events, authenticate: BearerAuth) -> list[BaseRoute]:
    """For the application's router."""
    endpoints = EndpointRoutes(
        events.endpoints, events.store, events.switch, authenticate, events.networks
    )
    return [*EventRoutes(events.reader, authenticate).routes(), *endpoints.routes()]
