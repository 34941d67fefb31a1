# `make run` predicts the demo clip; `make test` checks everything. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT := out
# One worker more than there are cores, because tests often wait.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist worksteal
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq install -c constraints.txt
# TensorRT's Python bindings without its libraries (1 MB each), for the contract tests: JetPack 6's, the first with
# kernels inside engines, JetPack 7.0's, JetPack 7.2's, and the newest. Each has its own folder, named MAJOR.MINOR.
BINDINGS := 10.3.0 10.9.0.34 10.13.3.9 10.16.1.11 11.4.0.106
# It only describes packages, so nothing of it is in .venv.
SBOM_TOOL := cyclonedx-bom==7.5.0
EXTRAS :=
SETUP := pyproject.toml setup.py constraints.txt

APT := chromium ffmpeg g++ gcc libc6-dev gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
	gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-tools libgl1 libglib2.0-0 libx11-xcb1 iproute2 iptables strace \
	xdotool xvfb

.PHONY: help run live test checks docs pycuda bindings test-slow test-full test-pythons test-server release-check sbom bench faults fuzz \
	guest day soak system-deps clean cv2
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.run ## Predict the demo clip; write a video, a picture and a report to out/
	@mkdir -p $(OUT) && rm -f $(OUT)/demo.mp4 $(OUT)/demo.png  # a recording replaces no file
	$(BIN)/framecast run demo --ahead 150ms --record $(OUT)/demo.mp4 --record $(OUT)/demo.png --json $(OUT)/demo.json
	@echo
	@echo "Video:   $(OUT)/demo.mp4   (late picture, prediction, real frame, error)"
	@echo "Picture: $(OUT)/demo.png"
	@echo "Report:  $(OUT)/demo.json"
	@echo "Live in a browser: make live   (runs $(BIN)/framecast run demo --ahead 150ms --serve --loop)"

live: $(VENV)/.run ## Show the demo clip live in a browser, in a loop, until Ctrl-C
	$(BIN)/framecast run demo --ahead 150ms --serve --loop

test: $(VENV)/.test ## Check format, style and types, and run the tests
	@$(MAKE) --no-print-directory -j2 checks pycuda docs
	$(PYTEST) -m "not slow"

checks: $(VENV)/.test ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

pycuda: $(VENV)/.test ## Build pycuda for the tests that run it on a stub driver (takes a minute, once per machine)
	@$(BIN)/python tests/runtime/pycuda_build.py

test-slow: $(VENV)/.test ## Run the tests marked slow, which 'make test' skips: full sizes, and every GPU generation
	$(PYTEST) -m slow

test-full: $(VENV)/.test ## Export every configuration at full size and compare it with PyTorch (minutes, 10 GB)
	$(BIN)/python benchmarks/parity.py

fuzz: $(VENV)/.test ## Feed 13,800 damaged files, requests and command lines to framecast; keep what fails in out/fuzz
	$(BIN)/python benchmarks/fuzz.py

test-server: $(VENV)/.server ## Run the tests on a real Triton server (installs it: 74 MB to download, 211 MB)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/runtime/test_triton.py

test-pythons: ## Run the tests that need no torch on the oldest and newest Python here (PYTHONS="all" or "3.12")
	.ci/test-pythons $(PYTHONS)

guest: $(VENV)/.test ## Run the systemd unit on a fresh Debian in a virtual machine, and what can happen to it (needs root)
	$(BIN)/python benchmarks/guest.py

release-check: $(VENV)/.test ## Build sdist and wheel; install and run each on the oldest and the newest Python here
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	@set -e; for python in $$(.ci/test-pythons --paths oldest newest); do for file in dist/*.whl dist/*.tar.gz; do \
		echo; echo "$$file on $$($$python --version)"; \
		$$python -m venv --clear $(VENV)/release; \
		$(VENV)/release/bin/python -m pip --disable-pip-version-check -qq install -c constraints.txt $$file; \
		$(MAKE) --no-print-directory cv2 VENV=$(VENV)/release; \
		(cd $(VENV)/release && bin/framecast --version && bin/framecast doctor && bin/framecast run demo --frames 30); \
	done; done
	@sha256sum dist/*

sbom: ## List the dependencies of the wheel in dist/ with licences and hashes, as CycloneDX (also: EXTRAS=openvino)
	@test -n "$(wildcard dist/*.whl)" || { echo "No wheel in dist/: run make release-check first"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)/sbom && $(PYTHON) -m venv --clear $(VENV)/sbom-tool
	@$(VENV)/sbom-tool/bin/python -m pip --disable-pip-version-check -qq install '$(SBOM_TOOL)'
	@$(VENV)/sbom/bin/python -m pip --disable-pip-version-check -qq install -c constraints.txt \
		--report $(VENV)/sbom/report.json "$(wildcard dist/*.whl)$(if $(EXTRAS),[$(EXTRAS)])"
	$(VENV)/sbom-tool/bin/python .ci/sbom $(VENV)/sbom dist

docs: $(VENV)/.test ## Check the documentation's tables and links, and build its site in out/site
	$(BIN)/python benchmarks/tables.py --check
	@if $(BIN)/python -c 'import mkdocs' 2> /dev/null; then \
		mkdir -p $(OUT) && NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build > $(OUT)/site.log 2>&1 || \
			{ cat $(OUT)/site.log; exit 1; }; \
		echo "Site: $(OUT)/site/index.html"; \
	else echo "The site was not built: it needs Python 3.11 or newer"; fi

bench: $(VENV)/.test ## Measure the documentation's figures on this machine (half an hour; run nothing else meanwhile)
	@mkdir -p $(OUT) && rm -f $(OUT)/rivals.jsonl
	@for command in startup live pipeline flat quality "rivals --jsonl $(OUT)/rivals.jsonl" "report $(OUT)/rivals.jsonl"; do \
		set -- $$command; name=$$1; shift; echo; echo "benchmarks/$$name.py"; \
		$(BIN)/python "benchmarks/$$name.py" "$$@" || exit 1; done

faults: $(VENV)/.test ## Cause every fault of the catalogue with real parts, and print the table (ten minutes, as root; make system-deps)
	@$(BIN)/python benchmarks/faults.py

day: $(VENV)/.test ## Simulate a day at 30 frames a second with 200 faults, on a virtual clock (half an hour or more)
	$(BIN)/python benchmarks/day.py

soak: $(VENV)/.test ## Measure memory, descriptors and threads over 100,000 frames and 1,000 reconnections (20 minutes)
	$(BIN)/python benchmarks/soak.py

system-deps: ## Install the tests' system packages on Debian or Ubuntu (browser, GStreamer, virtual display, iptables)
	@echo "Installing Debian packages: $(APT)"
	@sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	$$sudo apt-get update -qq && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(APT) > /dev/null

bindings: $(VENV)/.tensorrt ## Install the TensorRT bindings for the contract tests (part of make test)

clean: ## Remove .venv, caches, build results and recordings
	rm -rf $(VENV) $(OUT) build dist src/framecast.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# Stamp files: a set-up runs again only if its requirements have changed.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null || { \
		echo "framecast needs Python 3.10 or newer; $(PYTHON) is" \
			"$$($(PYTHON) --version 2> /dev/null || echo 'not installed'). Name one: make $(MAKECMDGOALS) PYTHON=python3.12"; \
		exit 1; }
	@echo "Making a virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV) || { echo "On Debian or Ubuntu, run: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.run: $(VENV)/.python $(SETUP)
	@echo "Installing framecast and its dependencies, without torch (a minute; downloads about 130 MB)"
	@$(PIP) -e .
	@$(ensure_cv2)
	@touch $@

$(VENV)/.test: $(VENV)/.run $(VENV)/.tensorrt
	@echo "Installing torch and the development tools (a few minutes)"
	@$(PIP) -e '.[dev]'
	@$(ensure_cv2)
	@touch $@

# Its Python backend needs a NumPy 1, which must not replace ours.
$(VENV)/.server: $(VENV)/.test
	@echo "Installing a Triton server from PyPI into $(VENV)/tritonserver"
	@rm -rf $(VENV)/tritonserver
	@$(BIN)/python -m pip --disable-pip-version-check -qq install --no-deps --no-compile --target $(VENV)/tritonserver \
		nvidia-pytriton==0.7.0 numpy==1.26.4
	@touch $@

# Some versions have no wheel for this platform or Python. Their tests then skip with a reason.
$(VENV)/.tensorrt: $(VENV)/.python Makefile
	@rm -rf $(VENV)/tensorrt
	@for version in $(BINDINGS); do \
		place=$(VENV)/tensorrt/$$(echo $$version | cut -d. -f1,2); \
		$(BIN)/python -m pip --disable-pip-version-check -qq install --no-deps --no-compile --only-binary :all: \
			--target $$place tensorrt-cu12-bindings==$$version 2> /dev/null || \
			echo "No bindings of TensorRT $$version for this Python and platform: their contract tests will skip"; done
	@touch $@

cv2:
	@$(ensure_cv2)

# opencv-python needs libGL, which bare containers lack. The headless build is the same library without windows.
define ensure_cv2
error=$$($(BIN)/python -c 'import cv2' 2>&1) || case "$$error" in \
	*libGL*|*libgthread*|*libglib*) \
		echo "No libGL on this system: replacing opencv-python with opencv-python-headless (only windows are missing)"; \
		$(PIP) --force-reinstall --no-deps opencv-python-headless;; \
	*) echo "$$error"; exit 1;; \
esac
endef
