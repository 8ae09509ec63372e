# One image for broker, edge and workers; the engines that need PyTorch have one of their own.
#   docker build -t voicebus .                          broker, edge, kokoro worker
#   docker build -t voicebus-gpu --target gpu .

FROM python:3.12-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 10001 voicebus \
    && install -d -o voicebus -g voicebus /srv/voicebus/voices /srv/voicebus/logs /srv/voicebus/state /home/voicebus/.cache
WORKDIR /srv/voicebus

# pyworld has no wheel for Linux: a compiler here, and none in what is shipped.
FROM base AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN python -m venv /opt/voicebus && /opt/voicebus/bin/pip install '/src[kokoro,edge]'

FROM base AS plain
COPY --from=build /opt/voicebus /opt/voicebus
COPY config.yaml /srv/voicebus/config.yaml
ENV PATH=/opt/voicebus/bin:$PATH
USER voicebus
VOLUME ["/srv/voicebus/voices", "/srv/voicebus/logs", "/srv/voicebus/state", "/home/voicebus/.cache"]

FROM build AS build-gpu
RUN /opt/voicebus/bin/pip install torch torchaudio torchcodec \
    && /opt/voicebus/bin/pip install '/src[kokoro,edge,xtts,openvoice,gpt-sovits]'

# torchcodec reads recordings by FFmpeg's libraries.
FROM plain AS gpu
USER root
RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*
COPY --from=build-gpu /opt/voicebus /opt/voicebus
USER voicebus

# The last stage is what `docker build` makes unless told otherwise.
FROM plain AS voicebus
