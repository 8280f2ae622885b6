# Sparse Workbench. `make workbench` installs what is missing and opens it; `make test` installs and tests it.
#
#   PYTHON=/path/to/python3.12   the interpreter to build .venv with (3.11 or newer)
#   TORCH_INDEX_URL=https://...  where to take torch from (README: "A smaller torch")
#   HEADLESS=1                   serve without opening a browser and print the address
#   PORT=8899                    port for `workbench`, `lab` and `serve`
#   OP=spgemm                    kernel for `bench`
#   TESTS=                       `coverage` by the whole suite, or by what else pytest is told to run

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
BUILD := build/make
CORE  := $(BUILD)/.built
OP    ?= spgemm
QUICK := -m "not slow and not browser"
TESTS ?= $(QUICK)
PORT_OPTION = $(if $(PORT),--port $(PORT))
# Two workers of one thread each; tests/conftest.py says who shares one. Plain `pytest` stays in one process.
PYTEST := $(BIN)/python -m pytest -n 2
PIP   := $(BIN)/python -m pip install -qq --disable-pip-version-check
# One entry of pyproject.toml per line, so that versions are written in one place.
READ  = $(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); print(*($(1)), sep="\n")'

SOURCES := CMakeLists.txt $(wildcard kernels/*.cpp kernels/*/*.cpp kernels/cpp/*.hpp kernels/*/*.hpp kernels/*/*/*.hpp workbench/machines/*.hpp workbench/machines/*.cpp)

# The stamp holds the folder it was made for: a moved folder or a lost extension module installs again.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
  AGAIN := again
endif
ifeq ($(wildcard kernels/_native_baseline*.so),)
  SOURCES += again
endif

.DEFAULT_GOAL := help
.PHONY: help workbench setup lab serve test check coverage bench notebooks sanitize clean machine again

help: ## Show this list
	@echo "Sparse Workbench: make <target>"; echo
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  \1|\2/' | column -t -s '|'

workbench: $(CORE) ## Install what is missing and open the workbench (HEADLESS=1: print the address and serve)
	@$(BIN)/workbench lab $(PORT_OPTION) $(if $(HEADLESS),--headless)

setup: $(CORE) ## Install everything into .venv; a second run takes seconds

lab: workbench ## The same as workbench

serve: $(CORE) ## Serve the dashboards to browsers on this machine
	@$(BIN)/workbench serve $(PORT_OPTION)

test: $(CORE) ## Run the whole test suite
	@$(PYTEST)

check: $(CORE) ## Lint, import rules, types and the quick tests, in under two minutes
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@PATH="$(CURDIR)/$(BIN):$$PATH" lint-imports
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python
	@$(PYTEST) $(QUICK) -q

coverage: $(CORE) ## Run the quick tests and list the 20 files of which they run the least
	@$(PYTEST) $(TESTS) -q --cov --cov-report=; status=$$?; \
	$(BIN)/coverage report --sort=cover | sed -n '1,22p;$$p'; exit $$status

bench: $(VENV)/.bench ## Time a kernel against its peers (OP=spgemm)
	@$(BIN)/workbench bench $(OP)

notebooks: $(CORE) ## Write the .ipynb files from their text twins and run each whole
	@cd notebooks/text && for twin in $$(find * -name '*.py'); do \
	  ../../$(BIN)/python -m jupytext --quiet --update --to ipynb --output "../$${twin%.py}.ipynb" "$$twin" || exit 1; done
	@$(BIN)/python -m pytest tests/notebooks

# The checked modules take the place of the fast ones, and are gone when the tests end, however they end.
sanitize: $(STAMP) ## Test the C++ core built with address and undefined-behaviour checks
	@trap 'rm -f kernels/_native_*.so $(CORE)' EXIT; set -e; rm -f kernels/_native_*.so $(CORE); \
	PATH="$(CURDIR)/$(BIN):$$PATH"; CXX=$(or $(CXX),c++); \
	cmake -S . -B build/sanitize -G Ninja -DWORKBENCH_SANITIZE=ON -DPython_EXECUTABLE='$(CURDIR)/$(BIN)/python' --log-level=WARNING >/dev/null; \
	cmake --build build/sanitize -- --quiet; \
	LD_PRELOAD="$$($$CXX -print-file-name=libasan.so) $$($$CXX -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	  python -m pytest tests/kernels

clean: ## Remove what was built and cached; .venv stays
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache kernels/_native_*.so
	find kernels widgets workbench tests -name __pycache__ -prune -exec rm -rf {} +

# ---- installation -------------------------------------------------------------------------------------------------

CANDIDATES := $(if $(PYTHON),'$(PYTHON)',python3.11 python3.12 python3.13 python3.14 python3 python)
# CMake honours CXX from the environment, else it looks for c++, g++, clang++ in this order; so do we.
COMPILERS  := $(if $(filter default undefined,$(origin CXX)),c++ g++ clang++,'$(CXX)')

# Prints the interpreter on its first line, or one sentence on what is missing and how to get it.
define FIND_PYTHON
for p in $(CANDIDATES); do \
  if command -v "$$p" >/dev/null 2>&1 && "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
  then python="$$p"; break; fi; \
done; \
[ -n "$$python" ] || { echo "setup: Python 3.11 or newer is needed and none of these is one: $(CANDIDATES). Install it (Debian: apt install python3 python3-venv python3-dev) or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
endef

machine:
	@$(FIND_PYTHON); \
	"$$python" -c 'import ensurepip, venv' 2>/dev/null || { echo "setup: $$python cannot make virtual environments; install its venv package (Debian: apt install python3-venv)." >&2; exit 1; }; \
	"$$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || { echo "setup: $$python lacks its C headers (Python.h), which the C++ core needs; install them (Debian: apt install python3-dev)." >&2; exit 1; }; \
	for c in $(COMPILERS); do command -v "$$c" >/dev/null 2>&1 && { cxx="$$c"; break; }; done; \
	[ -n "$$cxx" ] || { echo "setup: no C++ compiler found (looked for: $(COMPILERS)); install one (Debian: apt install g++) or name it: make CXX=/path/to/g++" >&2; exit 1; }; \
	printf '#include <bit>\n#include <concepts>\n#include <span>\nint main() { return std::popcount(0u) + int(std::span<int>().size()); }\n' | "$$cxx" -std=c++20 -x c++ -fsyntax-only - 2>/dev/null || { echo "setup: the C++ compiler $$cxx ($$("$$cxx" --version 2>/dev/null | head -n 1)) is too old for C++20; g++ 11 or clang 14 and newer will do. Name another one: make CXX=/path/to/g++" >&2; exit 1; }; \
	free_kb=$$(df -Pk . | awk 'NR == 2 { print $$4 }'); \
	[ -d $(VENV) ] || [ "$$free_kb" -ge 6000000 ] || { echo "setup: about 6 GB of free disk are needed here, $$((free_kb / 1000000)) GB are free; make room or put the folder on another disk." >&2; exit 1; }

$(STAMP): pyproject.toml $(AGAIN)
	@$(MAKE) --no-print-directory machine
	@$(FIND_PYTHON); $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || { echo "1/4 a virtual environment in $(VENV), made by $$python"; rm -rf $(VENV); "$$python" -m venv $(VENV); }
	@$(PIP) --upgrade pip
	@echo "2/4 torch, first and alone (about 200 MB to 3 GB, see README)"
	@$(call READ,d for d in p["project"]["dependencies"] if d.startswith("torch==")) > $(VENV)/torch.txt
	@$(PIP) $(if $(TORCH_INDEX_URL),--index-url '$(TORCH_INDEX_URL)') -r $(VENV)/torch.txt
	@echo "3/4 every other package"
	@$(call READ,p["build-system"]["requires"]) > $(VENV)/build.txt
	@$(PIP) -r $(VENV)/build.txt cmake ninja
	@$(PIP) --no-build-isolation -C wheel.cmake=false -C editable.mode=inplace --editable '.[test]'
	@printf '%s\n' '$(CURDIR)' > $(STAMP)

# Compiled outside pip, so that after an edit of one C++ file only that file is built again.
$(CORE): $(STAMP) $(SOURCES)
	@echo "4/4 the C++ core"
	@PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B $(BUILD) -G Ninja -DPython_EXECUTABLE='$(CURDIR)/$(BIN)/python' --log-level=WARNING >$(VENV)/cmake.log 2>&1 || { cat $(VENV)/cmake.log >&2; exit 1; }
	@PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build $(BUILD) -- --quiet
	@touch $@

$(VENV)/.bench: $(CORE)
	@$(call READ,p["project"]["optional-dependencies"]["bench"]) > $(VENV)/bench.txt
	@$(PIP) -r $(VENV)/bench.txt
	@touch $@
