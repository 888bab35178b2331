# SPDX-License-Identifier: Apache-2.0
"""Context reward: does `<context>` say what can be seen and heard, all of it and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._completions import Completion, about, completion_text
from ._elements import AUDIO, UNMARKED, VISUAL, key_elements
from ._judged import awaited, settled
from .coverage import context_coverage
from .judge import Judge, Question
from .judge.media import Medium, media_of, shown
from .judge.rows import Row
from .judge.settings import as_judge
from .sections import CONTEXT_THINK_ANSWER, SectionSchema, find_tags, parse_sections

CONTEXT_RUBRIC = (
    "You are given REFERENCE, a true description of a scene, and CANDIDATE, a description to grade. Grade only {sense}. "
    "5: every key element of the reference is there and nothing is invented. 4: one minor element is missing, or a "
    "minor one is invented. 3: a key element is missing or invented. 2: several are. 1: hardly any of the reference is "
    "there, or much contradicts it. 0: nothing of it is there. Wording and order do not matter. A statement that "
    "contradicts the reference, or names several alternatives, counts as invented. Length and style earn nothing."
)
CONTEXT_MEDIA_RUBRIC = CONTEXT_RUBRIC.replace("the reference", "the scene").replace(
    "given REFERENCE, a true description of a scene, and", "shown a scene itself and given"
)
_SENSE_WORDS = {
    VISUAL: "what can be SEEN (faces, gestures, people, objects, places, actions)",
    AUDIO: "what can be HEARD (voices, tone, speech, music, noises)",
    UNMARKED: "whether it describes the same scene",
}
# What is said of the other sense is graded by a question of its own; where there is no such sense, here.
_IGNORED = {VISUAL: ", and ignore what can be heard", AUDIO: ", and ignore what can be seen", UNMARKED: ""}
_INVENTED = {
    VISUAL: ", and count what is said to be HEARD as invented, as there is no sound",
    AUDIO: ", and count what is said to be SEEN as invented, as there is no picture",
}


@dataclass(frozen=True)
class ContextReward:
    """
    `context_reward` with settings: a judge in place of the offline scorer, another rubric, another penalty.

    With a judge, each sense that the reference marks is a question of its own, and the reward is their mean. Where neither
    reference nor prompt has the other sense, what is said of it counts as invented. A judge that sees and hears
    (`send_media: true`) also grades rows that have media and no reference, each sense of the media by itself.

    Args:
        judge (`Judge` or `dict[str, Any]`, *optional*):
            The judge, or its settings; the offline scorer without one.
        rubric (`str`, *optional*, defaults to `CONTEXT_RUBRIC`):
            Tells the judge what earns which score from 0 to 5. `{sense}`, where it occurs, is replaced by what to look
            at; the judge is shown REFERENCE and CANDIDATE. For rows without a reference the default is
            `CONTEXT_MEDIA_RUBRIC`.
        invented_weight (`float`, *optional*, defaults to `1.0`):
            Exponent of the penalty for invented elements in the offline score; 0 counts recall alone.
        schema (`SectionSchema`, *optional*, defaults to `CONTEXT_THINK_ANSWER`):
            The sections of the completions; one of them is `context`.

    Raises `ValueError` at construction for settings that cannot work, a judge without endpoint among them.

    >>> completion = "<context>He frowns and shouts.</context><think>Angry.</think><answer>B</answer>"
    >>> ContextReward(invented_weight=0.0)([completion], context=["He frowns."])
    [1.0]
    """

    judge: Judge | Mapping[str, Any] | None = None
    rubric: str = CONTEXT_RUBRIC
    invented_weight: float = 1.0
    schema: SectionSchema = CONTEXT_THINK_ANSWER

    __name__ = "context_reward"  # TRL's metric key
    sections = ("context",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "judge", as_judge(self.judge))
        if not 0.0 <= self.invented_weight <= 100.0:
            raise ValueError(f"`invented_weight` must be from 0 to 100, got {self.invented_weight}")
        if not self.rubric.strip():
            raise ValueError("`rubric` must tell the judge what to grade")
        if "context" not in self.schema.names:
            raise ValueError(f"context_reward needs a section `context`, the schema has {list(self.schema.names)}")

    @property
    def needed_columns(self) -> tuple[str, ...]:
        """Columns without which it says nothing."""
        return () if getattr(self.judge, "send_media", False) else ("context",)

    def __call__(
        self, completions: Sequence[Completion], context: Sequence[str | None] | None = None, **kwargs: Any
    ) -> list[float | None]:
        """A score for each of the completions, in TRL's calling form."""
        if context is None and self.needed_columns:
            raise ValueError("context_reward needs a column `context`, or a judge with `send_media: true`")
        count, texts = len(completions), map(completion_text, completions)
        media = [media_of(self.judge, index, kwargs) for index in range(count)]
        kinds = [[kind for kind, _ in shown(index, kwargs)] for index in range(count)]
        rows = zip(texts, [None] * count if context is None else context, media, kinds, strict=True)
        return settled(self.judge, [self._row(*row) for row in rows], kwargs)

    def _row(self, completion: str, reference: str | None, media: tuple[Medium, ...], kinds: list[str]) -> Row:
        reference = (reference or "").strip()
        if not reference and not media:
            return None
        if find_tags(reference, self.schema):
            raise ValueError(f"the reference context must be bare, without tags, got {reference[:200]!r}")
        written = parse_sections(completion, self.schema).texts.get("context")
        if written is None:
            return 0.0
        if not isinstance(self.judge, Judge):
            return context_score(written, reference, self.invented_weight)
        marked = [sense for sense in (VISUAL, AUDIO) if key_elements(reference)[sense]]
        there = {AUDIO if kind == "audio" else VISUAL for kind in kinds}.union(marked)
        texts, rubric = (("REFERENCE", reference), ("CANDIDATE", written.strip())), self.rubric
        if not reference:
            marked = [AUDIO if medium.kind == "audio" else VISUAL for medium in media]
            texts, rubric = texts[1:], CONTEXT_MEDIA_RUBRIC if rubric == CONTEXT_RUBRIC else rubric
        about = {s: _SENSE_WORDS[s] + (_INVENTED if there == {s} else _IGNORED)[s] for s in marked or [UNMARKED]}
        rubrics = [rubric.replace("{sense}", words) for words in about.values()]
        return tuple(Question(rubric, texts, media) for rubric in dict.fromkeys(rubrics))


@dataclass(frozen=True)
class AsyncContextReward(ContextReward):
    """`ContextReward` as a coroutine: TRL awaits it together with the other asynchronous rewards of a step."""

    __call__ = awaited(ContextReward.__call__)  # pyright: ignore[reportAssignmentType]


@about("context")
def context_reward(
    completions: Sequence[Completion], context: Sequence[str | None], **kwargs: Any
) -> list[float | None]:
    r"""
    Whether `<context>` says what the reference context says, and nothing beside it; higher is better.

    $$R = \frac{1}{|S|} \sum_{s \in S} r_s\, p_s \cdot p \in [0, 1]$$ over the senses $$s$$ that the reference marks,
    seen and heard: $$r_s$$ is the share of its key elements of that sense that are named (recall), $$p_s$$ the share of
    the named ones that it has (precision), and $$p$$ the share of all named elements that fall under a sense that the
    reference has. `1.0` only for exactly its elements; each missing and each invented one costs.

    `None` for a row without a reference context, or with one that names nothing. `0.0` for a completion without a
    single well-formed `<context>` section, and for one with no element right. An element is a word that says something,
    compared without inflection, words for one emotion as one (angry, furious). "Not happy", and "happy" in a question
    or after "if", are others than "happy"; so is an element under the wrong sense ("the voice is sad" is no "the face
    is sad"), and "blue" before "coat" where the reference has a red coat and a blue ball. What a clause is about is read
    from words such as "face", "smile", "voice", "music"; a reference without such words is compared as a whole.

    This measures words, English ones best. Not seen: paraphrases beyond inflection and emotions; who does it to whom ("a
    woman hits a man" for "a man hits a woman"); a denial in another sentence, which costs its own words alone; that all
    is said many times. `ContextReward` asks a judge instead.

    Args:
        completions (`list[str]` or `list[list[dict[str, Any]]]`):
            Completions, plain or conversational.
        context (`list[str | None]`):
            Reference contexts without tags: column `context`.
        **kwargs:
            TRL's other arguments and columns; not used.

    Raises `ValueError` for a reference that is still in tags; what the model wrote raises nothing.

    Source: the context reward of HumanOmniV2 (https://huggingface.co/papers/2506.21277), a judge's grade of the
    coverage alone. Deviations: works without a judge; invented elements cost; seen and heard are scored apart.

    >>> reference = "The face looks happy. The voice sounds angry."
    >>> context_reward([
    ...     "<context>I hear an angry voice. The face is happy.</context><think>No.</think><answer>no</answer>",
    ...     "<context>I hear a happy voice. The face is happy.</context><think>Yes.</think><answer>yes</answer>",
    ... ], context=[reference, reference])
    [1.0, 0.5]
    """
    return _DEFAULT(completions, context, **kwargs)


def context_score(written: str, reference: str, invented_weight: float = 1.0) -> float | None:
    """
    Score in `[0, 1]` of one bare context against a reference; `None` if the reference has no key element.

    `invented_weight` is the exponent of both precisions in the formula of `context_reward`. Takes time linear in the
    texts. Raises nothing.

    >>> context_score("The man frowns, smiles and weeps.", "The man frowns.")
    0.5
    """
    coverage = context_coverage(written, reference)
    if not coverage:
        return None
    senses = [sense for sense in coverage.values() if sense.named + sense.missing]
    score = 0.0
    for named, missing, invented in senses:
        if named:
            score += named / (named + missing) * (named / (named + invented)) ** invented_weight
    num_found = sum(sense.named + sense.invented for sense in coverage.values())
    num_placed = sum(sense.named + sense.invented for sense in senses)
    return score / len(senses) * (num_placed / num_found) ** invented_weight if num_found else 0.0


_DEFAULT = ContextReward()
