# make demo: install into .venv and run the main job.   make test: install and run the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo seeds test lint install clean

demo: .venv/installed
	@mkdir -p runs/demo
	$(BIN)/papermill notebooks/00_quickstart.ipynb runs/demo/00_quickstart.ipynb \
		--cwd notebooks --kernel python3 --log-output --no-progress-bar \
		-p profile laptop -p out_dir ../runs/demo
	@cat runs/demo/table.txt

seeds: .venv/installed
	$(BIN)/etadlite demo --seeds 3 --out runs/seeds

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
