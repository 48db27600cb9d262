# syntax=docker/dockerfile:1
# The production image: docker build -t syncbridge . && docker run -p 8080:8080 --env-file .env syncbridge
#
# The first stage compiles the wheel and installs it with its dependencies; the second carries the
# result without a compiler. No Redis inside: point REDIS_ADDR at one.

FROM python:3.11-slim-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY core_ext core_ext
COPY pysrc pysrc
COPY server server
COPY tools tools
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/syncbridge \
 && /opt/syncbridge/bin/pip install --no-cache-dir /wheels/*.whl

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="SyncBridge" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --system --uid 10001 --home-dir /var/lib/syncbridge --create-home syncbridge
COPY --from=build /opt/syncbridge /opt/syncbridge
ENV PATH=/opt/syncbridge/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SERVER_ADDR=:8080 \
    SYNCBRIDGE_DATA_DIR=/var/lib/syncbridge/data
USER syncbridge
WORKDIR /var/lib/syncbridge
EXPOSE 8080
# Drain takes up to 30 s: give the container longer than that to stop (docker stop --time 40).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health/live', timeout=2)"]
ENTRYPOINT ["syncbridge"]
CMD ["serve"]
