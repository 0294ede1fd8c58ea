# Needs Python 3.11, pip and make. PYTHON=python3.12 picks another Python, PIP_FLAGS adds flags for pip.
PYTHON ?= python3
PIP_FLAGS ?=
# tests at once; each takes about 1 GB
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READERS := .venv-readers
DEMO := .demo
PIP = $(BIN)/python -m pip install -q $(PIP_FLAGS)
QUIET = 2>$(VENV)/pip.log || { cat $(VENV)/pip.log >&2; exit 1; }  # pip's warnings only where it fails

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test check slow test-ray test-s3 test-slurm test-writers wheel bench clean distclean

demo: $(READY)  ## real text and tasks, the main job, the result
	$(BIN)/python demo/run.py $(DEMO)

test: $(READY)  ## the tests; those of ray and s3 where their extras are installed
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

check: $(READY)  ## style, types and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) -s test

slow: $(READY)  ## the tests that take minutes, and new examples for those that draw theirs
	$(BIN)/python -m pytest -q -m slow
	$(BIN)/python -m pytest -q --hypothesis-profile new $$(grep -rl 'from hypothesis' tests)

test-ray: $(READY)  ## the engine ray, on a cluster of this machine that the tests start and stop
	$(PIP) -c constraints.txt -e '.[ray]' $(QUIET)
	$(BIN)/python -m pytest -q -m ray

test-s3: $(READY)  ## S3 as corpus and as place of exports, on a server of this machine that the tests start and stop
	$(PIP) -c constraints.txt -e '.[test-s3]' $(QUIET)
	$(BIN)/python -m pytest -q -m s3

test-slurm: $(READY)  ## the engine slurm, on a Slurm of two nodes that is started here (root, slurm-wlm, munge)
	$(PIP) -c constraints.txt -e '.[slurm]' $(QUIET)
	bash tests/engines/slurm_cluster.sh $(BIN)/python -m pytest -q -m slurm tests/engines

# Their pins on numpy and others exclude ours, so that they live in an environment of their own.
test-writers: $(READY)  ## exported datasets, opened by megatron-core, mosaicml-streaming and litdata
	test -x $(READERS)/bin/python || $(PYTHON) -m venv $(READERS)
	$(READERS)/bin/python -m pip install -q $(PIP_FLAGS) -r tests/export/readers/requirements.txt \
		"$$(grep '^torch==' constraints.txt)" $(QUIET)
	READERS=$(abspath $(READERS))/bin/python $(BIN)/python -m pytest -q -m writers tests/export

wheel: $(READY)  ## a wheel, installed in a fresh environment, answers
	rm -rf dist
	$(BIN)/python -m pip wheel -q --no-deps -w dist .
	$(PYTHON) -m venv dist/env
	dist/env/bin/python -m pip install -q $(PIP_FLAGS) -c constraints.txt --no-deps click dist/*.whl
	dist/env/bin/climb --version
	$(BIN)/python -m zipfile -l dist/*.whl | grep -q annotation/rubric.toml
	rm -rf dist

# CORPUS: JSONL with the columns text and domain; STATIC, TRANSFORMER: folders of embedding models; TASKS: task files;
# TABLES: published runs; BED: the evaluation suite (see bench/README.md). It takes days on two cores; what was done in
# BENCH is not done again.
BENCH ?= .bench
PY = $(BIN)/python
bench: $(READY)  ## what we claim about speed and quality, all that needs no GPU; writes bench/results/
	mkdir -p $(BENCH)
	$(PIP) -c constraints.txt -e '.[test-s3]' $(QUIET)
	$(PY) bench/startup.py
	$(PY) bench/faults.py --corpus $(CORPUS)
	$(PY) bench/memory.py
	$(PY) bench/coverage.py
	$(PY) bench/writers.py --corpus $(CORPUS)
	$(PY) bench/pick.py
	$(PY) bench/clusters.py --corpus $(CORPUS) --model $(STATIC)
	$(PY) bench/embedders.py --corpus $(CORPUS) --static $(STATIC) --transformer $(TRANSFORMER)
	$(PY) bench/label.py --corpus $(CORPUS) --model $(STATIC) --memory
	$(PY) bench/students.py --corpus $(CORPUS) --model $(STATIC)
	$(PY) bench/contamination.py --corpus $(CORPUS) --tasks '$(TASKS)' --model $(STATIC)
	$(PY) bench/dedup.py --corpus $(CORPUS) --model $(STATIC)
	$(PY) bench/annotate.py
	$(PY) bench/quality.py --demo $(DEMO)
	$(PY) bench/engines.py --corpus $(CORPUS) --model $(STATIC) --demo $(DEMO)
	$(PY) bench/scale.py
	$(PY) bench/plan.py --corpus $(CORPUS) --model $(STATIC)
	$(PY) bench/laptop.py --corpus $(CORPUS) --tasks '$(TASKS)' --root $(BENCH)/laptop --set embed.model=$(STATIC)
	$(PY) bench/evaluate.py --tasks $(dir $(TASKS))
	$(PY) bench/proxy.py --corpus $(CORPUS)
	$(PY) bench/signal_to_noise.py --corpus $(CORPUS) --tasks '$(TASKS)' --root $(BENCH)/signal
	$(PY) bench/cheap.py --corpus $(CORPUS) --tasks '$(TASKS)' --root $(BENCH)/cheap
	$(PY) bench/demo_power.py --demo $(DEMO) --root $(BENCH)/power
	$(PY) bench/ablations.py --demo $(DEMO) --root $(BENCH)/ablations
	$(PY) bench/recipe.py --run $(BENCH)/power/seed-00 --cache $(BENCH)/recipe --write recipe
	$(PY) bench/to_loss.py --run $(BENCH)/power/seed-00
	$(PY) bench/rivals.py --tables $(TABLES)
	$(PY) bench/real.py --corpus $(CORPUS) --bed $(BED) --root $(BENCH)/real
	$(PY) bench/align.py --run $(BENCH)/real
	$(PY) bench/search.py --tables $(TABLES) bench/results/tables --json $(BENCH)/search.json --cache $(BENCH)/search
	$(PY) bench/reuse.py --tables $(TABLES)
	$(PY) bench/evidence.py --bed $(BED) --corpus $(CORPUS) --root $(BENCH)/evidence

clean:  ## what the tools left; the environment and the demo stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests bench docs demo -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## also the environment and the demo
	rm -rf $(VENV) $(READERS) $(DEMO)

# torch goes in first and by itself, at the pinned release, so that nothing pulled in later chooses another build of it.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)" $(QUIET)
	$(PIP) -c constraints.txt -e '.[dev]' $(QUIET)
	touch $@
