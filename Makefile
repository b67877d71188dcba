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

.PHONY: help demo build test setup check lint dist bench compare platforms fuzz clean

help:
	@echo "make demo      build the program, then build and run an example image (no registry, no root)"
	@echo "make test      install what the tests need (as root), then run all tests as an ordinary user"
	@echo "make check     type-check everything, quickly"
	@echo "make lint      formatting and lints, warnings denied"
	@echo "make dist      a fully static release binary in dist/"
	@echo "make compare   build the corpus with rootling and compare with buildah's results"
	@echo "make platforms build for two architectures with packages installed, push, read by skopeo and podman (as root, minutes)"
	@echo "make bench     rootling beside buildah, podman and ch-image (as root)"
	@echo "make fuzz      fuzz the parser and the unpacker for $(FUZZ_SECONDS) s each (nightly toolchain)"

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

bench:
	benches/run

fuzz:
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { echo "make fuzz needs a nightly toolchain and cargo-fuzz: cargo install --locked cargo-fuzz" >&2; exit 1; }
	for target in $$(cd fuzz/fuzz_targets && ls *.rs); do \
	    $(CARGO) +nightly fuzz run $${target%.rs} -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

clean:
	$(CARGO) clean
	rm -rf dist
