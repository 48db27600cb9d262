"""GET /metrics: the registry as Prometheus text, or as OpenMetrics when it is asked for."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge_server.openapi.describe import Answer, describe
from syncbridge_server.telemetry.siblings import Siblings

HEADERS = {"Cache-Control": "no-store"}


def metrics_routes(
    registry: CollectorRegistry, siblings: Siblings | None = None
) -> list[BaseRoute]:
    """The route over one registry, or over those of all workers."""

    @describe(
        "Metrics for Prometheus",
        answers={200: Answer("Prometheus text, or OpenMetrics when asked for.", str, "text/plain")},
        public=True,
        limited=False,
    )
    async def metrics(request: Request) -> Response:
        """Every counter, gauge and histogram of this process, or of all of its workers."""
        if siblings is not None:
            return Response(await siblings.gather(), 200, HEADERS, CONTENT_TYPE_PLAIN_0_0_4)
        encode: Callable[[CollectorRegistry], bytes]
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": media_type} | HEADERS)

    return [Route("/metrics", metrics, methods=["GET"])]
