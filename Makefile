# make demo: install into .venv and run the main job.   make test: install and run all tests.
# make requirements: resolve for every platform; run the core tests with the lowest versions.
# make check: lint, types and the fast tests, in less than two minutes; run it before a commit.
# make notebooks: write the notebooks from their sources.   make record: run them and keep outputs.
# make faults: damaged files, killed trainings, small disks and memories for SECONDS; the seed is
# fresh, or SEED. KINDS picks some, and losses of those in KNOWN are printed but are no failure.
# make slides, make assignment, make solutions: what a course shows, hands out and keeps back, in
# runs/.   NOTEBOOK=NAME picks one notebook.   make book: the course as pages, in runs/book/html.
PYTHON ?= python3
BIN := .venv/bin
NAMES := $(basename $(notdir $(wildcard notebooks/source/*.py)))
NOTEBOOK ?= $(NAMES)
SECONDS ?= 600
# Each of two processes takes whole files, the long ones first, and computes with one thread.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

# What training, predicting and evaluating need, for a run with the lowest promised versions.
CORE := $(addprefix tests/test_,$(addsuffix .py,config encoders sequential detector losses training \
	datasets video predict evaluation command))

.PHONY: demo seeds film test check requirements faults lint types install clean notebooks record slides book assignment solutions

demo: .venv/installed
	$(BIN)/etadlite notebook 00_quickstart -p profile laptop --out runs/demo
	@cat runs/demo/table.txt

seeds: .venv/installed
	$(BIN)/etadlite demo --seeds 3 --out runs/seeds

# The film of the README, from the detector that `make demo` has trained.
film: .venv/installed
	$(BIN)/python data_scripts/make_film.py runs/demo/end_to_end_all_snippets \
		notebooks/pictures/detections.gif

notebooks: .venv/installed-test
	$(BIN)/python -m etadlite.course.build $(NOTEBOOK)

# Each notebook in both profiles, from an empty folder: its card, and the outputs that it carries.
# 04 finds what a student has written in 01 to 03: the solutions.
record: notebooks
	@mkdir -p runs && $(BIN)/python -m etadlite.course.build --solutions runs/solutions > runs/solutions.log
	@for name in $(NOTEBOOK); do for profile in smoke laptop; do \
		rm -rf runs/record/$$name/$$profile; \
		mkdir -p runs/record/$$name/$$profile; \
		case $$name in 04*) cp runs/solutions/my_etad.py runs/record/$$name/$$profile; esac; \
		$(BIN)/etadlite notebook $$name -p profile $$profile -p data_root ../runs/record/data \
			--out runs/record/$$name/$$profile --record || exit 1; \
	done; done

slides: .venv/installed-test
	$(BIN)/python -m etadlite.course.slides $(NOTEBOOK)

# A warning is an error, and a link that leads nowhere is a warning.
book: .venv/installed-test
	$(BIN)/python -m sphinx -q -W --keep-going -c notebooks/book . runs/book/html
	@echo "open runs/book/html/index.html"

# nbgrader starts alembic, which it looks for in PATH.
assignment: .venv/installed-test
	$(BIN)/python -m etadlite.course.build $(NOTEBOOK) --assignments runs/assignments
	@cd runs/assignments && for name in $(NOTEBOOK); do \
		PATH="$(CURDIR)/$(BIN):$$PATH" nbgrader generate_assignment $$name --force --create || exit 1; \
	done

solutions: .venv/installed-test
	$(BIN)/python -m etadlite.course.build $(NOTEBOOK) --solutions runs/solutions

test: .venv/installed-test
	$(TESTS) -m "not index"

check: lint types
	$(TESTS) -m "not slow and not index"

faults: .venv/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults.py --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) \
		$(if $(KINDS),--kinds $(KINDS)) $(if $(KNOWN),--known $(KNOWN))

requirements: .venv/installed-test
	$(BIN)/python -m pytest -q -m index tests/test_packaging.py
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv/lowest
	$(BIN)/uv pip install --quiet --python .venv/lowest/bin/python --resolution lowest-direct \
		--only-binary :all: --no-binary etadlite --editable '.[test]'
	OMP_NUM_THREADS=1 .venv/lowest/bin/python -m pytest -n 2 -m "not slow" $(CORE)

lint: .venv/installed-test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell

types: .venv/installed-test
	$(BIN)/pyright

install: .venv/installed

.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv

.venv/installed: pyproject.toml | .venv/bin/uv
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --editable .
	touch $@

.venv/installed-test: pyproject.toml | .venv/bin/uv
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --editable '.[test]'
	touch $@ .venv/installed

clean:
	rm -rf .venv build *.egg-info
