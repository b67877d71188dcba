FROM almalinux:9 AS mpi
ARG OMPI_VERSION=5.0.5
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN dnf -y install gcc make && dnf clean all
ADD --checksum=sha256:6588d57c0a4bd299a24103f4e196051b29e8b55fbda49e11d5b3d32030a32776 https://example.org/openmpi-${OMPI_VERSION}.tar.bz2 /tmp/
RUN tar xf /tmp/openmpi-*.tar.bz2 -C /usr/src \
 && cd /usr/src/openmpi-$OMPI_VERSION \
 && ./configure --prefix=/usr/local \
 && make -j"$(nproc)" install
FROM mpi
COPY --from=mpi /usr/local /usr/local
LABEL org.opencontainers.image.title="MPI test" \
      org.opencontainers.image.version=$OMPI_VERSION
