# The project's commands. Each sets up what it needs: a virtual environment, the dependencies, the extension.
#
#   make demo     the main job on the embedded digits: dense, random mask and edge-popup side by side, the exported file, a picture
#   make test     all tests          make cpp-test   the kernels' own tests, without Python or torch
#   make test-isa what depends on the CPU, as on others: AVX2 (ours, torch's and oneDNN's loops), ours without vectors
#   make bench    the measured tables                make lint       style of Python and C++
#   make format   apply that style                   make clean      remove what was built
#   make docs     the documentation site, in build/site

PYTHON ?= python3
VENV ?= .venv
BUILD ?= build/cpp
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
LOG ?= build/make.log
PY := $(VENV)/bin/python
SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
FORMATTED := $(SOURCES) $(shell find tests/cpp tests/ptx tests/cuda_host tests/runtime -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

# waiting threads of small networks must not burn the core another one needs
demo test test-isa test-wheel: export OMP_WAIT_POLICY ?= PASSIVE

# a command whose words are only shown where it fails
quietly = @mkdir -p $(dir $(LOG)); { $(1); } > $(LOG) 2>&1 || { tail -n 40 $(LOG); echo "make: failed; all of it is in $(LOG)"; exit 1; }

.PHONY: demo test test-isa test-wheel cpp-test bench docs lint format clean
.DELETE_ON_ERROR:

$(VENV)/.packages: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit(f"make: expected Python 3.10 or newer, got {v[0]}.{v[1]}; name one with PYTHON=")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { echo "make: python3 -m venv failed; install your system's python3-venv package"; exit 1; }
	@echo "make: installing torch and what builds the extension into $(VENV) (once)"
	$(call quietly,$(PY) -m pip install -q --upgrade pip setuptools wheel && $(PY) -m pip install -q "torch>=2.11" torchvision ninja numpy pybind11)
	@touch $@

# nothing is compiled twice: the objects stay in build/extension, for later changes and for a wheel
$(VENV)/.ready: $(VENV)/.packages setup.py $(SOURCES) $(wildcard build_tools/*.py)
	@echo "make: building the extension (minutes the first time; $(LOG) has what is said, hiddennet env what came of it)"
	$(call quietly,if test -f $@; then $(PY) setup.py -q build_ext --inplace; \
	else $(PY) -m pip install -q --no-build-isolation -e '.[dev]'; fi && $(PY) -m hiddennet.env)
	@touch $@

demo: $(VENV)/.ready
	@$(PY) -m hiddennet.demo

# a process for each core, each with the files of its own
test: $(VENV)/.ready
	$(PY) -m pytest -n $(JOBS) --dist loadfile

# CPUs that this one is not: with AVX2 alone, and our loops without vectors
AVX2 := HIDDENNET_ISA=avx2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
test-isa: $(VENV)/.ready
	for cpu in "$(AVX2)" HIDDENNET_ISA=scalar; do \
	  echo "$$cpu"; env $$cpu $(PY) -m pytest -q -n $(JOBS) --dist loadfile -m "isa and not cuda" || exit 1; done

test-wheel: $(VENV)/.ready
	HIDDENNET_TEST_TORCH="$${HIDDENNET_TEST_TORCH:-2.13.0}" $(PY) -m pytest tests/test_wheel.py

cpp-test: $(VENV)/.ready
	$(VENV)/bin/cmake -S . -B $(BUILD) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV))/bin/ninja
	$(VENV)/bin/cmake --build $(BUILD) -j $(JOBS)
	$(VENV)/bin/ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)
	$(VENV)/bin/cmake -S . -B $(BUILD)-sanitize -G Ninja -DHN_SANITIZE=ON -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV))/bin/ninja
	$(VENV)/bin/cmake --build $(BUILD)-sanitize -j $(JOBS)
	$(VENV)/bin/ctest --test-dir $(BUILD)-sanitize --output-on-failure -j $(JOBS) -LE nvcc

bench: $(VENV)/.ready
	$(PY) -m bench

# the packages of the extra `docs`, without building ours once more
define DOCS_EXTRA
import importlib, sys; \
toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "pip._vendor.tomli"); \
print(*toml.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")
endef

$(VENV)/.docs: pyproject.toml $(VENV)/.ready
	$(call quietly,$(PY) -c '$(DOCS_EXTRA)' > build/docs.txt && $(PY) -m pip install -q -r build/docs.txt)
	@touch $@

docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build -q --strict
	@echo "make: the site is build/site/index.html"

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror $(FORMATTED)

format: $(VENV)/.ready
	$(VENV)/bin/ruff check --fix -q .
	$(VENV)/bin/ruff format -q .
	$(VENV)/bin/clang-format -i $(FORMATTED)

clean:
	rm -rf build dist *.egg-info hiddennet/*.so hiddennet/runtime/*.so $(VENV)/.ready
