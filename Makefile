# make demo: install into .venv and run the main job.   make test: install and run the tests.
# make notebooks: write the notebooks from their sources.   make record: run them and keep outputs.
# make slides, make assignment: what a course shows and hands out.   NOTEBOOK=NAME picks one.
PYTHON ?= python3
BIN := .venv/bin
NAMES := $(basename $(notdir $(wildcard notebooks/source/*.py)))
NOTEBOOK ?= $(NAMES)

.PHONY: demo seeds test lint install clean notebooks record slides assignment

demo: .venv/installed
	$(BIN)/etadlite notebook 00_quickstart -p profile laptop --out runs/demo
	@cat runs/demo/table.txt

seeds: .venv/installed
	$(BIN)/etadlite demo --seeds 3 --out runs/seeds

notebooks: .venv/installed-test
	$(BIN)/python -m etadlite.course.build $(NOTEBOOK)

# Each notebook in both profiles, from an empty folder: its card, and the outputs that it carries.
record: notebooks
	@for name in $(NOTEBOOK); do for profile in smoke laptop; do \
		rm -rf runs/record/$$name/$$profile; \
		$(BIN)/etadlite notebook $$name -p profile $$profile -p data_root ../runs/record/data \
			--out runs/record/$$name/$$profile --record || exit 1; \
	done; done

slides: .venv/installed-test
	@for name in $(NOTEBOOK); do \
		$(BIN)/jupyter nbconvert --to slides --output-dir runs/slides notebooks/$$name.ipynb || exit 1; \
	done

assignment: .venv/installed-test
	@for name in $(NOTEBOOK); do \
		$(BIN)/python -m etadlite.course.assignment $$name --out runs/assignments || exit 1; \
	done

test: .venv/installed-test
	$(BIN)/python -m pytest

lint: .venv/installed-test
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

install: .venv/installed

.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv

.venv/installed: pyproject.toml | .venv/bin/uv
	$(BIN)/uv pip install --python $(BIN)/python --editable .
	touch $@

.venv/installed-test: pyproject.toml | .venv/bin/uv
	$(BIN)/uv pip install --python $(BIN)/python --editable '.[test]'
	touch $@ .venv/installed

clean:
	rm -rf .venv build *.egg-info
