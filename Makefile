# make demo: the claims of the README, checked on this machine.   make test: everything a change must pass.
# make fuzz FUZZ_ARGS="--count 20000 --seed 0 --out F": random programs against an exact solver; goes on with F; a table.
# make compat: the core of the tests with the oldest and the newest CVXPY that setup.cfg allows, and what these depend on.
# make docs: the documentation in docs/_build/html, from docstrings, pages and committed notebooks; a warning is an error.
# make coverage: lines and branches that the tests run, in one process; fails under 95 %.
# make mutants MUTANT_ARGS="--folder atoms --count 80": small faults put into the code, one at a time; the tests must notice.
# make bench: speed and accuracy beside peers.   make notebooks NAMES="01 03": execute them and write them back.
# pip's own settings apply (PIP_INDEX_URL, PIP_FIND_LINKS, ...), for example to choose a CPU build of torch.

comma := ,
PYTHON ?= python3
OUT ?= demo_out
PYTEST_ARGS ?= --numprocesses=auto
BENCH_ARGS ?=
FUZZ_ARGS ?= --count 1000 --seed 0 --out fuzz.jsonl
MUTANT_ARGS ?= --folder frontend --count 80 --seed 0 --out mutants.json
NAMES ?=
CVXPY := "==1.9.3" "<1.10"
CORE := tests/frontend tests/layer tests/verify tests/bridge tests/regressions
BENCHMARKS := $(filter-out __init__ harness chart,$(basename $(notdir $(wildcard tests/benchmarks/*.py))))
TORCH := $(shell grep '^torch==' constraints.txt)
SOURCES := setup.cfg pyproject.toml constraints.txt

.PHONY: demo test slow compat docs bench fuzz coverage mutants notebooks clean
.DELETE_ON_ERROR:

# $(call environment,folder,extras): a fresh environment with the tested versions, torch first.
define environment
	rm -rf $(1)
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(2)]"
	touch $@
endef

.venv-demo/.stamp: $(SOURCES)
	$(call environment,.venv-demo,train$(comma)plot)

.venv-test/.stamp: $(SOURCES)
	$(call environment,.venv-test,reference$(comma)train$(comma)plot$(comma)notebooks$(comma)docs$(comma)dev)
	-.venv-test/bin/python -m pip install --quiet --disable-pip-version-check --no-deps qpth==0.0.18  # its test is skipped without it

.venv-bench/.stamp: $(SOURCES)
	$(call environment,.venv-bench,bench)

demo: .venv-demo/.stamp
	.venv-demo/bin/opteq demo --out $(OUT)

test: .venv-test/.stamp
	.venv-test/bin/ruff check
	.venv-test/bin/ruff format --check
	.venv-test/bin/mypy
	.venv-test/bin/lint-imports
	.venv-test/bin/python -m pytest $(PYTEST_ARGS)

slow: .venv-test/.stamp
	.venv-test/bin/python -m pytest $(PYTEST_ARGS) -m slow

compat:
	set -e; for allowed in $(CVXPY); do \
	  rm -rf .venv-compat; $(PYTHON) -m venv .venv-compat; grep -Ev '^(cvxpy|sparsediffpy)==' constraints.txt > .venv-compat/others.txt; \
	  .venv-compat/bin/python -m pip install --quiet -c constraints.txt $(TORCH); \
	  .venv-compat/bin/python -m pip install --quiet -c .venv-compat/others.txt \
	    -e ".[reference,train,plot,dev]" "cvxpy$$allowed"; \
	  .venv-compat/bin/python -c "import cvxpy; print('cvxpy', cvxpy.__version__)"; \
	  .venv-compat/bin/python -m pytest $(PYTEST_ARGS) $(CORE); \
	done

docs: .venv-test/.stamp
	.venv-test/bin/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build/html
	@echo docs/_build/html/index.html

bench: .venv-bench/.stamp
	set -e; for module in $(BENCHMARKS); do .venv-bench/bin/python -m tests.benchmarks.$$module $(BENCH_ARGS); done

fuzz: .venv-test/.stamp
	.venv-test/bin/python -m tests.fuzz $(FUZZ_ARGS)

coverage: .venv-test/.stamp
	.venv-test/bin/coverage erase
	.venv-test/bin/coverage run -m pytest -m "not bench"
	.venv-test/bin/coverage combine --quiet
	.venv-test/bin/coverage report

mutants: .venv-test/.stamp
	.venv-test/bin/python -m tests.mutation $(MUTANT_ARGS)

notebooks: .venv-test/.stamp
	.venv-test/bin/python notebooks/render.py $(NAMES)

clean:
	rm -rf .venv-demo .venv-test .venv-bench .venv-compat docs/_build docs/_generated build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov
	find opteq_cvx problems notebooks tests -name __pycache__ -type d -prune -exec rm -rf {} +
