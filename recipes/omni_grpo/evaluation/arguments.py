# SPDX-License-Identifier: Apache-2.0
"""The fields of an evaluation: what is answered by whom, and by which protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from omni_grpo.evaluation.benchmarks import READERS
from omni_grpo.evaluation.protocol import PARSERS, Protocol
from omni_grpo.evaluation.variants import VARIANTS
from omni_grpo.rollout.answers import BACKENDS, GREEDY
from omni_grpo.run.construct import as_mapping, construct, refuse_unknown, word
from omni_grpo.run.scripts import load_object
from omni_rewards import AnswerReward, Judge


@dataclass
class EvalArguments:
    """
    What to evaluate, and where the results go.

    Args:
        models (`list[str]`): `name=directory` of each model, in the order of the tables.
        test_file (`str`): Data file or Hugging Face data set; of a benchmark, its annotation file as released.
        test_split (`str`, defaults to `"test"`): Split of a data set that is not named as `name[split]`.
        benchmark (`str`, *optional*): A key of `omni_grpo.evaluation.benchmarks.READERS`, whose reader reads `test_file`.
        protocol_version (`str`, defaults to `"1"`): See [`~omni_grpo.evaluation.protocol.Protocol`], as the next eight.
        metric (`str`, defaults to `"accuracy"`): `accuracy` or `war_uar`.
        group_by (`list[str]`): Keys of `meta` that results are reported by.
        answer_settings (`dict`, *optional*): Settings of `omni_rewards.AnswerReward` (on the command line as JSON).
        counterfactual (`str`, *optional*):
            Dotted path of a function that knows a row's answer for another's media, `(row, donor, sense)` to whether it
            changes; without one the shortcut index goes by chance.
        judge (`dict`, *optional*): Settings of `omni_rewards.Judge`, for contexts and reasoning (as JSON, too).
        context_reader (`"policy"` or `dict`, *optional*):
            Who answers from the question and the context alone, without media, to tell whether contexts are sufficient: the
            model itself, or the one that settings as of `judge` name (as JSON, too).
        generation_kwargs (`dict`, *optional*):
            Decoding over greedy: `repetition_penalty`, `no_repeat_ngram_size` (as JSON, too). A checkpoint's own
            `generation_config.json` sets nothing.
        parser (`str`, defaults to `"answer_section"`):
            What is read: the answer section, and a completion without one is a miss; or the whole `completion` where
            it has none.
        output_dir (`str`): One folder a model is made in it.
        variants (`list[str]`):
            Media variants, keys of `omni_grpo.evaluation.variants.VARIANTS`; the first is the headline. Where it is
            `full`, the others say how much of the score is reached without what is seen and heard, see
            `omni_grpo.evaluation.shortcut`.
        ablated (`list[str]`): Models that get every variant; the others get the first alone.
        ablated_rows (`int`, *optional*): Variants after the first answer this many rows of the file, from its start.
        bare (`list[str]`): Models never taught sections: their whole completion is the answer.
        combined (`list[str]`): Further groups, e.g. `intent+agreement`.
        compare (`list[str]`): Pairs `a:b` of models, compared row by row.
        batch_size (`int`, defaults to `32`): Rows generated together.
        max_new_tokens (`int`, defaults to `128`): Longest completion, in tokens.
        dtype (`str`, defaults to `"float32"`): Type of the weights, or `auto`.
        prompt_cache_mb (`int`, defaults to `512`): Encoded prompts kept in memory for the next model or variant.
        backend (`str`, defaults to `"generate"`): What answers; `vllm` needs `make setup-vllm`, see docs/vllm.md.
        log_level (`str`, defaults to `"warning"`): `info` for what libraries say as well.
        run_dir (`str`, *optional*): Where the combined `metrics.json` goes; defaults to the folder above `output_dir`.
    """

    models: list[str] = field(default_factory=list)
    test_file: str | None = None
    test_split: str = "test"
    output_dir: str | None = None
    benchmark: str | None = None
    protocol_version: str = "1"
    metric: str = "accuracy"
    parser: str = "answer_section"
    group_by: list[str] = field(default_factory=list)
    answer_settings: dict[str, Any] | str | None = None
    counterfactual: str | None = None
    judge: dict[str, Any] | str | None = None
    context_reader: dict[str, Any] | str | None = None
    generation_kwargs: dict[str, Any] | str | None = None
    variants: list[str] = field(default_factory=lambda: ["full"])
    ablated: list[str] = field(default_factory=list)
    ablated_rows: int | None = None
    bare: list[str] = field(default_factory=list)
    combined: list[str] = field(default_factory=list)
    compare: list[str] = field(default_factory=list)
    batch_size: int = 32
    max_new_tokens: int = 128
    dtype: str = "float32"
    prompt_cache_mb: int = 512
    backend: Literal["generate", "vllm"] = "generate"
    log_level: str = "warning"
    run_dir: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("models", self.models), ("test_file", self.test_file), ("output_dir", self.output_dir)):
            if not value:
                raise ValueError(f"{name}: required")
        word(self.backend, BACKENDS, "backend")
        for entry in self.models:
            if not all(str(entry).partition("=")[::2]):
                raise ValueError(f"models: {entry!r} is not `name=directory`")
        names = [entry.partition("=")[0] for entry in self.models]
        if len(set(names)) < len(names):
            raise ValueError(f"models: names must differ, got {', '.join(names)}")
        if unknown := [variant for variant in self.variants if variant not in VARIANTS] or not self.variants:
            raise ValueError(f"variants: {unknown} unknown; one or more of {', '.join(VARIANTS)}")
        for name, some in (("ablated", self.ablated), ("bare", self.bare)):
            if unknown := sorted(set(some) - set(names)):
                raise ValueError(f"{name}: {unknown} are not in `models`")
        if self.benchmark is not None and self.benchmark not in READERS:
            raise ValueError(f"benchmark: {self.benchmark!r} is unknown; one of {', '.join(READERS)}")
        if self.parser not in PARSERS:
            raise ValueError(f"parser: {self.parser!r} is unknown; one of {', '.join(PARSERS)}")
        self.protocol()
        for pair in self.compare:
            if pair.count(":") != 1 or (set(pair.split(":")) - set(names)):
                raise ValueError(f"compare: {pair!r} is not `a:b` of two names in `models` ({', '.join(names)})")

    def protocol(self) -> Protocol:
        """
        How answers are scored and reported.

        Raises:
            `ValueError`: A setting is unknown or of another type, or the metric is unknown.
        """
        written = as_mapping(self.answer_settings or {}, "answer_settings")
        answers = construct(AnswerReward, {}, written, "answer_settings")
        if answers.judge is not None or answers.require_agreement:
            raise ValueError("answer_settings: `judge` and `require_agreement` are for training; leave them out")
        if "schema" in written:
            raise ValueError("answer_settings: `schema` is the prompt style's; leave it out, or set `prompt_style`")
        if isinstance(self.context_reader, str) and not self.context_reader.startswith(("policy", "{")):
            raise ValueError(
                f"context_reader: {self.context_reader!r} is neither policy nor settings with endpoint and model"
            )
        reader = "policy" if self.context_reader == "policy" else _judge(self.context_reader, "context_reader")
        decoding = as_mapping(self.generation_kwargs or {}, "generation_kwargs")
        refuse_unknown(decoding, GREEDY.keys() - {"do_sample", "num_beams"}, "generation_kwargs")
        return Protocol(
            version=self.protocol_version,
            metric=self.metric,
            group_by=tuple(self.group_by),
            answers=answers,
            decoding=decoding,
            counterfactual=load_object(self.counterfactual, "counterfactual") if self.counterfactual else None,
            judge=_judge(self.judge, "judge"),
            reader=reader,
        )


def _judge(written: dict[str, Any] | str | None, name: str) -> Judge | None:
    return construct(Judge, {}, as_mapping(written, name), name) if written else None
