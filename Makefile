# Everything a contributor runs. CI runs the same: see .ci/run.
.DEFAULT_GOAL := help
.PHONY: help setup test test/race bench lint tidy

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z\/]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make sure that the tests find PostgreSQL, PgBouncer and Chromium; as root on Debian or Ubuntu, install them
	@scripts/setup.sh

test: ## run all tests of all modules, under the race detector if there is a C compiler
	@scripts/test.sh

test/race: ## the same, but fail without the race detector
	@RACE=1 scripts/test.sh

bench: setup ## run the benchmarks
	@if [ -f bench/go.mod ]; then cd bench && go test -bench . -benchmem -run '^$$' ./...; \
	else echo "there are no benchmarks yet"; fi

lint: ## formatting, vet, staticcheck, dependencies, tidiness
	@scripts/lint.sh

tidy: ## go mod tidy in all modules
	@scripts/each-module.sh go mod tidy
	@go -C tools mod tidy
