"""Traces of updates, requests and webhooks, across nodes, for OpenTelemetry. Off by default.

A trace is carried as a W3C `traceparent`: within a process by a context variable, between nodes in
the commits and news that Redis passes on anyway, from outside in the header of a request, or as the
`correlation_id` of a message. Only what was sampled is carried, so a part of the way that finds one
goes on with it. Whether something from outside is sampled is decided here, whatever its flag says:
else any client could have us trace everything.

Off, the cost is one look at `TRACING.on`. The packages of the extra `otel` are imported on start.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from random import getrandbits
from typing import TYPE_CHECKING

from syncbridge import __version__
from syncbridge_server.environment import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
PARENT_LENGTH = 55
MOST_OPEN = 4_096
"""Updates under way whose spans are kept; those begun first are ended without their answer."""
FLUSH_MS = 3_000

_current: ContextVar[str] = ContextVar("traceparent", default="")

Attributes = dict[str, str | int]


def require_packages() -> None:
    """Import what is slow of the packages of the extra `otel`. Raises ConfigError without them."""
    try:
        import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        import_module("opentelemetry.sdk.trace.export")
    except ImportError as error:
        raise ConfigError(f"SYNCBRIDGE_OTLP_URL needs the extra `otel`: {error}") from None


class Tracing:
    """All of the process. Runs on the Trio thread; spans are sent by a thread of the SDK.

    Attributes:
        on: whether anything is traced.
    """

    def __init__(self) -> None:
        self.on = False
        self._provider: TracerProvider | None = None
        self._processor: SpanProcessor | None = None
        self._scope: InstrumentationScope | None = None
        self._below = 0
        self._open: OrderedDict[str, tuple[Step, Step]] = OrderedDict()

    def start(self, url: str, share: float, node: str) -> None:
        """Trace from now on, unless there is no address. Raises ConfigError.

        Args:
            url: base URL of the collector. share: part that is sampled. node: this process's name.
        """
        if not url or self.on:
            return
        require_packages()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        told: Attributes = {"service.name": "syncbridge", "service.version": __version__}
        self._provider = TracerProvider(
            resource=Resource.create({**told, "service.instance.id": node}),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces")
        self._processor = BatchSpanProcessor(exporter)
        self._provider.add_span_processor(self._processor)
        self._scope = InstrumentationScope("syncbridge", __version__)
        self._below = round(share * 2**64)
        self.on = True

    def stop(self) -> None:
        """Send what is left, for at most FLUSH_MS. Blocks."""
        while self._open:
            self._end_both(*self._open.popitem(last=False)[1])
        provider, self._provider, self._processor = self._provider, None, None
        self.on = False
        if provider is not None:
            provider.force_flush(FLUSH_MS)
            provider.shutdown()

    def current(self) -> str:
        """The traceparent of what this task is doing; empty when that is not traced."""
        return _current.get()

    def begin(self, sid: str, correlation_id: str) -> str:
        """An update came over a socket; returns its traceparent, or "" if it is not sampled."""
        if not self.samples(correlation_id):
            return ""
        update = self._span("STATE_UPDATE", correlation_id, "server", {"session.id": sid})
        if update is None:
            return ""
        trace = update.trace
        redis = self._span("redis apply", trace, "client", {}, ours=True)
        if redis is not None:
            self._open[trace] = update, redis
        if len(self._open) > MOST_OPEN:
            self._end_both(*self._open.popitem(last=False)[1])
        return trace

    @contextmanager
    def answered(self, trace: str, result: str) -> Iterator[None]:
        """Around what is done with the answer to an update, which is then at its end."""
        spans = self._open.pop(trace, None)
        if spans is not None:
            spans[1].end()
        try:
            yield
        finally:
            if spans is not None:
                spans[0].attributes["syncbridge.result"] = result
                spans[0].end()

    @contextmanager
    def child(self, name: str, trace: str, **attributes: str | int) -> Iterator[None]:
        """A step of a trace of ours, around a block; nothing when `trace` is empty."""
        span = self._span(name, trace, "consumer", attributes, ours=True) if trace else None
        with _around(span):
            yield

    @contextmanager
    def request(self, name: str, parent: str) -> Iterator[Attributes]:
        """A request over HTTP that is sampled, around a block, which may add attributes."""
        added: Attributes = {}
        with _around(self._span(name, parent, "server", added)):
            yield added

    def samples(self, parent: str) -> bool:
        """Whether something from outside is traced: by chance, or by the id that it brings.

        The SDK's own sampler says the same, but only once it has a span to say it of.
        """
        if len(parent) == PARENT_LENGTH and (found := PARENT.fullmatch(parent)):
            return int(found[1][16:], 16) < self._below
        return getrandbits(64) < self._below

    def _span(
        self, name: str, parent: str, kind: str, attributes: Attributes, ours: bool = False
    ) -> "Step | None":
        """A step that is traced, and begins now. `ours`: only as a part of a trace of ours."""
        found = PARENT.fullmatch(parent)
        if not self.on or (ours and found is None):
            return None
        trace_id = int(found[1], 16) if found else getrandbits(128) or 1
        above = int(found[2], 16) if found else 0
        return Step(self, name, (trace_id, getrandbits(64) or 1, above), kind, attributes)

    def finish(self, step: "Step") -> None:
        """Have a step sent that is at its end."""
        if self._provider is None or self._processor is None:
            return
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

        trace_id, span_id, above = step.ids
        flags = TraceFlags(TraceFlags.SAMPLED)
        self._processor.on_end(
            ReadableSpan(
                name=step.name,
                context=SpanContext(trace_id, span_id, False, flags),
                parent=SpanContext(trace_id, above, True, flags) if above else None,
                resource=self._provider.resource,
                attributes=step.attributes,
                kind=SpanKind[step.kind.upper()],
                start_time=step.began,
                end_time=time.time_ns(),
                instrumentation_scope=self._scope,
            )
        )

    def _end_both(self, update: "Step", redis: "Step") -> None:
        redis.end()
        update.end()


class Step:
    """A span in the making, without the locks and limits of the SDK's own.

    Args:
        ids: of the trace, of this span, and of the one above it; 0 for none.
    """

    __slots__ = ("_tracing", "attributes", "began", "ids", "kind", "name")

    def __init__(
        self,
        tracing: Tracing,
        name: str,
        ids: tuple[int, int, int],
        kind: str,
        attributes: Attributes,
    ) -> None:
        self._tracing = tracing
        self.name = name
        self.ids = ids
        self.kind = kind
        self.attributes = attributes
        self.began = time.time_ns()

    @property
    def trace(self) -> str:
        """Its traceparent."""
        return f"00-{self.ids[0]:032x}-{self.ids[1]:016x}-01"

    def end(self) -> None:
        """It is over."""
        self._tracing.finish(self)


@contextmanager
def _around(span: "Step | None") -> Iterator[None]:
    """Make a span the current one, and end it."""
    if span is None:
        yield
        return
    token = _current.set(span.trace)
    try:
        yield
    finally:
        _current.reset(token)
        span.end()


TRACING = Tracing()
"""The tracing of this process, as its log is one, too."""
