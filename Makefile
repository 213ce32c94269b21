# Every target works on a fresh Debian machine with a Swift toolchain. The tests and the demo run the optimised
# build: it is the one that users run, and recordings hold hundreds of megabytes (docs/decisions/0002).

SWIFT ?= swift
BIN = .build/release
PACKAGES = libcrypt-dev libcurl4-openssl-dev libpcre2-dev libsnappy-dev libsqlite3-dev libzstd-dev openssl sqlite3 zlib1g-dev
S ?= 60

.PHONY: soakbench deps build demo test test-slow check fmt bench fuzz coverage docs clean

# Installs what is missing; says nothing when nothing is.
deps:
	@missing=""; for package in $(PACKAGES); do \
		dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" -eq 0 ]; then sudo=""; else sudo="sudo"; fi; \
		$$sudo apt-get update -qq && $$sudo apt-get install -y -qq $$missing; \
	fi

build: deps
	$(SWIFT) build -c release --product upgrade-watch

demo: build
	$(SWIFT) build -c release --product webhook-printer
	scripts/demo.sh $(BIN)

# The fast suite and the tests that start the program.
test: deps
	$(SWIFT) build -c release --build-tests
	$(SWIFT) test -c release --skip-build

# The tests that take minutes: kills at random moments.
test-slow: deps
	$(SWIFT) build -c release --build-tests
	UPGRADE_WATCH_SLOW_TESTS=1 $(SWIFT) test -c release --skip-build

# Format and lint, the import directions of the map, the rule files; warnings are errors in every build.
check: build
	$(SWIFT) format lint --strict --recursive Package.swift Sources Tests Benchmarks Fuzz
	scripts/check-layers.sh
	$(BIN)/upgrade-watch check rules alerts/*.yaml
	$(BIN)/upgrade-watch test rules alerts/tests/*.yaml
	$(BIN)/upgrade-watch check dashboards dashboards/*.json
	$(BIN)/upgrade-watch check signals config/signals.yaml
	$(BIN)/upgrade-watch check config --syntax-only config/upgrade-watch.yaml config/in-cluster.yaml

fmt:
	$(SWIFT) format --in-place --recursive Package.swift Sources Tests Benchmarks Fuzz

bench: deps
	UPGRADE_WATCH_BENCHMARKS=1 $(SWIFT) run -c release --scratch-path .build-bench benchmarks

# The tables of results in docs/soakbench.md, with as many seeds as each scenario asks for; SEEDS=1..5 for a quick one.
SEEDS ?= 1701..
SCENARIOS = Benchmarks/SoakBench
soakbench: build
	$(BIN)/upgrade-watch simulate $(filter-out $(wildcard $(SCENARIOS)/null-*),$(wildcard $(SCENARIOS)/*.yaml)) \
		--seeds $(SEEDS) --score --baselines
	$(BIN)/upgrade-watch simulate $(SCENARIOS)/null-*.yaml --seeds $(SEEDS) --score --baselines

# make fuzz T=FuzzExposition S=60: one target for some seconds; without T, all of them.
fuzz: deps
	scripts/fuzz.sh $(S) $(T)

coverage: deps
	$(SWIFT) test --scratch-path .build-coverage --enable-code-coverage
	@$(SWIFT) test --scratch-path .build-coverage --show-codecov-path

docs:
	scripts/docs.sh

clean:
	rm -rf .build .build-* demo-out
