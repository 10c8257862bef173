# `make demo` and `make test` work on a fresh machine; everything is idempotent and fast the second time.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: install demo test check golden bench images clean

install: $(STAMP)

# pip, not a faster installer: only pip honours a machine's own wheel directories (find-links).
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: install
	@$(BIN)/turnout demo

test: install
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

golden: install
	$(BIN)/python -m pytest tests/golden --update-golden

# Container images with docker, podman or buildah, whichever exists; IMAGES="--image-prefix … --push".
images: install
	$(BIN)/turnout images $(IMAGES)

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf .demo .turnout build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
