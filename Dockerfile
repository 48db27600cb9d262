# syntax=docker/dockerfile:1
# The production image: docker build -t syncbridge . && docker run -p 8080:8080 --env-file .env syncbridge
#
# The first stage builds the pages. The second compiles the wheel and installs it with its
# dependencies, in the versions and with the hashes of deploy/requirements.lock; the third carries the
# result without a compiler. No Redis
# inside: point REDIS_ADDR at one. It runs read-only, with a tmpfs on /tmp.

FROM node:22-bookworm-slim AS pages
WORKDIR /src/pages
COPY clients/js/src /src/clients/js/src
COPY pages /src/pages
RUN npm ci --omit=dev --no-audit --no-fund && PAGES_OUT=/pages npm run build

FROM python:3.11-slim-bookworm AS build
ARG VERSION=0.1.dev0
ENV SETUPTOOLS_SCM_PRETEND_VERSION=$VERSION
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY core_ext core_ext
COPY pysrc pysrc
COPY server server
COPY tools tools
COPY --from=pages /pages server/syncbridge_server/pages/built
COPY deploy/requirements.lock deploy/
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
 && python -m venv --without-pip /opt/syncbridge \
 && pip --python /opt/syncbridge/bin/python install --no-cache-dir --only-binary :all: \
      --require-hashes --requirement deploy/requirements.lock \
 && pip --python /opt/syncbridge/bin/python install --no-cache-dir --no-deps /wheels/*.whl \
 && find /opt/syncbridge -name '*.so' -exec strip --strip-unneeded {} +

FROM python:3.11-slim-bookworm
ARG VERSION=0.1.dev0
LABEL org.opencontainers.image.title="SyncBridge" \
      org.opencontainers.image.description="Keeps the live state of a user's session true on all of their devices." \
      org.opencontainers.image.version="$VERSION" \
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
# With TLS, whose certificate names another host, it asks over TLS.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["python", "-c", "import os, ssl, urllib.request as r; s = 's' * bool(os.environ.get('SYNCBRIDGE_TLS_CERT')); r.urlopen(f'http{s}://127.0.0.1:8080/health/live', timeout=2, context=ssl._create_unverified_context())"]
ENTRYPOINT ["syncbridge"]
CMD ["serve"]
