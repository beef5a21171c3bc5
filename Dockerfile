# trunkline in a small image. Build: docker build -t trunkline .
FROM rust:1-bookworm AS build
WORKDIR /source
# librdkafka links the system's OpenSSL and zlib; the base image has the compilers.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libssl-dev zlib1g-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
COPY . .
RUN cargo build --profile dist --locked

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --user-group --no-create-home --shell /usr/sbin/nologin trunkline
COPY --from=build /source/target/dist/trunkline /usr/local/bin/trunkline
USER trunkline
# HTTP: console, events, routing, metrics. Needs http.api_keys as soon as it listens beyond loopback.
EXPOSE 8080
ENTRYPOINT ["trunkline"]
CMD ["run"]
