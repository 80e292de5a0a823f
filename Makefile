# vqcc: everything runs in a virtual environment that the first target makes.
#
#   make demo        quantize a real weight, compile a kernel library for an H200, validate it: no GPU needed
#   make test        the seeded sample of the tests, 9 to 13 minutes on 2 cores
#   make test-full   the whole matrix, under 60 minutes on 2 cores
#   make check       ruff and mypy --strict
#   make golden      rewrite the golden files after a deliberate change of emitted code
#   make bench       compile and emulator speed on this machine

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
OUT := out/demo
WEIGHT := encoder.layer.3.intermediate.dense.weight

.PHONY: setup demo test test-full check golden bench clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup
	@mkdir -p $(OUT)
	$(BIN)/vqcc quantize tests/data/minilm-ffn.safetensors --tensor $(WEIGHT) --algorithm aqlm-2x8 -o $(OUT)/quantized.safetensors
	$(BIN)/vqcc compile specs/demo-gemv.yaml -o $(OUT)
	$(BIN)/vqcc pack $(OUT)/quantized.safetensors --library $(OUT)/demo-gemv -o $(OUT)/packed.safetensors
	$(BIN)/vqcc validate $(OUT)/demo-gemv --tensors $(OUT)/quantized.safetensors --packed $(OUT)/packed.safetensors

test: setup
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m "not full and not gpu"

test-full: setup
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m "full and not gpu" --timeout 3000

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

golden: setup
	$(BIN)/python -m pytest -q -m "not gpu" tests --update-golden -k golden

bench: setup
	$(BIN)/python bench/compile_speed.py

clean:
	rm -rf out .pytest_cache .mypy_cache .ruff_cache .hypothesis
