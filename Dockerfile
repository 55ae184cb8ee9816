# syntax=docker/dockerfile:1

FROM rust:1-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
# The cache mounts stay on the build machine, so the binary is copied out of target/ in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin portcullis \
 && install -D -s target/release/portcullis /out/portcullis \
 && install -d -m 0750 /out/data

FROM debian:bookworm-slim
# The authorities by which https:// upstreams are verified.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid 10001 portcullis \
 && useradd --system --uid 10001 --gid portcullis --no-create-home --shell /usr/sbin/nologin portcullis
COPY --from=build /out/portcullis /usr/local/bin/portcullis
COPY --from=build --chown=portcullis:portcullis /out/data /data
COPY examples/compose-gateway.yaml /etc/portcullis/gateway.yaml
USER portcullis
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["portcullis", "health", "--config", "/etc/portcullis/gateway.yaml"]
ENTRYPOINT ["portcullis"]
CMD ["run", "--config", "/etc/portcullis/gateway.yaml"]
