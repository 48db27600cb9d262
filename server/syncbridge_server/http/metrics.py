"""GET /metrics: the registry as Prometheus text, or as OpenMetrics when it is asked for."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge_server.openapi.describe import Answer, describe


def metrics_routes(registry: CollectorRegistry) -> list[BaseRoute]:
    """The route over one registry."""

    @describe(
        "Metrics for Prometheus",
        answers={200: Answer("Prometheus text, or OpenMetrics when asked for.", str, "text/plain")},
        public=True,
        limited=False,
    )
    async def metrics(request: Request) -> Response:
        """Every counter and gauge of this process."""
        encode: Callable[[CollectorRegistry], bytes]
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        headers = {"Content-Type": media_type, "Cache-Control": "no-store"}
        return Response(encode(registry), headers=headers)

    return [Route("/metrics", metrics, methods=["GET"])]
