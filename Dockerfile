# The host in an image. BASE_IMAGE is any Debian-like image with Python 3.11 or newer:
#   docker build --build-arg BASE_IMAGE=python:3.12-slim -t funcrt .
#   docker run -p 8080:8080 -v data:/data -v ./functions:/functions:ro funcrt
ARG BASE_IMAGE=python:3.12-slim
FROM ${BASE_IMAGE}

COPY requirements.lock pyproject.toml README.md /src/
RUN python3 -m venv /opt/funcrt \
    && /opt/funcrt/bin/pip install --no-cache-dir --requirement /src/requirements.lock

COPY mesh /src/mesh
COPY triggers /src/triggers
COPY funcrt /src/funcrt
COPY templates /src/templates
RUN /opt/funcrt/bin/pip install --no-cache-dir --no-deps --no-build-isolation /src \
    && useradd --system --uid 10001 funcrt \
    && mkdir /data && chown funcrt /data

USER funcrt
VOLUME /data
ENV PATH=/opt/funcrt/bin:$PATH FUNCRT_DATA=/data
EXPOSE 8080
# Only the loopback may be bound without tokens: give --host 0.0.0.0 --tokens FILE to be reached.
ENTRYPOINT ["funcrt"]
CMD ["serve", "/functions"]
