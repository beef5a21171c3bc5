# Everything a fresh Debian machine needs is installed by the targets themselves (scripts/setup.sh).
SHELL := /bin/bash
.DEFAULT_GOAL := help

# A toolchain that setup has just installed is not yet in every shell's PATH; an older one may be in /usr/bin.
export PATH := $(HOME)/.cargo/bin:$(PATH)

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
SERVICES := scripts/services.sh
# The tests find their services by TRUNKLINE_TEST_*; what an application would read is taken out of their environment.
IN_SERVICES = env -u TRUNKLINE_KAFKA__BROKERS -u TRUNKLINE_POSTGRES__URL \
	TRUNKLINE_TEST_VICTORIA="$$(command -v victoria-metrics || true)"

.PHONY: help demo test conformance build bench check faults clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do \
		printf '  make %-11s %s\n' "$$name" "$$text"; done

demo: ## everything on this machine, with a simulated Genesys Cloud; options in DEMO_ARGS="--speed 60"
	@scripts/setup.sh all
	@scripts/kafka-jars.sh
	cargo build --release --locked
	@exec $(TARGET_DIR)/release/trunkline demo $(DEMO_ARGS)

test: ## all tests, against a Kafka and a Postgres of their own; options in TEST_ARGS="--test broker"
	@scripts/setup.sh all chromium promtool victoria-metrics
	@scripts/kafka-jars.sh
	cargo test --locked --no-run $(TEST_ARGS)
	@exec $(SERVICES) fresh test -- $(IN_SERVICES) cargo test --locked $(TEST_ARGS)

conformance: ## the simulated platform and trunkline's own requests, held to Genesys Cloud's official SDKs
	@scripts/setup.sh build
	@conformance/install.sh
	cargo build --locked
	TRUNKLINE_CONFORMANCE_REQUESTS=$(CURDIR)/.local/conformance/requests.json \
		cargo test --locked --test platform -- own_calls
	@conformance/run.sh .local/conformance/requests.json

build: ## the binary as it is shipped, target/dist/trunkline
	@scripts/setup.sh build
	cargo build --profile dist --locked

# The peers' own version of Kafka.
bench: export KAFKA_VERSION = 4.4.0
bench: ## speed, against a Kafka and a Postgres of their own, into docs/benchmarks.md; options in BENCH_ARGS
	@scripts/setup.sh all
	@scripts/kafka-jars.sh
	cargo bench --locked --no-run $(BENCH_ARGS)
	@exec $(SERVICES) fresh bench -- $(IN_SERVICES) TRUNKLINE_BENCH_WRITE=1 cargo bench --locked $(BENCH_ARGS)

check: ## format, lints, descriptions and manifests by published schemas, dependencies, unused ones and licences
	@scripts/setup.sh build documents promtool
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@scripts/check-documents.sh
	@scripts/check-dashboards.sh
	@scripts/check-deploy.sh
	@scripts/check-dependencies.sh

faults: ## long fault tests: kills, proxies, restarts; FAULTS_ARGS as for cargo test
	@scripts/setup.sh all promtool
	@scripts/kafka-jars.sh
	cargo test --locked --no-run --test faults --features failpoints
	@exec $(SERVICES) fresh faults -- $(IN_SERVICES) TRUNKLINE_FAULTS=long \
		cargo test --locked --test faults --features failpoints $(FAULTS_ARGS)

clean: ## removes build results, fetched files and stopped services' data; leaves running services alone
	@for dir in .local/*/; do \
		dir=$${dir%/}; \
		[[ -e $$dir/.trunkline-services ]] || continue; \
		if $(SERVICES) status $$dir | grep -q running; then \
			echo "clean: $$dir is running and stays; end it with: $(SERVICES) remove $$dir"; \
		else \
			$(SERVICES) remove $$dir; \
		fi; \
	done
	@compgen -G '.local/*/.trunkline-services' >/dev/null || rm -rf .local
	cargo clean
