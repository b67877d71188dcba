# The two commands for a fresh machine are `make demo` and `make test`; see README.md.

CARGO   ?= cargo
TRIPLE  ?= $(shell uname -m)-unknown-linux-gnu
# The development profile compiles quicker (no LTO), and its dependencies are optimised all the same.
TARGET  := $(or $(CARGO_TARGET_DIR),target)
PROGRAM := $(TARGET)/debug/rootling
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
STATIC  := $(TARGET)/$(TRIPLE)/release/rootling
# Fuzz targets run for so many seconds each.
FUZZ_SECONDS ?= 60

.PHONY: help demo build test setup check lint dist bench bench-images copies compare compare-docker platforms matrix matrix-programs round-trip second-registry interop fuzz clean

help:
	@echo "make demo      build the program, then build and run an example image (no registry, no root)"
	@echo "make test      install what the tests need (as root), then run all tests as an ordinary user"
	@echo "make check     type-check everything, quickly"
	@echo "make lint      formatting and lints, warnings denied"
	@echo "make dist      a fully static release binary in dist/"
	@echo "make compare   build the corpus and compare with buildah's results, Docker's and the reference"
	@echo "make platforms build for two architectures with packages installed, push, read by skopeo and podman (as root, minutes)"
	@echo "make matrix    300 Debian packages under real root, in three root emulations and with ch-image (as root, two hours, network)"
	@echo "make matrix-programs  play scenes of programs and of rpm as real root, in RUN, and with ch-image (as root, half an hour, network)"
	@echo "make second-registry  log in, push and pull with another registry than Docker's: pulp-container (as root, minutes, network)"
	@echo "make round-trip  what only root can do, done in RUN, pushed, pulled by podman and compared with real root (as root)"
	@echo "make interop   Docker's engine, podman and buildah load what we save, and we what they save; all files compared (as root)"
	@echo "make compare-docker  record what Docker's engine makes of the corpus (as root; when a case changes)"
	@echo "make gallery   build real Dockerfiles with Docker's engine and with rootling (as root, 15 minutes, network)"
	@echo "make bench     rootling beside buildah, podman and ch-image (as root)"
	@echo "make bench-images  pull, push, save, load, convert and squashfs beside skopeo, podman, buildah, ch-image and mksquashfs (as root)"
	@echo "make copies    a picky image from every place to every place, compared entry by entry; doc/copies.md (Docker's engine as root)"
	@echo "make fuzz      fuzz the parser, the unpacker and the squashfs reader for $(FUZZ_SECONDS) s each (nightly toolchain)"

build:
	$(CARGO) build --locked

demo: build
	examples/demo $(PROGRAM)

setup:
	tests/setup

test: setup
	$(CARGO) test --locked

check:
	$(CARGO) check --locked --all-targets

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

# With an explicit --target the flag does not reach build scripts and procedural macros, which can't be static.
dist:
	RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" $(CARGO) build --locked --release --target $(TRIPLE)
	tests/check-static $(STATIC)
	mkdir -p dist
	install -m 755 $(STATIC) dist/rootling-$(VERSION)-$(TRIPLE)
	ls -l dist

compare: setup build
	tests/compare/run-all $(PROGRAM)

platforms: setup build
	tests/long/two-platforms $(PROGRAM)

# Stopped and started again it goes on; `rm -r target/matrix` begins anew. doc/matrix.md has the table.
matrix: setup
	$(CARGO) build --locked --release
	command -v ch-image >/dev/null && /usr/bin/python3 -c 'import lark' || apt-get install -y -qq --no-install-recommends charliecloud python3-lark
	tests/matrix/debian $(TARGET)/release/rootling

# doc/matrix.md has the table. SCENES names some only, such as SCENES="rpm-install dnf-install".
matrix-programs: setup
	$(CARGO) build --locked --release
	command -v ch-image >/dev/null && /usr/bin/python3 -c 'import lark' || apt-get install -y -qq --no-install-recommends charliecloud python3-lark
	tests/matrix/programs $(TARGET)/release/rootling $(SCENES)

round-trip: setup build
	tests/long/round-trip $(PROGRAM)

# pulp-container from PyPI, and PostgreSQL, once: minutes.
second-registry: setup build
	tests/long/second-registry $(PROGRAM)

interop: setup build
	tests/long/interop $(PROGRAM)

# Every case anew: a minute or two. `git diff tests/corpus` then shows what changed. CASES names some only.
compare-docker: setup
	command -v dockerd >/dev/null || apt-get install -y -qq --no-install-recommends docker.io
	tests/compare/docker-up tests/compare/compare docker $(CASES)

# Not part of `make test`: it installs software from the network, and needs an engine.
gallery: setup build
	command -v dockerd >/dev/null || apt-get install -y -qq --no-install-recommends docker.io
	tests/compare/docker-up tests/compare/gallery docker $(CASES)
	tests/as-user --always tests/compare/gallery check --rootling $(PROGRAM) $(CASES)

bench:
	benches/run

bench-images: setup
	$(CARGO) build --locked --release
	command -v igzip >/dev/null || apt-get install -y -qq --no-install-recommends isal
	benches/images --rootling $(TARGET)/release/rootling

copies: setup
	$(CARGO) build --locked --release
	command -v sqfs2tar >/dev/null || apt-get install -y -qq --no-install-recommends squashfs-tools-ng
	command -v dockerd >/dev/null || apt-get install -y -qq --no-install-recommends docker.io
	[ "$$(id -u)" != 0 ] || tests/copies/umoci $(TARGET)/release/rootling
	tests/copies/copies $(TARGET)/release/rootling >$(TARGET)/copies.md && cp $(TARGET)/copies.md doc/copies.md

fuzz:
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { echo "make fuzz needs a nightly toolchain and cargo-fuzz: cargo install --locked cargo-fuzz" >&2; exit 1; }
	for target in $$(cd fuzz/fuzz_targets && ls *.rs); do \
	    $(CARGO) +nightly fuzz run $${target%.rs} -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

clean:
	$(CARGO) clean
	rm -rf dist
