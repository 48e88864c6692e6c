# Everything sets itself up: `make demo` or `make test` on a fresh machine needs Python 3.11 and nothing else.

PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
WEB := .venv-web
DOCS := .venv-docs
STAMP := .spikingir
SANITIZED := build/sanitize
NATIVE := native/*.cpp native/*.hpp
# An environment is completed where what is compiled into it has changed: a stale engine is not used.
COMPILED := pyproject.toml constraints.txt CMakeLists.txt $(NATIVE)

# The image collection beside the checkout, where there is one; tests that need it skip without it.
SPIKINGIR_DATA ?= $(abspath $(wildcard ../shared/data))
ifneq ($(SPIKINGIR_DATA),)
export SPIKINGIR_DATA
endif

# Two test processes on two cores: more threads would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m pytest

# A stamp names the folder that its environment was made in: one that was moved or copied has scripts, and a link
# to src, that lead elsewhere. $(call sound,folder) is empty unless the environment runs and belongs here.
sound = $(shell test "$$(cat $(1)/$(STAMP) 2>/dev/null)" = "$(CURDIR)" && $(1)/bin/python -c 'import pip' 2>/dev/null && echo yes)

# An environment that runs, but has no stamp, was interrupted or made by hand: completed, not made anew.
# Older pips know no dependency groups. The constraint keeps torch at the build for the CPU where pip finds one.
define install
	@if test "$$(cat $(1)/$(STAMP) 2>/dev/null || echo "$(CURDIR)")" != "$(CURDIR)" \
		|| ! $(1)/bin/python -c 'import pip' 2>/dev/null; then $(PYTHON) -m venv --clear $(1); fi
	$(1)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(1)/bin/python -m pip install --quiet --constraint constraints.txt $(2)
endef

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-peers test-web test-ray chromium bench bench-quick sanitize valgrind wheel docs lint lint-native format clean always

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/$(STAMP) ## restore sample photographs with the shipped networks
	$(VENV)/bin/spikingir demo

test: $(VENV)/$(STAMP) ## run the tests, without the slow ones
	$(PYTEST) -n 2 -m "not slow" --ignore tests/peers

test-slow: $(VENV)/$(STAMP) ## run all tests
	$(PYTEST) -n 2 --ignore tests/peers

test-peers: $(PEERS)/$(STAMP) ## compare with SpikingJelly, run NIR files in nirtorch, in an environment of its own
	$(PEERS)/bin/python -m pytest tests/peers

test-web: $(WEB)/$(STAMP) chromium ## test the page, in headless Chromium too, in an environment of its own
	$(WEB)/bin/python -m pytest tests/web $(ARGS)

# The package is there already, so that only what the extra adds is installed.
test-ray: $(VENV)/$(STAMP) ## restore on a small Ray cluster of this machine, of which parts are killed
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt 'spikingir[ray]'
	$(PYTEST) tests/restoration/test_cluster.py $(ARGS)

# The system's, with its driver: Selenium would fetch others.
chromium:
	@command -v chromium > /dev/null && command -v chromedriver > /dev/null \
		|| { $$(test "$$(id -u)" = 0 || echo sudo) sh -c 'apt-get update -qq \
		&& apt-get install -qq -y --no-install-recommends chromium chromium-driver'; }

bench: $(PEERS)/$(STAMP) ## time ANN, engines, SpikingJelly, snnTorch and OpenCV; ARGS='--height 160' to choose, --help lists
	$(PEERS)/bin/python -m benchmarks.performance --json build/performance.json $(ARGS)

bench-quick: $(PEERS)/$(STAMP) ## the ratios that say most, as a line of JSON
	@$(PEERS)/bin/python -m benchmarks.performance --quick $(ARGS)

# The preloaded libraries have to be there before Python's own allocations; -S leaves the installation in $(VENV) aside,
# whose libraries the path then names. Python and torch leak at exit, which is no concern of the engine's.
sanitize: $(VENV)/$(STAMP) ## run the engine's tests under address and undefined-behaviour sanitizers (GCC)
	rm -rf $(SANITIZED)
	CXX=g++ $(VENV)/bin/python -m pip install --quiet --no-deps --target $(SANITIZED) \
		--config-settings=cmake.define.SPIKINGIR_SANITIZE=ON .
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=1 \
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	PYTHONPATH="$(SANITIZED):$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
		$(VENV)/bin/python -S -m pytest tests/deploy $(ARGS)

# Valgrind knows no AVX-512: the engine takes AVX2 there. Without torch, which would take minutes to load.
valgrind: $(VENV)/$(STAMP) ## run every kind of layer of the engine once under valgrind
	@command -v valgrind > /dev/null || { echo "valgrind is missing: apt-get install valgrind (Debian, Ubuntu)"; exit 1; }
	PYTHONMALLOC=malloc OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 valgrind --quiet --error-exitcode=1 \
		--suppressions=native/valgrind.supp $(VENV)/bin/python tests/deploy/smallest_run.py

docs: $(DOCS)/$(STAMP) ## write the documentation's site to build/site; a broken link fails
	$(DOCS)/bin/zensical build --strict --clean --config-file mkdocs.yml

# Every path of the engine is in it, and the processor's is chosen at run time. Without a compiler the package is built
# without the engine: no wheel to give away. For wheels that older systems take, too: cibuildwheel (pyproject.toml).
wheel: $(VENV)/$(STAMP) ## build the wheel for this system and Python into dist/
	rm -f dist/spikingir-*.whl
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@$(VENV)/bin/python -c "import glob, sys, zipfile; path, = glob.glob('dist/spikingir-*.whl'); \
		ok = any(name.endswith(('.so', '.pyd')) for name in zipfile.ZipFile(path).namelist()); \
		sys.exit(print(path) if ok else f'{path} lacks the engine, which takes a C++20 compiler')"

lint: lint-native ## check format, rules and types
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m mypy --strict src reproduce

lint-native: $(VENV)/$(STAMP) ## check the format of the engine's sources
	$(VENV)/bin/clang-format --dry-run --Werror $(NATIVE)

format: $(VENV)/$(STAMP) ## format the code and mend what can be mended
	$(VENV)/bin/python -m ruff format .
	$(VENV)/bin/python -m ruff check --fix .
	$(VENV)/bin/clang-format -i $(NATIVE)

clean: ## remove caches and what was built; environments and runs/ stay
	rm -rf build dist demo .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src reproduce tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/$(STAMP): $(COMPILED) $(if $(call sound,$(VENV)),,always)
	$(call install,$(VENV),--editable '.[train]' --group test --group lint)
	@echo "$(CURDIR)" > $@

# SpikingJelly asks for torchvision and torchaudio, which have no build for this torch, though its neurons, layers
# and conversion do without: so it comes alone, with only what those import.
$(PEERS)/$(STAMP): $(COMPILED) $(if $(call sound,$(PEERS)),,always)
	$(call install,$(PEERS),--editable . --group peers)
	$(PEERS)/bin/python -m pip install --quiet --no-deps spikingjelly==2.0.0
	@echo "$(CURDIR)" > $@

# Of the last package a browser takes one script alone, the accessibility checker axe: so it comes without Playwright.
$(WEB)/$(STAMP): $(COMPILED) $(if $(call sound,$(WEB)),,always)
	$(call install,$(WEB),--editable '.[web]' --group web)
	$(WEB)/bin/python -m pip install --quiet --no-deps axe-playwright-python==0.1.8
	@echo "$(CURDIR)" > $@

# The package itself is not needed: the API's pages are made of its text.
$(DOCS)/$(STAMP): pyproject.toml constraints.txt $(if $(call sound,$(DOCS)),,always)
	$(call install,$(DOCS),--group docs)
	@echo "$(CURDIR)" > $@

always:
