# syntax=docker/dockerfile:1

# Same version as rust-toolchain.toml, which is not copied because it requests components that the build does not need.
ARG RUST_VERSION=1.95.0

FROM rust:${RUST_VERSION}-slim-bookworm AS build
ARG TARGETPLATFORM
WORKDIR /src
# Embeds the dependency list in the binary, where trivy, grype and syft find it for vulnerability scans and the SBOM
# (docker buildx build --sbom=true).
ARG CARGO_AUDITABLE_VERSION=0.7.7
RUN --mount=type=cache,id=cargo-registry,target=/usr/local/cargo/registry \
    cargo install cargo-auditable --version "${CARGO_AUDITABLE_VERSION}" --locked
COPY . .
RUN --mount=type=cache,id=cargo-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=cargo-target-${TARGETPLATFORM},target=/src/target \
    cargo auditable build --release --locked --package aws-deploy-user-operator --bin aws-deploy-user-operator \
    && install -D -m 0755 target/release/aws-deploy-user-operator /out/aws-deploy-user-operator

# glibc and public CA certificates; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="aws-deploy-user-operator" \
    org.opencontainers.image.description="Kubernetes operator that turns AwsDeployUser resources into IAM users, policies and rotating access keys" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/aws-deploy-user-operator /usr/local/bin/aws-deploy-user-operator
# Numeric, because Kubernetes verifies runAsNonRoot only for numeric users.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/aws-deploy-user-operator"]
