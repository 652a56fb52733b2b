# One image for every role; docker-compose.yml has it run in four ways.
#
#   docker build -t localhost/lakehouse:0.1.0 .
#   docker run --rm -v lakehouse:/var/lib/lakehouse localhost/lakehouse:0.1.0 token create admin --scope operator
#   docker run --read-only --tmpfs /tmp -v lakehouse:/var/lib/lakehouse -p 3100:3100 localhost/lakehouse:0.1.0

FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && python -m venv /opt/lakehouse
WORKDIR /build
COPY deploy/requirements.lock deploy/sources.lock deploy/
RUN /opt/lakehouse/bin/pip install --no-deps --require-hashes --only-binary :all: -r deploy/requirements.lock
# Compiled for any processor of its kind: the image runs on others than the one that made it.
RUN HNSWLIB_NO_NATIVE=1 /opt/lakehouse/bin/pip install --no-deps --require-hashes \
  --no-build-isolation -r deploy/sources.lock
COPY pyproject.toml README.md ./
COPY services services
COPY sidecar sidecar
# Nothing is fetched here: what the package needs is in the environment already.
RUN /opt/lakehouse/bin/pip install --no-deps --no-build-isolation --no-index . \
 && /opt/lakehouse/bin/pip uninstall --yes setuptools pybind11 pip \
 && python -m compileall -q /opt/lakehouse

FROM python:3.11.14-slim-bookworm
RUN python -m compileall -q /usr/local/lib/python3.11 \
 && groupadd --gid 10001 lakehouse \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/lakehouse lakehouse \
 && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/lakehouse /bucket
COPY --from=build /opt/lakehouse /opt/lakehouse

# Numbers, so that an orchestrator can see that it is not root. A volume mounted for the first time
# at one of these two folders takes its owner from here.
USER 10001:10001
WORKDIR /var/lib/lakehouse
VOLUME /var/lib/lakehouse

# The root file system may be read-only: all that is written is below the volume and /tmp.
ENV PATH=/opt/lakehouse/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/var/lib/lakehouse \
    XDG_STATE_HOME=/var/lib/lakehouse/state \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LAKEHOUSE__GATEWAY__HTTP=0.0.0.0:3100 \
    LAKEHOUSE__GATEWAY__GRPC=0.0.0.0:3101 \
    LAKEHOUSE__GATEWAY__AUTH=tokens \
    LAKEHOUSE__TELEMETRY__HTTP=0.0.0.0:3102 \
    LAKEHOUSE__NODE__LOG_FORMAT=json
EXPOSE 3100 3101 3102

# The gateway answers at 3100; a process without one answers the same at 3102.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:3100/health', timeout=4)"]

# Process 1 is the node itself: it stops on SIGTERM, drains and seals, and needs no init to do so.
STOPSIGNAL SIGTERM
ENTRYPOINT ["lakehouse"]
CMD ["up"]
