# Edgehold. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := $(CURDIR)/.edgehold/bin
# One set of flags everywhere, so that engines, services and tests share the build cache.
export GOFLAGS := -trimpath -buildvcs=false
export EDGEHOLD_BIN := $(BIN)

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

.PHONY: demo
demo: build ## Build everything, roll back 21 PoPs under live traffic, write out/demo/rollback.html
	@$(BIN)/demo

.PHONY: test
test: build ## Run every test: unit, integration and end to end on the embedded platform
	@tools/test

.PHONY: build
build: ## Build the engines and the services into .edgehold/bin (the first time takes about 10 minutes on 2 cores)
	@go run ./tools/engines

.PHONY: verify
verify: ## Regenerate everything, check formatting, tidiness, vet, lint and protos; fails when the tree changes
	@tools/verify

.PHONY: generate
generate: ## Regenerate protobuf code, deep copies and the CRD
	@tools/generate

.PHONY: lint
lint: ## Run golangci-lint over every module
	@tools/verify lint

.PHONY: bench
bench: bench-rollback bench-llm ## Run every benchmark; tables and out/bench/*.json

.PHONY: bench-rollback
bench-rollback: build ## Measure the global rollback: medians of 5, beside kubectl rollout undo
	@$(BIN)/bench-rollback

.PHONY: bench-llm
bench-llm: build ## Measure the mock of model providers beside bare net/http
	@$(BIN)/bench-llm

.PHONY: conformance-llm
conformance-llm: build ## Run the test suites of OpenAI's and Anthropic's own Go SDKs against llmmock; fails under the stored floor
	@cd services/llmmock && go run ./conformance --binary $(BIN)/llmmock --cache $(CURDIR)/.edgehold/conformance

.PHONY: clean
clean: ## Stop the platform and remove its state, the binaries and the reports
	@if [ -x $(BIN)/edgehold ]; then $(BIN)/edgehold platform down; fi
	@rm -rf .edgehold out
