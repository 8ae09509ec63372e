# One image for broker, edge and workers; the engines that need PyTorch have images of their own (see `target`s).
#   docker build -t voicebus .            broker, edge, kokoro worker
#   docker build -t voicebus-gpu --target gpu .

FROM python:3.12-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 10001 voicebus \
    && install -d -o voicebus -g voicebus /srv/voicebus/voices /srv/voicebus/logs /srv/voicebus/state /home/voicebus/.cache
WORKDIR /srv/voicebus

FROM base AS build
COPY . /src
RUN python -m venv /opt/voicebus && /opt/voicebus/bin/pip install '/src[kokoro,edge]'

FROM base AS voicebus
COPY --from=build /opt/voicebus /opt/voicebus
COPY config.yaml /srv/voicebus/config.yaml
ENV PATH=/opt/voicebus/bin:$PATH
USER voicebus
VOLUME ["/srv/voicebus/voices", "/srv/voicebus/logs", "/srv/voicebus/state", "/home/voicebus/.cache"]

FROM voicebus AS gpu
USER root
COPY --from=build /src /src
RUN /opt/voicebus/bin/pip install torch torchaudio torchcodec \
    && /opt/voicebus/bin/pip install '/src[kokoro,edge,xtts,openvoice,gpt-sovits]' && rm -r /src
USER voicebus
