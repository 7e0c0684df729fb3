# Négatoscope. Each target does what it says from nothing.
DATA ?= var
HTTP_PORT ?= 8080
DICOM_PORT ?= 11112
HL7_PORT ?= 2575
PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install run unit test lint bench soak lock clean

help:     ## this list
	@grep -E '^[a-z]+: .*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12
install: .venv/.installed  ## virtual environment with .venv/bin/negatoscope and the viewer
	@.venv/bin/python tools/viewer.py || true # it has said what is missing; the rest of the server works without
run: install  ## everything from nothing: database, demonstration data, server; prints the addresses
	@exec .venv/bin/python tools/run.py --data "$(DATA)" --http-port "$(HTTP_PORT)" --dicom-port "$(DICOM_PORT)" --hl7-port "$(HL7_PORT)"
unit: .venv/.installed  ## fast tests: no database, no peer, under a minute
	.venv/bin/python -m pytest -q -m "not slow and not soak and not bench" tests/unit tests/protocol tests/conformance
test: install  ## all tests but soak; installs peers and browser first
	@.venv/bin/python tools/peers.py
	.venv/bin/python -m pytest -q -m "not soak and not bench"
lint: .venv/.installed  ## ruff, mypy strict, import-linter, codespell
	@.venv/bin/python tools/lint.py
bench: install  ## side by side with Orthanc; writes docs/performance.md
	@.venv/bin/python tools/peers.py && .venv/bin/python -m tests.benchmarks
soak: install  ## long reliability runs: kill, fuzz, power loss
	@.venv/bin/python tools/peers.py && HYPOTHESIS_PROFILE=search .venv/bin/python -m pytest -q -m soak
lock:     ## renew requirements.lock (needs uv)
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-header -q -o requirements.lock
clean:    ## remove what the other targets made, demonstration data included
	rm -rf .venv build dist node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis src/negatoscope/web/static/ohif src/negatoscope/web/static/vendor "$(DATA)"

.venv/.installed: requirements.lock pyproject.toml tools/install.py
	@$(PYTHON) tools/install.py
