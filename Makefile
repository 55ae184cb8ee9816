# `make demo` and `make test` are all that a newcomer needs; both install what is missing.

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint

help: ## What can be made here
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: ## Build, start a backend and the gateway, and walk through the whole life of a token
	@tests/bootstrap
	@cargo build --release --locked --bin portcullis --example backend
	@examples/demo.sh

test: ## Run every test
	@tests/bootstrap test
	@cargo test --locked

bench: ## Compare with nginx, HAProxy, Envoy and Flask, and write bench/RESULTS.md
	@tests/bootstrap test
	@bench/run

lint: ## Formatting, clippy, and cargo-deny where it is installed
	@tests/lint
