# Everything sets itself up: Python 3.11 or newer and make are all a machine needs.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
UV := uv==0.13.9
AXE := 4.14.1

.PHONY: quickstart test test-long test-deployments test-vllm bench-pipeline bench-memory bench-kills bench-peers bench-judges bench-trainer
.PHONY: bench-decontaminate bench-imports bench-optimizers bench-dpo-gpu docs screenshots axe lint format lock clean

quickstart: $(READY)
	$(BIN)/zephyr run recipes/quickstart.yaml

# On up to four cores, a file at a time on each
test: $(READY)
	$(BIN)/python -m pytest -m "not vllm and not long and not deployments" -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations=10

# Whole recipes beside the quickstart's, benchmarks at a small size, a run that is killed; some minutes
test-long: $(READY)
	$(BIN)/python -m pytest -m long --durations=10

# Prefect servers on SQLite and PostgreSQL, their workers, and runs of deployments that are killed and cancelled; ten minutes
test-deployments: $(READY)
	$(BIN)/python -m pytest -m deployments --durations=10

# A real vLLM from its own environment: make test-vllm ZEPHYR_VLLM_PYTHON=/path/to/venv/bin/python
test-vllm: $(READY)
	$(BIN)/python -m pytest -m vllm -s

# The pipeline against a bare asyncio loop, on simulated servers; a quarter of an hour. A tenth of it: make bench-pipeline ROWS=0.1
bench-pipeline: $(READY)
	$(BIN)/python -m benchmarks.pipeline --rows $(or $(ROWS),1)

# Beside distilabel, curator and Data Designer, each in an environment of its own; forty minutes. make bench-peers ROWS=0.1
bench-peers: $(READY)
	$(BIN)/python -m benchmarks.peers --rows $(or $(ROWS),1) --out benchmarks/results/peers.json
	$(BIN)/python -m benchmarks.peers --table

# Memory and disk per row, and how soon a stopped run asks again; five minutes. A tenth of it: make bench-memory ROWS=0.1
bench-memory: $(READY)
	$(BIN)/python -m benchmarks.memory --rows $(or $(ROWS),1)

# kill -9 at 20 random moments of zephyr pairs, restarted until it is done; ten minutes
bench-kills: $(READY)
	$(BIN)/python -m benchmarks.kills --kills $(or $(KILLS),20)

# The quickstart's model as a judge, on labels of people under ../shared/data or DATA=, what its prompt's layout costs, and
# best of n before a judge that did not pick
bench-judges: $(READY)
	$(BIN)/python -m benchmarks.judges --data $(or $(DATA),../shared/data) --write
	$(BIN)/python -m benchmarks.prefix --data $(or $(DATA),../shared/data)
	$(BIN)/python -m benchmarks.best_of_n --write

# DPO against TRL's, same pairs and weights, on this CPU; ten minutes. A short look: make bench-trainer BATCH=2 ROUNDS=1
bench-trainer: $(READY)
	$(BIN)/python -m benchmarks.trainer --batch $(or $(BATCH),4) --rounds $(or $(ROUNDS),3) --out benchmarks/results/trainer.json

# Whether bfloat16 weights learn at 5e-7: DPO in five number formats on this CPU; under ten minutes
bench-optimizers: $(READY)
	$(BIN)/python -m benchmarks.optimizers --out benchmarks/results/optimizers.json

# DPO of a 7B model on one GPU of 80 GB beside TRL's, random weights; half an hour
bench-dpo-gpu: $(READY)
	$(BIN)/python -m benchmarks.dpo_gpu --out benchmarks/results/dpo-gpu.json

# Prompts of benchmarks and near copies among 200 000 synthetic prompts; under a minute
bench-decontaminate: $(READY)
	$(BIN)/python -m benchmarks.decontaminate --prompts $(or $(PROMPTS),200000) --out benchmarks/results/decontaminate.json

# A dataset of UltraFeedback's size imported, paired and audited; some minutes. A tenth of it: make bench-imports ROWS=6400
bench-imports: $(READY)
	$(BIN)/python -m benchmarks.imports --rows $(or $(ROWS),63967) --out benchmarks/results/imports.json

# Commands, options, recipes, code and links in README.md and docs/. Field tables: python docs/fields.py
docs: $(READY)
	$(BIN)/python -m pytest tests/test_docs.py

# Pictures of the viewer and the report in docs/images; needs a Chromium
screenshots: $(READY)
	$(BIN)/python -m docs.screenshots

# axe-core, which the tests of pages look for; without it they check the essentials by themselves. Needs npm
axe: .cache/axe.min.js
.cache/axe.min.js:
	mkdir -p .cache && cd .cache && npm pack --silent axe-core@$(AXE)
	tar -xzOf .cache/axe-core-$(AXE).tgz package/axe.min.js > $@.part && mv $@.part $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Built from the pinned lock file as pip is configured to (a CPU build of torch in find-links is taken), see deploy/install.py.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python deploy/install.py $(UV) -r requirements.lock -e .
	touch $(READY)

# Pins for Python 3.11 and newer on every platform; versions in the file stay where pyproject.toml still allows them.
# torch's own CUDA packages are left to torch: its CPU builds need none, the others pin theirs exactly.
lock:
	$(PYTHON) -m venv .lockenv && .lockenv/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	.lockenv/bin/uv pip compile --quiet pyproject.toml --extra dev --universal --python-version 3.11 --no-header --no-annotate \
	  --constraint deploy/constraints.txt --output-file requirements.lock
	grep -Ev '^(nvidia|cuda|triton)[a-z0-9-]*==' requirements.lock > requirements.lock.part && mv requirements.lock.part requirements.lock
	rm -rf .lockenv

clean:
	rm -rf .venv build *.egg-info
