# `nas` with the versions of requirements.lock; docs/installation.md says how it is built and run.
FROM python:3.11-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.11-slim
# Of an index with CPU builds of PyTorch; else its CUDA libraries come along, some gigabytes.
ARG PIP_EXTRA_INDEX_URL
COPY --from=build /source/requirements.lock /wheels/*.whl /tmp/
RUN pip install --no-cache-dir --constraint /tmp/requirements.lock "$(echo /tmp/hwnas-*.whl)[search]" \
    && rm /tmp/*.whl /tmp/requirements.lock \
    && useradd --create-home nas && mkdir /work && chown nas /work
ENV HOME=/home/nas USER=nas
USER nas
WORKDIR /work
ENTRYPOINT ["nas"]
