# One image for the control plane, ext_authz and the rate limit service: `docker build -t dragoman/dragoman:0.1.0 .`
# Envoy is not in it; it runs in its own image (envoy/README.md).
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv --without-pip /opt/dragoman && python -m venv /opt/build
WORKDIR /src
# The dependencies alone first: they change less often than the code.
COPY requirements-image.txt requirements-build.txt ./
RUN /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements-build.txt \
 && /opt/build/bin/pip --python /opt/dragoman/bin/python install --require-hashes --only-binary :all: -r requirements-image.txt
COPY pyproject.toml README.md LICENSE ./
COPY dragoman ./dragoman
COPY controlplane ./controlplane
COPY ext_authz ./ext_authz
COPY ratelimit_service ./ratelimit_service
COPY envoy ./envoy
RUN /opt/build/bin/hatchling build -t wheel -d /dist \
 && /opt/build/bin/pip --python /opt/dragoman/bin/python install --no-index --no-deps /dist/*.whl \
 && /opt/dragoman/bin/python -m compileall -q /opt/dragoman/lib

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Dragoman" \
      org.opencontainers.image.description="An API gateway: Envoy carries every request, Python configures and guards it." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/dragoman /opt/dragoman
ENV PATH=/opt/dragoman/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# All that is written goes here and to /var/tmp; the rest may be read-only.
RUN install -d -o 65532 -g 65532 /var/lib/dragoman
WORKDIR /var/lib/dragoman
# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 18000 18001 9001
ENTRYPOINT ["dragoman"]
CMD ["--help"]
