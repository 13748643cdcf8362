# Each target sets up .venv first when it is missing. PYTHON=python3.12 make … chooses another interpreter.
# On x86-64 Linux the package index serves torch with CUDA (gigabytes). For the small CPU build:
#   make ocr PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

COMMA := ,
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_FLAGS ?=
# Triton exists for Linux only; without it the kernels are counted, and their tests are skipped.
LINUX := $(filter Linux,$(shell uname -s))
EXTRAS ?= $(if $(LINUX),dev$(COMMA)kernels,dev)
CONSTRAINTS ?= constraints.txt
MODEL ?= deepseek-ocr
READY := $(VENV)/.ready
# One process per core, four at most (each holds torch and a model); a file's tests stay in one process.
PARALLEL ?= -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
QUICK := tests/project tests/model/test_network.py tests/commands/test_command_line.py notebooks/00_quickstart.ipynb
PYTEST := $(BIN)/python -m pytest -q
INTERPRETED = TRITON_INTERPRET=1 $(PYTEST) $(PARALLEL) -k "triton or kernels" tests/kernels \
	tests/operators/test_unusual_calls.py tests/operators/test_conv2d_unusual_calls.py

.PHONY: help ocr quick test tests tests-only test-slow test-full race fuzz browser solutions lab notebooks operators report lint lock audit clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml $(CONSTRAINTS)
	@echo "making $(VENV): pip fetches torch and the rest, which takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check $(PIP_FLAGS) -c $(CONSTRAINTS) -e ".[$(EXTRAS)]"
	@touch $@

ocr: $(READY)  ## read the sample pages with the embedded checkpoint; results in out/
	$(BIN)/deskocr demo --out out

quick: $(READY) lint  ## under a minute: lint, dependency rules, a golden case, one page, the commands, one notebook
	$(PYTEST) $(PARALLEL) -m quick $(QUICK)

test: $(READY)  ## everything CI runs: lint, tests, notebooks compared with their stored outputs
	@$(MAKE) --no-print-directory -j 2 lint tests

# The tests of the simulated NPU need a process with that device, as the notebooks' second pass does, so they run in
# the second call; the kernels need a process that interprets them, the third call. tests/simulator_process and
# tests/kernels_process start them for whoever types only `pytest`.
tests: $(READY)
	$(PYTEST) $(PARALLEL) --durations=10 --ignore=tests/simulator_process --ignore=tests/kernels_process
	DESKOCR_DEVICE=npu-sim $(PYTEST) $(PARALLEL) --durations=10 notebooks tests/simulator
	$(if $(LINUX),$(INTERPRETED))

tests-only: $(READY)  ## the tests without the notebooks, whose stored outputs hold for constraints.txt
	$(PYTEST) $(PARALLEL) --ignore=tests/simulator_process --ignore=tests/kernels_process tests
	DESKOCR_DEVICE=npu-sim $(PYTEST) $(PARALLEL) tests/simulator

# What test-full measures (gigabytes); the other tests of this file are small. Each name is the start of a test's id.
OFFICIAL := test_official_size_saves test_the_other_models_at_their
OFFICIAL := $(OFFICIAL:%=tests/official_size/test_official_size.py::%)

test-slow: $(READY)  ## what takes minutes, downloads or 4 GB: long samples, official sizes in fp16, the real torch-npu wheel
	$(PYTEST) -m slow --ignore=tests/simulator_process --ignore=tests/kernels_process $(OFFICIAL:%=--deselect=%)
	DESKOCR_DEVICE=npu-sim $(PYTEST) -m slow tests/simulator
	$(if $(LINUX),TRITON_INTERPRET=1 $(PYTEST) -m slow tests/kernels)

test-full: $(READY)  ## the official sizes with random weights: 7.5 GB of disk, 9 GB of memory
	for model in deepseek-ocr deepseek-ocr-2 unlimited-ocr; do \
	  $(BIN)/python -m tests.official_size.measure --model $$model || exit 1; done

race: $(READY)  ## ours against transformers at the official size, random weights; 17 GB of memory
	$(BIN)/python -m tests.official_size.race --model $(MODEL)

fuzz: $(READY)  ## the tests with generated input, new input each time, 5,000 examples each; a quarter of an hour
	HYPOTHESIS_PROFILE=fuzz $(PYTEST) $(PARALLEL) -m fuzz tests
	$(if $(LINUX),HYPOTHESIS_PROFILE=fuzz TRITON_INTERPRET=1 $(PYTEST) -n logical -m fuzz tests/kernels)

browser: $(READY)  ## notebooks in JupyterLab (build/screenshots/) and index.html, in a headless Chromium
	$(BIN)/pip install --disable-pip-version-check $(PIP_FLAGS) -c $(CONSTRAINTS) -e ".[browser]"
	$(PYTEST) -m browser tests/notebooks/test_jupyterlab.py tests/batch/test_gallery_in_a_browser.py

solutions: $(READY)  ## write notebooks/solutions/ again
	$(BIN)/deskocr notebooks solutions

lint: $(READY)  ## ruff, codespell, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

# LOCK_FLAGS says where torch for the CPU comes from; without a network: LOCK_FLAGS="--find-links FOLDER_OF_WHEELS".
LOCK_FLAGS ?= --torch-backend cpu
TOOLS := build/tools

$(TOOLS): ; $(PYTHON) -m venv $@ && $@/bin/pip install --disable-pip-version-check -q uv pip-audit

lock: $(READY) $(TOOLS)  ## requirements-tested.txt: the versions of .venv with hashes (Linux x86-64, Python 3.11)
	$(BIN)/pip freeze --exclude-editable > build/tested.txt
	$(TOOLS)/bin/uv pip compile pyproject.toml --extra dev --extra kernels --constraints build/tested.txt --generate-hashes \
	  --python-version 3.11.7 --python-platform x86_64-manylinux_2_28 --no-annotate --no-emit-index-url \
	  --no-emit-find-links $(LOCK_FLAGS) --custom-compile-command "make lock" -q -o requirements-tested.txt

audit: $(TOOLS)  ## pip-audit: known vulnerabilities of the versions in requirements-tested.txt; needs a network
	sed 's/+cpu//' requirements-tested.txt > build/audited.txt
	$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes -r build/audited.txt

lab: $(READY)  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

notebooks: $(READY)  ## run every notebook in a fresh kernel and store it
	$(BIN)/deskocr notebooks run

operators: $(READY)  ## prove every substitute for nano, on the CPU and the simulated NPU: reports/*-nano/, plans
	for device in cpu npu-sim:as-published npu-sim:as-believed; do \
	  $(BIN)/deskocr prove --device $$device --checkpoint nano || exit 1; done

report: $(READY)  ## measure nano on this CPU, count it on the simulated NPU; reports/
	$(BIN)/deskocr bench --model nano --device cpu --count 5 --out reports/cpu-nano --compare unlimited_ocr
	$(BIN)/deskocr report reports/cpu-nano/bench.json
	$(BIN)/deskocr bench --model nano --device npu-sim --count 2 --out reports/npu-sim-as-published-nano
	$(BIN)/deskocr report reports/npu-sim-as-published-nano/bench.json

clean:  ## remove what was made, keep .venv
	rm -rf out build *.egg-info .pytest_cache .ruff_cache .mypy_cache
