# One image for broker, edge and workers; the engines that need PyTorch have one of their own.
#   docker build -t voicebus .                          broker, edge, kokoro worker
#   docker build -t voicebus-gpu --target gpu .

# Pin it by digest where you build: `docker buildx imagetools inspect python:3.12-slim-bookworm` prints today's, and
# `docker build --build-arg BASE=python@sha256:…` takes it. None is written here: it would be old in a month, without what was mended since.
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE} AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 10001 voicebus \
    && install -d -o voicebus -g voicebus /srv/voicebus/voices /srv/voicebus/logs /srv/voicebus/state /home/voicebus/.cache \
    && install -d -o voicebus -g voicebus -m 700 /srv/voicebus/keys /srv/voicebus/keys-of/edge /srv/voicebus/keys-of/workers
WORKDIR /srv/voicebus

# pyworld has no wheel for Linux: a compiler here, and none in what is shipped.
FROM base AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY requirements /src/requirements
ENV LOCKED="/opt/voicebus/bin/pip install --require-hashes --no-deps --no-build-isolation"
RUN python -m venv /opt/voicebus \
    && $LOCKED -r /src/requirements/build.txt \
    && $LOCKED -r /src/requirements/run.txt
COPY . /src
RUN /opt/voicebus/bin/pip install --no-deps --no-build-isolation /src \
    && /opt/voicebus/bin/pip check

FROM base AS plain
COPY --from=build /opt/voicebus /opt/voicebus
COPY config.yaml /srv/voicebus/config.yaml
ENV PATH=/opt/voicebus/bin:$PATH
USER voicebus
VOLUME ["/srv/voicebus/voices", "/srv/voicebus/logs", "/srv/voicebus/state", "/home/voicebus/.cache"]

# PyTorch by version: its builds differ by machine, so no lock can have their hashes.
FROM build AS build-gpu
RUN /opt/voicebus/bin/pip install torch==2.13.0 \
    && /opt/voicebus/bin/pip install --no-deps torchaudio==2.11.0 torchcodec==0.17.0 \
    && $LOCKED -r /src/requirements/engines.txt \
    && /opt/voicebus/bin/pip check

# torchcodec reads recordings by FFmpeg's libraries.
FROM plain AS gpu
USER root
RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*
COPY --from=build-gpu /opt/voicebus /opt/voicebus
USER voicebus

# The last stage is what `docker build` makes unless told otherwise.
FROM plain AS voicebus
