# Needs Python 3.11, pip and make. PYTHON=python3.12 picks another Python, PIP_FLAGS adds flags for pip.
PYTHON ?= python3
PIP_FLAGS ?=
# tests at once; each takes about 1 GB
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := .demo
PIP = $(BIN)/python -m pip install -q $(PIP_FLAGS)
QUIET = 2>$(VENV)/pip.log || { cat $(VENV)/pip.log >&2; exit 1; }  # pip's warnings only where it fails

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test check slow bench report clean distclean

demo: $(READY)  ## real text and tasks, the main job, the result
	$(BIN)/python demo/run.py $(DEMO)

test: $(READY)  ## the tests
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

check: $(READY)  ## style, types and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) -s test

slow: $(READY)  ## the tests that take minutes
	$(BIN)/python -m pytest -q -m slow

# CORPUS: JSONL with the columns text and domain; STATIC, TRANSFORMER: folders of embedding models; TASKS: task files
bench: $(READY)  ## what we claim about speed and quality; writes bench/results/
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/kill.py
	$(BIN)/python bench/clusters.py --corpus $(CORPUS) --model $(STATIC)
	$(BIN)/python bench/embedders.py --corpus $(CORPUS) --static $(STATIC) --transformer $(TRANSFORMER)
	$(BIN)/python bench/label.py --corpus $(CORPUS) --model $(STATIC) --memory
	$(BIN)/python bench/laptop.py --corpus $(CORPUS) --tasks '$(TASKS)' --root $(ROOT) --set embed.model=$(STATIC)

clean:  ## what the tools left; the environment and the demo stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests bench docs demo -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## also the environment and the demo
	rm -rf $(VENV) $(DEMO)

# torch goes in first and by itself, at the pinned release, so that nothing pulled in later chooses another build of it.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)" $(QUIET)
	$(PIP) -c constraints.txt -e '.[dev]' $(QUIET)
	touch $@
