# The host in an image; docs/image.md says how to build and run it.
#   docker build --build-arg BASE_IMAGE=python:3.13-slim -t funcrt .
# The base is any Debian-like image with Python 3.11 or newer, venv and pip among it.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
# Where pip finds packages, if not in its usual place: known to this stage alone.
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_NO_INDEX PIP_TRUSTED_HOST PIP_CERT
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_CONSTRAINT=/src/requirements.lock
WORKDIR /src
COPY pyproject.toml README.md requirements.lock /src/
RUN python3 -m venv /opt/funcrt && /opt/funcrt/bin/python -m pip uninstall --quiet --yes setuptools
COPY mesh /src/mesh
COPY triggers /src/triggers
COPY funcrt /src/funcrt
COPY templates /src/templates
RUN /opt/funcrt/bin/python -m pip install --quiet /src \
    && /opt/funcrt/bin/python -m pip install --quiet --target /opt/demo httpx

FROM ${BASE_IMAGE} AS base
RUN groupadd --gid 10001 funcrt \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data funcrt \
    && install --directory --owner=10001 --group=10001 /data \
    && mkdir /functions
COPY docs/seccomp.json /opt/funcrt/seccomp.json
# Docker's own profile lets no container make namespaces, so functions run at level `process`, which
# the host says in red. It gives calls in flight less time to end than the 10 s of `docker stop`.
ENV PATH=/opt/funcrt/bin:$PATH \
    FUNCRT_CONTAINED=1 FUNCRT_DATA=/data FUNCRT_ALLOW_ISOLATION=process FUNCRT_DRAIN=7
USER 10001:10001
WORKDIR /data
VOLUME /data

# What `make demo` shows: docker build --target demo -t funcrt-demo .
FROM base AS demo
ENV PYTHONPATH=/opt/demo
COPY --from=build /opt/funcrt /opt/funcrt
COPY --from=build /opt/demo /opt/demo
COPY functions /functions
COPY demo /demo
ENTRYPOINT ["python", "/demo/run.py"]

FROM base
COPY --from=build /opt/funcrt /opt/funcrt
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["funcrt"]
CMD ["serve", "/functions"]
