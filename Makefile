# Two commands do the set-up: `make demo` shows llmtagger at work, `make test` proves it.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test torture browser check audit sbom eval bench-tune format docs lock wheel clean

help:  ## Show what can be made.
	@sed -n 's/^\([a-z-]*\):.*  ## /  make \1\t/p' Makefile | expand -t 19

install:  ## Install into .venv what requirements/ locks; does nothing if it is there.
	@$(PYTHON) tools/install.py

demo: install  ## Index the example catalogue, tag new products with a real model, show them.
	$(BIN)/llmtagger index build examples/catalogue.jsonl --vocabulary examples/vocabulary.jsonl -o indexes/examples
	@mkdir -p out
	$(BIN)/llmtagger tag examples/new.jsonl -i indexes/examples -o out/examples.jsonl --llm always --show 8

test: install browser  ## Format, lint, strict types, licences, docs, and tests (a real server among them).
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/check_supply.py licences
	$(BIN)/python tools/cli_reference.py --check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

browser:  # Debian's Chromium, for the studio's tests; without one they are skipped
	@for name in chromium google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Chromium for the studio's tests ..."; \
		apt-get update -q >/dev/null; \
		apt-get install -y -q --no-install-recommends chromium >/dev/null && exit 0; \
	fi; \
	echo "No Chromium, so the studio's browser tests are skipped: apt-get install chromium"

torture: install  ## The long form of tests/torture: kills, faults, full disks, damage, hostile texts; some hours.
	$(BIN)/python -m pytest tests/torture --torture

check: test audit  ## `make test` and `make audit`: everything, before a release.

audit: install  ## Look the locked versions up among known holes (osv.dev); says so where it has no network.
	$(BIN)/python tools/check_supply.py audit

sbom: install  ## Write dist/sbom.json, a bill of materials (CycloneDX) of what is locked.
	$(BIN)/python tools/check_supply.py sbom dist/sbom.json

eval: install  ## Run eval/runs on the gold sets in LLMTAGGER_GOLD; MODEL=folder adds a larger model.
	$(BIN)/python tools/evaluate.py $(if $(MODEL),--larger $(MODEL))

bench-tune: install  ## Tune the model to four gold sets and measure what that adds (LLMTAGGER_GOLD).
	$(BIN)/python benchmarks/tune.py shopify_store_freetags_en flipkart_cat_en wdc_pave_norm_en oa_mine_en

format: install  ## Format the code and mend what the linter can.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install  ## Write the generated pages anew.
	$(BIN)/python tools/cli_reference.py

lock: install  ## Resolve requirements/*.lock anew, with hashes; LOCK=--upgrade renews all versions.
	$(BIN)/python tools/install.py lock $(LOCK)
	@$(PYTHON) tools/install.py

wheel: install  ## Build dist/llmtagger-*.whl.
	$(BIN)/uv build --wheel --no-build-isolation --python $(BIN)/python

clean:  ## Remove what was made, .venv included; indexes and tagged files stay.
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
