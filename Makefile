# Every target makes its own environment: a machine needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WEIGHTS ?= random:0
UNTRAINED := $(filter random:%,$(WEIGHTS))
DEMO := demo-run$(if $(UNTRAINED),,-$(notdir $(WEIGHTS)))
NETWORK := --weights $(WEIGHTS) --set network.pooling=$(if $(UNTRAINED),average,max)
export RAY_USAGE_STATS_ENABLED := 0
export PYTHONDONTWRITEBYTECODE :=  # hundreds of processes would each compile what they import

.PHONY: demo test check chaos bench clean

# With trained weights: `make demo WEIGHTS=imagenet`, which downloads them once, half a gigabyte.
demo: $(VENV)/ready
	$(BIN)/nst-batch run demo --content examples/content/scene.jpg --style examples/style/swirl.jpg $(NETWORK) \
	  --out $(DEMO)/layers
	$(BIN)/nst-batch run content_reconstruction --content examples/content/scene.jpg $(NETWORK) \
	  --size 160 --steps 30 --out $(DEMO)/content
	$(BIN)/nst-batch run style_reconstruction --style examples/style/swirl.jpg $(NETWORK) \
	  --size 160 --steps 30 --out $(DEMO)/style
	$(BIN)/nst-batch report $(DEMO)/layers
	$(BIN)/nst-batch figure $(DEMO)/content $(DEMO)/style --out $(DEMO)/reconstruction.png
	@echo
	@echo "Look at $(DEMO)/layers/report/sheet.png and $(DEMO)/reconstruction.png; the whole report is"
	@echo "$(DEMO)/layers/report/index.html."
	@$(if $(UNTRAINED),echo "The network was untrained. With trained weights: make demo WEIGHTS=imagenet")
	@echo "Your own pictures: $(BIN)/nst-batch run week7_content_layers --content PHOTOS --style PAINTINGS --out runs/mine"

test: check  # most tests wait for processes: three at a time are no load for two cores
	$(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: $(VENV)/ready  # NST_BATCH_CHAOS_SEED=7: other kills at other times; it is printed
	NST_BATCH_CHAOS_KILLS=$${NST_BATCH_CHAOS_KILLS:-60} $(BIN)/pytest -rP \
	  tests/promises/test_8_chaos.py tests/promises/test_8_sick_workers.py tests/promises/test_9_stale_writer.py

bench: $(VENV)/ready
	$(BIN)/python -m benchmarks.engine

clean:
	rm -rf $(VENV) demo-run demo-run-*

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	$(BIN)/nst-batch schema > study.schema.json  # for editors, see .vscode/settings.json
	touch $@
