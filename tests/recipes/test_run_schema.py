# SPDX-License-Identifier: Apache-2.0
"""One schema a run, the prompt style's: rewards, credit, validation read it; what contradicts it is refused at start."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

import pytest
from datasets import Dataset
from trl import ModelConfig

import grpo_omni
import omni_rewards
from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, OmniSFTConfig, OmniSFTTrainer, PromptEncoder
from omni_grpo.config import DataArguments
from omni_grpo.data.dataset import with_sft_targets
from omni_grpo.data.rows.prompts import ANSWER, PROMPT_STYLES
from omni_grpo.evaluation.arguments import EvalArguments
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.run.command_line import parse
from omni_grpo.run.reward_settings import check_rewards, configured_rewards, in_sections
from omni_rewards import CONTEXT_THINK_ANSWER, THINK_ANSWER, SectionSchema
from small_runs import SMALL_RUN

HERE = "rewards_of_a_user"
FORMAT, THINK_FORMAT = "omni_rewards.section_format_reward", "omni_rewards.think_answer_format_reward"
SCHEMAS = {style.schema.names: style.schema for style in PROMPT_STYLES.values()}.values()
RENDERED = {s: s.render({n: f"some {n}" if n != "answer" else "yes" for n in s.names}) for s in SCHEMAS}


@dataclass(frozen=True)
class Own:
    """A user's reward, which may have a schema for reasons of its own."""

    schema: SectionSchema = CONTEXT_THINK_ANSWER
    __name__ = "own"

    def __call__(self, completions, **kwargs):
        return [float(len(self.schema.names)) for _ in completions]


def context_gain(completions, **kwargs):
    """A reward of a user's with the name of ours."""
    return [0.0 for _ in completions]


@pytest.fixture(autouse=True)
def module(monkeypatch):
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


def configuration(**fields) -> list[str]:
    argv = []
    for name, value in fields.items():
        argv += [f"--{name}", *([str(v) for v in value] if isinstance(value, list) else [str(value)])]
    return argv


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: "-".join(schema.names))
@pytest.mark.parametrize("name", ["section_format_reward", "answer_reward"])
def test_a_right_form_is_paid_under_every_style_and_another_form_is_not(name, schema):
    """Mutant: the rewards' own default, which pays nothing for think-answer."""
    for path in (f"omni_rewards.{name}", "omni_rewards." + "".join(map(str.capitalize, name.split("_")))):
        (reward,) = configured_rewards([path], None, schema)
        assert reward.schema == schema if hasattr(reward, "schema") else schema == CONTEXT_THINK_ANSWER
        columns = {"solution": ["yes"], "problem_type": ["yes_no"]} if name == "answer_reward" else {}
        assert reward([RENDERED[schema]], **columns) == [1.0]
        for other in SCHEMAS:
            if other != schema and not columns:
                assert reward([RENDERED[other]])[0] < 1.0


def test_settings_stay_and_the_style_is_added():
    paths = [FORMAT, "omni_rewards.answer_reward"]
    settings = {FORMAT: {"min_characters": 9}, "omni_rewards.answer_reward": {"require_agreement": True}}
    form, answer = configured_rewards(paths, settings, THINK_ANSWER)
    assert (form.min_characters, form.schema) == (9, THINK_ANSWER)
    assert answer.require_agreement and answer.schema == THINK_ANSWER


@pytest.mark.parametrize("path", [f"{HERE}.Own", "trl.rewards.think_format_reward"])
def test_rewards_of_others_are_left_alone(path):
    plain, run = (configured_rewards([path], None, schema)[0] for schema in (None, THINK_ANSWER))
    assert type(plain) is type(run) and (plain is run or plain == run)


CONTRADICTIONS = {
    "form by name": ("context_think_answer", {"reward_funcs": [THINK_FORMAT]}, "think_answer_format_reward: it reads think, answer; this run's sections are context, think, answer"),
    "form by name beside answers alone": ("answer", {"reward_funcs": [THINK_FORMAT]}, "it reads think, answer; this run's sections are answer"),
    "a schema in the settings": ("think_answer", {"reward_funcs": [FORMAT], "reward_settings": f'{{"{FORMAT}": {{"schema": "omni_rewards.CONTEXT_THINK_ANSWER"}}}}'}, "it reads context, think, answer; this run's sections are think, answer"),
    "no context": ("short_think_answer", {"reward_funcs": ["omni_rewards.context_reward"]}, "context_reward needs a section `context`"),
    "no thought": ("answer", {"reward_funcs": ["omni_rewards.answer_reward"], "reward_settings": '{"omni_rewards.answer_reward": {"require_agreement": true}}'}, "`require_agreement` compares the answer with the reasoning"),
    "sections of its own": ("think_answer", {"section_schema": ["context", "think", "answer"]}, "section_schema: .* are not the sections of this run's prompt_style, think, answer; leave section_schema out"),
    "one section of its own": ("think_answer", {"section_schema": "answer"}, "section_schema: answer are not"),
}  # fmt: skip


@pytest.mark.parametrize(("style", "fields", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_refused_at_start_and_its_remedies_work(style, fields, message, tmp_path):
    """Before torch is imported, and before the folder is made; then each remedy of the message is applied."""
    argv = configuration(prompt_style=style, **fields)
    with pytest.raises(ValueError, match=message):
        check_rewards(argv)
    (tmp_path / "run.yaml").write_text("{}")
    with pytest.raises(ValueError, match=message):
        grpo_omni.main(["--config", str(tmp_path / "run.yaml"), "--output_dir", str(tmp_path / "out"), *argv])
    assert not (tmp_path / "out").exists()
    wanted = re.search(r"needs a section|require_agreement", message)
    fitting = [
        name
        for name, other in PROMPT_STYLES.items()
        if ("context" in other.schema.names if wanted else True) and other.schema != PROMPT_STYLES[style].schema
    ]
    tried = []
    for name in fitting:  # "choose a prompt_style that has them"
        try:
            check_rewards(configuration(prompt_style=name, **fields))
            tried.append(name)
        except ValueError:
            continue
    assert tried
    kept = {k: v for k, v in fields.items() if k == "reward_funcs" and v != [THINK_FORMAT]}
    if "context_reward" not in str(kept):  # "take it out", "leave … out"
        check_rewards(configuration(prompt_style=style, **kept))
    check_rewards(configuration(prompt_style=style, reward_funcs=[FORMAT]))


ANSWERS = {"reward_funcs": [FORMAT, "omni_rewards.answer_reward"]}
# What does not fit, by its fields; what the message says; fields that its remedy names, applied.
MISFITS = {
    "place": ({"credit_map": '{"section_format_reward": ["tags"], "answer_reward": "answer"}'}, "credit_map: 'tags' is no place; one of think, answer, tag", {"credit_map": '{"section_format_reward": ["tag"], "answer_reward": "answer"}'}),
    "section": ({"credit_map": '{"section_format_reward": "context", "answer_reward": "answer"}'}, "credit_map: 'context' is no place", {"credit_map": '{"section_format_reward": "think", "answer_reward": "answer"}'}),
    "reward": ({"credit_map": '{"section_format_reward": "tag", "answer_rewards": "answer"}'}, "did you mean 'answer_reward'", {"credit_map": '{"section_format_reward": "tag", "answer_reward": "answer"}'}),
    "not placed": ({"credit_map": '{"section_format_reward": "tag"}'}, "does not say where 'answer_reward' may act", {"credit_map": '{"section_format_reward": "tag", "answer_reward": ["answer"]}'}),
    "preset": ({"credit_map": "papers"}, "credit_map: 'papers' is unknown", {"credit_map": "paper"}),
    "loss": ({"credit_map": "strict", "loss_type": "luspo"}, "loss_type: luspo", {"credit_map": "uniform", "loss_type": "luspo"}),
    "aggregation": ({"credit_map": "strict", "multi_objective_aggregation": "normalize_then_sum"}, "multi_objective_aggregation:", {"credit_map": "uniform", "multi_objective_aggregation": "normalize_then_sum"}),
    "gain": ({"context_gain_weight": 1.0}, "context_gain_weight: the sections think, answer have no 'context'", {"context_gain_weight": 1.0, "prompt_style": "short", "credit_map": "paper"}),
    "gain, measured": ({"context_gain_weight": 0}, "context_gain_weight: the sections think", {}),
    "gain's name": ({"context_gain_weight": 1.0, "prompt_style": "short", "reward_funcs": [f"{HERE}.context_gain"]}, "'context_gain' is the trainer's own name", {}),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "message", "remedy"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_the_sections_is_refused_before_a_model_is_loaded(fields, message, remedy, tmp_path):
    """
    By the script and by the trainer, neither of which finds a model here; nothing is written. Mutants: the credit looked
    at after the model, as the trainer's collaborators do; the folder claimed before.
    """
    (tmp_path / "run.yaml").write_text("{}")
    where = {"output_dir": tmp_path / "out", "model_name_or_path": tmp_path / "none", "use_cpu": True, "bf16": False}
    usual = {"prompt_style": "think_answer", "train_file": tmp_path / "none.jsonl", **ANSWERS}

    def start(fields):
        grpo_omni.main(["--config", str(tmp_path / "run.yaml"), *configuration(**where | usual | fields)])

    with pytest.raises(ValueError, match=message):
        start(fields)
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match=r"no data file at .*none\.jsonl"):
        start(remedy)
    parsed, args, _ = parse((DataArguments, OmniGRPOConfig, ModelConfig), configuration(**where | usual | fields))
    rewards, schema = configured_rewards(args.reward_funcs), PROMPT_STYLES[parsed.prompt_style].schema
    with pytest.raises(ValueError, match=message):
        OmniGRPOTrainer(str(tmp_path / "none"), rewards, args, [{}] * 8, section_schema=schema)


def test_sections_that_say_the_same_are_no_contradiction():
    check_rewards(configuration(prompt_style="answer", section_schema="answer"))
    check_rewards(configuration(prompt_style="short", section_schema=["context", "think", "answer"]))
    check_rewards(
        configuration(
            prompt_style="think_answer",
            reward_funcs=[FORMAT],
            reward_settings=f'{{"{FORMAT}": {{"schema": {{"names": ["think", "answer"]}}}}}}',
        )
    )


def test_two_names_for_one_form_are_refused():
    with pytest.raises(ValueError, match="both named 'think_answer_format_reward'"):
        check_rewards(configuration(prompt_style="think_answer", reward_funcs=[FORMAT, THINK_FORMAT]))


# In the trainers


@pytest.fixture
def make(tiny, settings, mixed, tmp_path):
    def build(rewards, schema=None, dataset=mixed, **fields):
        args = OmniGRPOConfig(
            **SMALL_RUN,
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=4,
            max_steps=1,
            **fields,
        )
        encoder = PromptEncoder(load_processor(tiny), settings)
        return OmniGRPOTrainer(load_model(tiny), rewards, args, dataset, encoder=encoder, section_schema=schema)

    return build


def test_the_trainer_gives_its_rewards_the_sections_and_the_credit_map_follows(make):
    """Mutant: a map that names the reward as the run does is refused, because the reward is called otherwise now."""
    rewards = [omni_rewards.section_format_reward, omni_rewards.answer_reward]
    trainer = make(rewards, THINK_ANSWER, credit_map={FORMAT: ["tag"], "answer_reward": ["answer"]})
    assert trainer.reward_func_names == ["think_answer_format_reward", "answer_reward"]
    assert [reward.schema for reward in trainer.reward_funcs] == [THINK_ANSWER] * 2
    about = [reward.sections for reward in trainer.reward_funcs]
    assert about == [("tag",), ("answer",)], "through the watch for numbers that are not finite, too"
    assert trainer.reward_funcs[0]([RENDERED[THINK_ANSWER]]) == [1.0]
    trainer.train()
    by_config = make(omni_rewards.section_format_reward, section_schema=["answer"])
    assert by_config.reward_funcs[0].schema == ANSWER
    own = [
        reward.__wrapped__ for reward in make(rewards).reward_funcs
    ]  # within the watch for numbers that are not finite
    assert own == rewards, "without sections of the run's own, the rewards are as they were"


def test_the_trainer_refuses_what_contradicts_its_sections(make):
    with pytest.raises(ValueError, match="it reads think, answer; this run's sections are context"):
        make([omni_rewards.think_answer_format_reward], CONTEXT_THINK_ANSWER)
    with pytest.raises(ValueError, match="context_gain_weight: the sections think, answer have no 'context'"):
        make([omni_rewards.answer_reward], THINK_ANSWER, context_gain_weight=1.0)
    with pytest.raises(ValueError, match="credit_map: 'context' is no place; one of think, answer, tag"):
        make([omni_rewards.answer_reward], THINK_ANSWER, credit_map={"answer_reward": ["context"]})
    with pytest.raises(ValueError, match=r"section_schema: \['answer'\] in `args`, \('think', 'answer'\) beside"):
        make([omni_rewards.answer_reward], THINK_ANSWER, section_schema=["answer"])
    assert in_sections("a/reward-model", THINK_ANSWER) == "a/reward-model"


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: "-".join(schema.names))
def test_validation_in_sft_goes_by_the_style(tiny, settings, mixed: Dataset, tmp_path, schema, monkeypatch):
    """Texts as a perfect model of the style writes them. Mutant: the default sections, a rate of 0."""
    rows = with_sft_targets(mixed, "sections", THINK_ANSWER if schema != CONTEXT_THINK_ANSWER else schema)
    args = OmniSFTConfig(**SMALL_RUN, output_dir=str(tmp_path), validate_answers=True)
    encoder = PromptEncoder(load_processor(tiny), settings)
    trainer = OmniSFTTrainer(load_model(tiny), args, rows, rows, encoder=encoder, section_schema=schema)
    perfect = [schema.render(dict.fromkeys(schema.names[:-1], "x") | {"answer": s}) for s in rows["solution"]]
    monkeypatch.setattr(trainer, "_answer", lambda rows: perfect)
    assert trainer.evaluate() == {"eval_answer_accuracy": 1.0, "eval_format_rate": 1.0}
    foreign = next(text for other, text in RENDERED.items() if other != schema)
    monkeypatch.setattr(trainer, "_answer", lambda rows: [foreign] * len(perfect))
    assert trainer.evaluate()["eval_format_rate"] == 0.0


def test_the_launcher_tells_validation_the_style(tiny, mixed_file, tmp_path, monkeypatch):
    """Mutant: `sft_omni.py` without `section_schema`."""
    import sft_omni
    from omni_grpo.rollout.answers import Completion

    def perfect(model, processor, embedder, rows, *args, **kwargs):
        return [Completion(RENDERED[THINK_ANSWER], 5, 0.1, False) for _ in rows]

    monkeypatch.setattr("omni_grpo.sft.generate", perfect)
    (tmp_path / "run.yaml").write_text("{}")
    fields = {
        **SMALL_RUN,
        "max_steps": 1,
        "eval_strategy": "steps",
        "validate_answers": True,
        "sft_target": "sections",
    }
    fields |= {"num_frames": 2, "max_pixels": 3136, "min_pixels": 3136, "prompt_style": "short_think_answer"}
    fields |= {"train_file": mixed_file, "validation_file": mixed_file, "output_dir": tmp_path / "sft"}
    sft_omni.main(["--config", str(tmp_path / "run.yaml"), *configuration(model_name_or_path=tiny, **fields)])
    assert '"eval_format_rate": 1.0' in (tmp_path / "sft/log.jsonl").read_text()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answer_settings": {"schema": {"names": ["answer"]}}}, "answer_settings: `schema` is the prompt style's"),
        ({"generation_kwargs": {"temperature": 1.0}}, "generation_kwargs: no such setting 'temperature'"),
        ({"generation_kwargs": "{"}, "generation_kwargs: not JSON"),
    ],
)
def test_an_evaluation_refuses_what_it_could_not_keep(fields, message):
    given = {"models": ["a=b"], "test_file": "t.jsonl", "output_dir": "o"}
    with pytest.raises(ValueError, match=message):
        EvalArguments(**given, **fields)
    asked = EvalArguments(**given, generation_kwargs='{"repetition_penalty": 1.05}')
    assert asked.protocol().decoding == {"repetition_penalty": 1.05}
