# `make demo` and `make test` work on a fresh machine; everything is idempotent and fast the second time.
PYTHON ?= python3
JOBS   ?= 2
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

TENSORFLOW := .venvs/tensorflow

.PHONY: install tensorflow peers triton demo test check golden bench images clean

install: $(STAMP)

# The compiled twins of the hot path are built by the installation, and again when their source changes.
NATIVE := setup.py functions/wire/native.h functions/wire/_http1.c router_fn/_hot.c router_fn/_json.c

# pip, not a faster installer: only pip honours a machine's own wheel directories (find-links).
$(STAMP): pyproject.toml constraints.txt $(NATIVE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

# TensorFlow is 1.3 GB, so it has an environment of its own; the tests of what needs it run when it exists.
tensorflow: $(TENSORFLOW)/.installed

$(TENSORFLOW)/.installed: pyproject.toml constraints.txt
	@test -x $(TENSORFLOW)/bin/python || $(PYTHON) -m venv $(TENSORFLOW)
	$(TENSORFLOW)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[local,tensorflow,grpc,sklearn]'
	@touch $@

# What others wrote for KServe, Seldon and TensorFlow Serving, with libraries of their time: our tests and
# benchmarks talk to it when it is there.
peers: tensorflow .venvs/tfs-client/.installed .venvs/seldon-core/.installed .venvs/kserve/.installed .venvs/mlserver/.installed triton

# NVIDIA's Triton, without containers; examples/triton-transformer and its test use it when it is there.
triton: .venvs/triton/.installed

.venvs/triton/.installed: PACKAGES := nvidia-pytriton==0.7.0 onnxruntime

.venvs/tfs-client/.installed: PACKAGES := min-tfs-client==1.0.2 'protobuf<=3.20.3' 'numpy<2' 'setuptools<81'
.venvs/seldon-core/.installed: PACKAGES := seldon-core==1.17.1 'setuptools<70'
.venvs/kserve/.installed: PACKAGES := kserve==0.21.0 scikit-learn==1.9.1 flask gunicorn hpack pysimdjson
.venvs/mlserver/.installed: PACKAGES := mlserver==1.7.1 mlserver-sklearn==1.7.1
.venvs/pytriton/.installed: PACKAGES := nvidia-pytriton==0.7.0 scikit-learn==1.9.1
.venvs/%/.installed: Makefile
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(PACKAGES)
	@touch $@

demo: install
	@$(BIN)/turnout demo

test: install
	$(BIN)/python -m pytest -n $(JOBS)

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
	rm -rf $(STAMP) .demo .turnout build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find functions router_fn -name '*.so' -delete
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
