# Two commands on a fresh machine: `make demo` and `make test`. They need Python 3.11+, npm, a C++ compiler and the network once;
# nothing is installed outside .venv and the user's cache of model files.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKED := pip install --quiet --require-hashes --no-deps --no-build-isolation
UNSAFE := B401,B402,B405,B406,B407,B408,B409,B411,B412,B413,B415,B613,B614,B615
SECONDS := 60
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-engines test-edge test-security test-gpu check format audit lock wheel bench bench-cloning bench-engines bench-edge bench-flame guarantees chaos flood soak soak-mutations fuzz fuzz-plants models clean
.DEFAULT_GOAL := demo

demo: $(VENV)/run.stamp models  ## start the bus, clone the shipped voice, write out/demo.wav
	$(BIN)/python examples/demo.py -o out/demo.wav

test: $(VENV)/test.stamp models  ## all tests: units, properties, real processes, real audio
	$(BIN)/python -m pytest

test-engines: $(VENV)/engines.stamp .cache/gpt-sovits.stamp models  ## the real engines on small checkpoints, and the real GPT-SoVITS server
	$(BIN)/python -m pytest -m heavy

test-edge: $(VENV)/check.stamp .cache/edge-tools.stamp models  ## the edge, in a browser, with Redis, and by schemathesis too
	$(BIN)/python -m pytest -m 'edge or not edge' tests/edge tests/test_compose.py

test-security: $(VENV)/test.stamp  ## keys, roles and strangers, on real brokers (half a minute; make test has them too)
	$(BIN)/python -m pytest tests/security

test-gpu: $(VENV)/engines.stamp models  ## the real engines on an NVIDIA GPU, where PyTorch is a build for it
	$(BIN)/python -m pytest -m gpu

# bandit only for what ruff has no rule for: imports that invite trouble (pickle has a test of its own), text that hides how it runs,
# weights read as programs, models fetched without a revision.
check: $(VENV)/check.stamp  ## format, lint, what is unsafe, strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/bandit --quiet --recursive --tests $(UNSAFE) broker client common edge workers voices examples bench requirements tests
	@mkdir -p .cache/types && ln -sfn ../.. .cache/types/voicebus
	$(BIN)/pyright --pythonpath $(BIN)/python

audit: $(VENV)/test.stamp  ## is a pinned release known to be vulnerable? Says so too where no advisory database can be reached
	$(BIN)/python -m requirements.audit

lock: $(VENV)/check.stamp  ## write the locks anew from setup.cfg, and what is told of them: make lock UPGRADE=1 takes new releases
	$(BIN)/python -m requirements.lock $(if $(UPGRADE),--upgrade)
	$(BIN)/python -m requirements.licences
	$(BIN)/python -m requirements.sbom

# From what is committed, in a folder of its own, with one time and one mode for all files: twice the same bytes.
wheel: $(VENV)/build.stamp  ## the wheel of what is committed, into dist/, with its bill of materials; reproducible
	@rm -rf dist .cache/wheel && mkdir -p .cache/wheel
	@umask 022 && git archive HEAD | tar -x --no-same-permissions -C .cache/wheel
	SOURCE_DATE_EPOCH=$$(git log -1 --pretty=%ct) $(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .cache/wheel
	@rm -rf .cache/wheel && sha256sum dist/*.whl


format: $(VENV)/check.stamp  ## rewrite to the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/run.stamp $(if $(QUICK),,models)  ## the bus beside other brokers and systems, into bench/results.* (make bench QUICK=1: a minute, out/bench)
	@$(BIN)/python -m bench $(if $(QUICK),--quick)

bench-cloning: $(VENV)/run.stamp models  ## how soon the default engine is heard, and how well voices are cloned (ten minutes)
	$(BIN)/python -m bench.first_audio
	$(BIN)/python bench/cloning.py --scratch out/cloning

bench-engines: $(VENV)/engines.stamp models  ## what engines speak in a second, and what the bus costs: bench/engines.md (three quarters of an hour)
	$(BIN)/python -m bench.engines

bench-edge: $(VENV)/test.stamp .cache/edge-tools.stamp models  ## the edge beside bare aiohttp and a FastAPI gateway: bench/edge.md (four minutes)
	$(BIN)/python -m bench.edge

bench-flame: $(VENV)/run.stamp  ## where the broker spends its time under load: bench/flame.svg
	$(BIN)/python -m bench.flame

guarantees: $(VENV)/run.stamp  ## what is promised, played on real processes with what is seen (two minutes)
	$(BIN)/python -m bench.guarantees

chaos: $(VENV)/test.stamp  ## 5,000 jobs while processes, connections, links and disks fail (three minutes)
	$(BIN)/python -m tests.chaos --jobs 5000 --faults 57 --install

flood: $(VENV)/run.stamp  ## a million malformed messages from fifty peers, and what honest traffic notices (one minute)
	$(BIN)/python -m bench.flood

soak: $(VENV)/test.stamp  ## simulated histories full of faults, on all cores: make soak SECONDS=600
	$(BIN)/python -m tests.sim --seconds $(SECONDS)

soak-mutations: $(VENV)/test.stamp  ## show that the simulator notices four deliberate defects
	$(BIN)/python -m tests.sim --mutations

fuzz: $(VENV)/fuzz.stamp  ## all that reads what others wrote, for so long: make fuzz SECONDS=600
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

fuzz-plants: $(VENV)/test.stamp  ## show that the fuzzers find a bug of each kind
	$(BIN)/python -m tests.fuzz --plants

models: $(VENV)/run.stamp  ## the model files, pinned by hash; at once when they are here
	$(BIN)/vc models pull kokoro

clean:  ## everything that was made here; the model cache stays
	rm -rf $(VENV) build dist out logs state .cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/python.stamp:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("voicebus needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Locks are complete (requirements/locks.py): pip checks every file against them and resolves nothing. What is built is built
# with what build.txt brought, not with what pip would fetch for it.
$(VENV)/build.stamp: $(VENV)/python.stamp requirements/build.txt
	$(BIN)/$(LOCKED) -r requirements/build.txt
	@touch $@

$(VENV)/run.stamp: $(VENV)/build.stamp requirements/run.txt setup.cfg pyproject.toml
	$(BIN)/$(LOCKED) -r requirements/run.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp requirements/test.txt
	$(BIN)/$(LOCKED) -r requirements/test.txt
	@touch $@

# PyTorch goes first, by version: its builds differ by machine, so no lock can have their hashes. The three only fit together.
$(VENV)/engines.stamp: $(VENV)/test.stamp requirements/engines.txt requirements/test-engines.txt
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --no-deps torchaudio==2.11.0 torchcodec==0.17.0
	$(BIN)/$(LOCKED) -r requirements/engines.txt -r requirements/test-engines.txt
	@touch $@

.cache/edge-tools.stamp: tests/edge/tools.sh
	sh tests/edge/tools.sh
	@mkdir -p .cache && touch $@

# The real GPT-SoVITS server, in an environment of its own: it needs numpy 1, and Python 3.11 or 3.12. Only what its
# HTTP application imports is installed beside it: its models are stood in for, since no package index has weights.
.cache/gpt-sovits.stamp: $(VENV)/python.stamp requirements/gpt-sovits.txt
	$(PYTHON) -m venv .cache/gpt-sovits
	.cache/gpt-sovits/bin/pip install --quiet torch==2.13.0
	.cache/gpt-sovits/bin/$(LOCKED) -r requirements/gpt-sovits.txt
	@touch $@

# Where there is no wheel of atheris the fuzzers run without it, and say so.
$(VENV)/fuzz.stamp: $(VENV)/test.stamp requirements/fuzz.txt
	$(BIN)/$(LOCKED) -r requirements/fuzz.txt
	@touch $@

$(VENV)/check.stamp: $(VENV)/test.stamp requirements/check.txt
	$(BIN)/$(LOCKED) -r requirements/check.txt
	@touch $@
