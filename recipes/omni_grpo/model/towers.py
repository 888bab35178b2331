# SPDX-License-Identifier: Apache-2.0
"""Media into the model, counted: every pass sees every item of every row, on every rank, or it stops.

`encode` runs the towers on a batch's items before anything is sampled; a forward pre-hook puts what they gave before
the model's own forward, which places it. Four things are held here:

- placeholder tokens in the ids = rows that the towers return, per modality. Features that are missing, left over or
  of another row raise [`MediaError`] with the row's name. (Unhooked, the model takes a prompt with video placeholders
  and no video without a word, and ignores surplus audio features.)
- an item is encoded once, however many rows show it: by `encode`, and where its tower trains once more in each pass
  with gradient, inside the wrapped forward that DDP, ZeRO and FSDP see.
- with several processes, a rank that has no item of some modality runs that tower on a tiny dummy whose output is
  added with weight zero, so that all ranks make the same tower calls: ZeRO-3 gathers a tower's parameters and ZeRO-2
  reduces its gradients collectively, and both hang where one rank stays away.
- during cached decoding the towers are not run again.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

from omni_grpo.data.encoding.inputs import EncodedPrompt, collate_media
from omni_grpo.data.media.settings import MediaError
from omni_grpo.families import Family, base_of, family_of, head_of
from omni_grpo.model.feature_cache import FeatureCache


class MediaEmbedder:
    """
    Runs the towers of one model. Attach it with [`attach_media_embedder`].

    Args:
        family ([`Family`]): The model's.
        everywhere (iterable of `str`): Modalities whose tower runs wherever towers run, on a dummy where a rank has none.

    Attributes:
        cache ([`FeatureCache`], *optional*): Where features of frozen towers are kept across epochs and runs.
        encodes_once (`bool`): Whether an item that several rows of a pass show is encoded once in it.
        passes (`Counter`): Tower calls since the start, per modality, dummies not counted.
        items (`Counter`): Media items that went through a tower since the start, per modality.
        rows (`Counter`): Rows that towers returned since the start, per modality, dummies not counted.
        placed (`Counter`): Rows that stand in the passes' prompts since the start, per modality, new or brought.
    """

    def __init__(self, family: Family, everywhere: Iterable[str] = ()) -> None:
        self.family, self.everywhere = family, frozenset(everywhere)
        self.cache: FeatureCache | None = None
        self.encodes_once = True
        self.passes: Counter[str] = Counter()
        self.items: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.placed: Counter[str] = Counter()
        self._expected: Sequence[EncodedPrompt] | None = None
        self._packed = False
        self._ready: dict[str, torch.Tensor] = {}  # features that the forward under way will ask for
        self._places: list[tuple[torch.Tensor, torch.Tensor]] = []  # where others go in its embeddings
        self._dummies: list[torch.Tensor] = []  # what it adds to them with weight zero

    @torch.no_grad()
    def encode(self, model: nn.Module, prompts: Sequence[EncodedPrompt], device: torch.device) -> list[EncodedPrompt]:
        """
        The prompts with `features`: each distinct item encoded once, one call a modality, on all ranks alike.

        Call it under the autocast of the passes that follow.

        Raises:
            `MediaError`: An item gives another number of rows than its prompt has placeholders; the row is named.
        """
        if isinstance(model, FSDPModule):  # whose weights are gathered for what counts as a forward, and then alone
            sharded: Any = model
            sharded.encode_media = functools.partial(self._encode, model)
            register_fsdp_forward_method(sharded, "encode_media")
            return sharded.encode_media(prompts, device)
        return self._encode(model, prompts, device)

    def _encode(self, model: nn.Module, prompts: Sequence[EncodedPrompt], device: torch.device) -> list[EncodedPrompt]:
        base, features = base_of(model), [dict[str, torch.Tensor | None]() for _ in prompts]
        self._ready = {}  # of a pass that failed
        for modality in self.family.modalities:
            encoded = self._encode_distinct(base, modality, prompts, device)
            for prompt, own in zip(prompts, features, strict=True):
                parts = [encoded[key] for key in prompt.keys(modality)]
                own[modality] = torch.cat(parts) if parts else None
        return [replace(prompt, features=own) for prompt, own in zip(prompts, features, strict=True)]

    def _encode_distinct(
        self, base: Any, modality: str, prompts: Sequence[EncodedPrompt], device: torch.device
    ) -> dict[Any, torch.Tensor]:
        """Features `(placeholders, width)` by item; those that the cache lacks are encoded, all in one call."""
        items: dict[Any, tuple[Mapping[str, torch.Tensor], int, str]] = {}
        for prompt in prompts:
            parts = self.family.split(prompt.media, modality)
            for key, item, length in zip(prompt.keys(modality), parts, prompt.lengths.get(modality, ()), strict=True):
                items.setdefault(key, (item, length, prompt.name))
        cache = self.cache if is_frozen(self.family.tower(base, modality)) else None
        found = {key: rows.to(device) for key in items if cache and (rows := cache.load(key)) is not None}
        for key, rows in found.items():
            if len(rows) != items[key][1]:
                raise MediaError(
                    f"row {items[key][2]!r}: its {modality} has {len(rows)} rows in media_feature_cache, its prompt "
                    f"{items[key][1]} placeholders; empty that folder"
                )
        if missing := [key for key in items if key not in found]:
            media = self.family.join([items[key][0] for key in missing], device)
            lengths = [items[key][1] for key in missing]
            encoded = self._run(base, modality, media, lengths, [items[key][2] for key in missing])
            for key, rows in zip(missing, encoded.split(lengths), strict=True):
                found[key] = rows.clone()  # a view would keep the features of all items alive
                if cache:
                    cache.save(key, found[key])
        elif modality in self.everywhere:
            self._run_on_dummy(base, modality)
        return found

    @contextmanager
    def expecting(self, rows: Sequence[EncodedPrompt], packed: bool = False) -> Iterator[None]:
        """
        Within: each pass that sees whole prompts must hold exactly these, in this order: one a row, or with `packed`
        all in one row.
        """
        before = self._expected, self._packed
        self._expected, self._packed = rows, packed
        try:
            yield
        finally:
            self._expected, self._packed = before

    def inputs(self, rows: Sequence[EncodedPrompt], device: torch.device) -> dict[str, torch.Tensor]:
        """Model inputs of the rows' media, less what is encoded already."""
        encoded = [self.family.inputs[m][0] for m in self.family.modalities if _bring(rows, m)]
        return {k: v.to(device, non_blocking=True) for k, v in collate_media(rows, without=encoded).items()}

    def repeat(self, rows: Sequence[EncodedPrompt], index: Iterable[int]) -> None:
        """Count prompts whose cache was repeated: `rows` have been seen, and stand now as `index` says."""
        for modality in self.family.modalities:
            counts = [row.counts[modality] for row in rows]
            self.placed[modality] += sum(counts[i] for i in index) - sum(counts)

    def __call__(self, base: Any, args: tuple[Any, ...], kwargs: dict[str, Any]):
        """The pre-hook of the base model: counts placeholders, and makes the features ready that its forward will place."""
        input_ids, cache = kwargs.get("input_ids", args[0] if args else None), kwargs.get("past_key_values")
        if input_ids is None or (cache is not None and cache.get_seq_length() > 0):
            return None
        kwargs = {**kwargs, "input_ids": input_ids, **self.family.types(base, input_ids)}
        masks = {m: input_ids == getattr(base.config, f"{m}_token_id") for m in self.family.modalities}
        self._check_rows(masks)
        self._ready, self._dummies, self._places, ready = {}, [], [], {}
        for modality, mask in masks.items():
            name, brought = self.family.inputs[modality][0], _bring(self._expected or (), modality)
            ran = self.passes[modality]
            features = self._brought(modality) if brought else self._encoded(base, modality, kwargs)
            if features is not None or mask.any():
                self._check_count(modality, mask, 0 if features is None else len(features))
            if features is not None:
                self.placed[modality] += len(features)
            kwargs[name] = None
            if features is not None and hasattr(type(base), f"get_{modality}_features"):
                kwargs[name] = ready[modality] = features  # that there are some; what they are, `replay` says
            elif features is not None:  # a class that cannot be asked for them
                self._places.append((mask[..., None], features))
            if modality in self.everywhere and not brought and ran == self.passes[modality]:
                self._dummies.append(self._run_on_dummy(base, modality).sum())
        self._ready = ready  # not before: to encode a video, a model may call its own `get_image_features`
        return args[1:] if args else args, kwargs

    def embed(self, _: nn.Module, args: tuple[Any, ...], embeds: torch.Tensor) -> torch.Tensor:
        """
        The forward hook of the input embeddings `(B, L, width)`: what the model's own forward does not place. Here, and
        not by `inputs_embeds`, which some models refuse beside ids: all ranks keep to one order of modules.
        """
        places, dummies, self._places, self._dummies = self._places, self._dummies, [], []
        for mask, features in places:
            embeds = embeds.masked_scatter(mask, features.to(embeds.device, embeds.dtype))
        return embeds + sum(0.0 * dummy.to(embeds.device, embeds.dtype) for dummy in dummies) if dummies else embeds

    def replay(self, base: Any, modality: str, *args: Any, **kwargs: Any) -> Any:
        """The base model's `get_…_features`: within a pass, what the pre-hook made ready; else the class's own."""
        if modality not in self._ready:
            return getattr(type(base), f"get_{modality}_features")(base, *args, **kwargs)
        return self.family.encoded(base, modality, self._ready.pop(modality))

    def _brought(self, modality: str) -> torch.Tensor | None:
        """Features that the expected rows have with them."""
        parts = [part for row in self._expected or () if (part := row.features[modality]) is not None]
        return torch.cat(parts) if parts else None

    def _encoded(self, base: Any, modality: str, kwargs: Mapping[str, Any]) -> torch.Tensor | None:
        """Features of what the pass was given; items that come more than once are encoded once."""
        items = self.family.split(kwargs, modality)
        if not items:
            return None
        rows = self._expected or ()
        keys = [key for row in rows for key in row.keys(modality)]
        lengths = [n for row in rows for n in row.lengths.get(modality, ())]
        names = [row.name for row in rows if row.lengths.get(modality)]
        if not self.encodes_once or len(keys) != len(items) or len(set(keys)) == len(keys):
            whole = {name: kwargs[name] for name in self.family.inputs[modality] if kwargs.get(name) is not None}
            return self._run(base, modality, whole, lengths if len(lengths) == len(items) else len(items), names)
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        distinct = list(dict.fromkeys(keys))
        chosen = [lengths[first[key]] for key in distinct]
        media = self.family.join([items[first[key]] for key in distinct], kwargs["input_ids"].device)
        encoded = self._run(base, modality, media, chosen, names)
        parts = dict(zip(distinct, encoded.split(chosen), strict=True))
        return torch.cat([parts[key] for key in keys])

    def _run(
        self, base: Any, modality: str, media: Mapping[str, Any], lengths: Sequence[int] | int, names: Sequence[str]
    ) -> torch.Tensor:
        """The tower's output for items; `lengths` are their placeholders, or how many items there are."""
        encoded = self.family.encode(base, modality, media)
        if not isinstance(lengths, int) and sum(lengths) != len(encoded):
            raise MediaError(
                f"rows {list(dict.fromkeys(names))[:8]}: their {modality} items gave {len(encoded)} encoded rows for "
                f"{sum(lengths)} placeholders"
            )
        self.passes[modality] += 1
        self.items[modality] += lengths if isinstance(lengths, int) else len(lengths)
        self.rows[modality] += len(encoded)
        return encoded

    def _run_on_dummy(self, base: Any, modality: str) -> torch.Tensor:
        return self.family.encode(base, modality, self.family.smallest(base, modality))

    def _check_rows(self, masks: Mapping[str, torch.Tensor]) -> None:
        """The ids of a pass hold the placeholders of its expected rows, row by row."""
        if (rows := self._expected) is None:
            return
        for modality, mask in masks.items():
            found, wanted = mask.sum(-1).tolist(), [row.counts[modality] for row in rows]
            if self._packed:
                if sum(found) != sum(wanted):
                    raise MediaError(
                        f"rows {[row.name for row in rows][:8]}: {sum(found)} {modality} placeholders in the packed row "
                        f"of this pass, {sum(wanted)} in their prompts; media and rows have come apart"
                    )
                continue
            if len(rows) != len(found):
                raise MediaError(f"{len(found)} rows in a pass that was given media for {len(rows)}")
            for row, seen, own in zip(rows, found, wanted, strict=True):
                if seen != own:
                    raise MediaError(
                        f"row {row.name!r}: {seen} {modality} placeholders in the ids of this pass, {own} in its "
                        "prompt; media and rows have come apart"
                    )

    def _check_count(self, modality: str, mask: torch.Tensor, returned: int) -> None:
        if (wanted := int(mask.sum())) == returned:
            return
        rows = [i for i, n in enumerate(mask.sum(-1).tolist()) if n]
        names: Sequence[Any] = rows
        if self._expected is not None:
            names = [row.name for row in (self._expected if self._packed else (self._expected[i] for i in rows))]
        raise MediaError(
            f"{wanted} {modality} placeholders in rows {names[:8]}, but {returned} encoded {modality} rows: "
            "the pass would not see what the prompt shows"
        )


def attach_media_embedder(model: nn.Module, everywhere: Iterable[str] = ()) -> MediaEmbedder:
    """
    Hook a [`MediaEmbedder`] into a model (through PEFT wrapping too) and return it.

    Args:
        model (`nn.Module`): A model of a supported family, bare or wrapped.
        everywhere (iterable of `str`): See [`MediaEmbedder`]; give it the modalities of the data with several processes.
    """
    embedder, base = MediaEmbedder(family_of(model), everywhere), base_of(model)
    base.register_forward_pre_hook(embedder, with_kwargs=True)
    base.get_input_embeddings().register_forward_hook(embedder.embed)
    output = head_of(model).get_output_embeddings()
    base.register_forward_pre_hook(lambda *_: _gather(output))
    for modality in embedder.family.modalities:
        setattr(base, f"get_{modality}_features", functools.partial(embedder.replay, base, modality))
    for module in model.modules():  # `generate` would run the vision tower before the pass, in an order of its own
        if hasattr(module, "_supports_mm_encoder_outputs"):
            setattr(module, "_supports_mm_encoder_outputs", _never)  # noqa: B010 (a method, which nn.Module does not type)
    return embedder


def lasting(embedder: MediaEmbedder, model: nn.Module, mode: str) -> frozenset[str]:
    """
    Modalities whose features hold for all passes of a generation batch: those of frozen towers, and in evaluation,
    where no tower trains, of all that have no adapters.
    """
    base, family = base_of(model), embedder.family
    holds = (lambda tower: not has_adapters(tower)) if mode == "eval" else is_frozen
    return frozenset(m for m in family.modalities if holds(family.tower(base, m)))


def has_adapters(tower: Sequence[nn.Module]) -> bool:
    """Whether adapters stand in a tower, which are turned off for the reference's passes."""
    return any(isinstance(m, (BaseTunerLayer, AuxiliaryTrainingWrapper)) for part in tower for m in part.modules())


def is_frozen(tower: Sequence[nn.Module]) -> bool:
    """Whether a tower gives the same features in every pass of a run."""
    return not any(p.requires_grad for part in tower for p in part.parameters()) and not has_adapters(tower)


def _bring(rows: Sequence[EncodedPrompt], modality: str) -> bool:
    """Whether rows have their features of a modality with them, the empty ones among them."""
    return bool(rows) and all(modality in row.features for row in rows)


def _gather(module: nn.Module) -> None:
    """
    Whole weights of a module that FSDP2 has sharded, until the next backward pass. TRL's fused head reads the language
    head's without calling it: of shards its gradient would be that of this process's rows alone.
    """
    if isinstance(module, FSDPModule):
        module.unshard()


def _never() -> bool:
    return False
