# SPDX-License-Identifier: Apache-2.0
"""The questions that an architecture has to answer. The answers here are transformers' conventions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn.functional import pad

MODALITIES = ("audio", "image", "video")  # in the order in which towers are run
Media = Mapping[str, torch.Tensor]  # model inputs beside the ids


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of a processor; a text-only model's processor is one."""
    return getattr(processor, "tokenizer", processor)


@dataclass(frozen=True)
class Engine:
    """
    How a language model runs in vLLM, on features and positions that it is given.

    Args:
        model (`str`): vLLM's class that places features, as `module:name`; empty for text alone.
        names (`Mapping[str, str]`): How the names begin of the weights that go there, here and there.
    """

    model: str = ""
    names: Mapping[str, str] = field(default_factory=lambda: {"": ""})


@dataclass(frozen=True)
class Family:
    """
    An architecture as the rest of the package sees it.

    Args:
        model_types (`tuple[str, ...]`): Of the configurations that may be loaded, a full checkpoint's among them.
        model_class (`str`): What is trained; a class of transformers.
        processors (`tuple[str, ...]`): Classes of its processors.
        inputs (`Mapping[str, tuple[str, ...]]`):
            Model inputs by modality: the features, then what belongs to them item by item.
        towers (`Mapping[str, tuple[str, ...]]`): Modules of the base model by modality, projectors among them.
        token_types (`bool`): Whether the model is told of each token whether it stands for a picture, a video or a sound.
        marks (`tuple[str, ...]`): The tokens around media, or the attributes of the processor that name them.
        language_layers (`str`): The language model's linear layers, as a regular expression in which
            `{names}` stands; empty where all layers are the language model's.
        engine ([`Engine`] or `str`): How it runs in vLLM, or why it does not.
    """

    model_types: tuple[str, ...]
    model_class: str
    processors: tuple[str, ...]
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    towers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    token_types: bool = False
    marks: tuple[str, ...] = ()
    # In one nn.Linear name order: PEFT matches a string target as a full regular expression on module names.
    language_layers: str = r".*\blanguage_model\.layers\.\d+\.(self_attn|mlp)\.({names})"
    engine: Engine | str = "nobody has held its log-probabilities in vLLM to the policy's own"

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in MODALITIES if m in self.inputs)

    # Whose they are.

    def has_config(self, config: Any) -> bool:
        """Whether it is the configuration of a checkpoint that can be loaded."""
        return config.model_type in self.model_types

    def has_model(self, model: Any) -> bool:
        return isinstance(model, getattr(transformers, self.model_class))

    def has_processor(self, processor: Any) -> bool:
        return type(processor).__name__ in self.processors

    # Prompts.

    def content(self, parts: list[dict[str, Any]]) -> Any:
        """A turn's parts as the chat template takes them."""
        return parts

    def cannot_take(self, shown: Iterable[str], base: nn.Module | None = None) -> str | None:
        """What is wrong with a row that shows these modalities, or `None`; of a base model, whether it has the towers."""
        known = [m for m in self.modalities if base is None or self.tower(base, m)]
        if not (lacking := sorted(set(shown) - set(known))):
            return None
        taken = ", ".join(known) or "text alone"
        return (
            f"shows {' and '.join(lacking)}; this model takes {taken}: drop the row, or choose a model that takes it"
        )

    def placeholders(self, processor: Any) -> dict[str, int]:
        """Token id of each modality's placeholder."""
        return {m: getattr(processor, f"{m}_token_id") for m in self.modalities}

    def control_ids(self, processor: Any) -> list[int]:
        """
        Every token id that means media to the model: placeholders and the marks around them.

        None of them may ever be sampled: one that is makes the next forward pass fail or misplace features.
        """
        names = [*(f"{m}_token" for m in self.modalities), *self.marks]
        ids = tokenizer_of(processor).convert_tokens_to_ids([getattr(processor, name, name) for name in names])
        return sorted(set(ids))

    def processor_kwargs(
        self,
        loaded: Mapping[str, Sequence[Any]],
        rates: Sequence[float],
        sized: bool,
        video_of_sound: Sequence[int | None],
    ) -> dict[str, Any]:
        """
        What the processor is told beside text and media.

        Args:
            loaded (`Mapping[str, Sequence]`): Decoded media by modality.
            rates (`Sequence[float]`): Sampled frames a second of each video.
            sized (`bool`): Whether pictures have the wanted size already.
            video_of_sound (`Sequence[int | None]`): For each sound the video that it is interleaved with.
        """
        shown = [
            {"total_num_frames": len(frames), "fps": rate, "frames_indices": list(range(len(frames)))}
            for frames, rate in zip(loaded["video"], rates, strict=True)
        ]
        resize: dict[str, Any] = {"do_resize": False} if sized else {}
        return {
            "videos_kwargs": {"do_sample_frames": False, "video_metadata": shown, **resize},
            "images_kwargs": resize,
        }

    def process(self, processor: Any, **given: Any) -> Any:
        """The processor's output for one text and its media."""
        return processor(**given)

    def finish(
        self, media: dict[str, torch.Tensor], rates: Sequence[float], processor: Any
    ) -> dict[str, torch.Tensor]:
        """The processor's media as the model takes them."""
        return media

    def longest_sound(self, processor: Any) -> int | None:
        """Samples beyond which the processor would cut a sound; `None` where it does not."""
        return getattr(processor.feature_extractor, "n_samples", None) if "audio" in self.inputs else None

    def pixel_multiple(self, processor: Any) -> int:
        """What both sides of a picture are multiples of: the side of what becomes one token."""
        return processor.image_processor.patch_size * processor.image_processor.merge_size

    def fitted(self, settings: Any, processor: Any) -> Any:
        """
        Media settings ([`MediaSettings`]) with what the processor decides.

        Raises:
            `ValueError`: They ask for sizes that its patches do not fill.
        """
        if not {"image", "video"} & set(self.inputs):
            return settings
        own = {"pixel_multiple": self.pixel_multiple(processor)}
        own["frame_multiple"] = getattr(processor.video_processor, "temporal_patch_size", 1)
        for name, value in own.items():
            if (asked := getattr(settings, name)) and asked % value:
                raise ValueError(f"{name}: {asked} is no multiple of {value}, this model's own; set it to {value}")
        return replace(settings, pixel_multiple=settings.pixel_multiple or own["pixel_multiple"])

    # Items of a modality.

    def split(self, media: Media, modality: str) -> list[dict[str, torch.Tensor]]:
        """The items of a modality in model inputs of one row or several, in order, as views; none gives `[]`."""
        names = [name for name in self.inputs.get(modality, ()) if media.get(name) is not None]
        if not names or names[0] != self.inputs[modality][0]:
            return []
        sizes = self.sizes(media, modality)
        parts = [media[name].split(sizes if len(media[name]) == sum(sizes) else 1) for name in names]
        return [dict(zip(names, item, strict=True)) for item in zip(*parts, strict=True)]

    def sizes(self, media: Media, modality: str) -> list[int]:
        """How much of the features' first axis each item takes."""
        beside = self.inputs[modality][1]
        return media[beside].prod(-1).tolist() if beside.endswith("grid_thw") else [1] * len(media[beside])

    def join(self, items: Sequence[Media], device: torch.device) -> dict[str, torch.Tensor]:
        """Items as model inputs, [`split`] backwards; sounds are padded to the longest."""
        return {n: cat_padded([item[n] for item in items]).to(device, non_blocking=True) for n in items[0]}

    # Towers.

    def tower(self, base: nn.Module, modality: str) -> list[nn.Module]:
        """The modules that make a modality's features."""
        return [module for name in self.towers[modality] if (module := getattr(base, name)) is not None]

    def encode(self, base: Any, modality: str, media: Media) -> torch.Tensor:
        """
        Encoder output for model inputs of one modality, `(placeholders, width)`; `(placeholders, levels, width)` where
        further levels are added to deeper layers (deepstack).
        """
        given = {name: media[name] for name in self.inputs[modality] if media.get(name) is not None}
        output = getattr(type(base), f"get_{modality}_features")(base, **given, return_dict=True)
        levels = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
        rows = [torch.cat(list(level)) if isinstance(level, (tuple, list)) else level for level in levels]
        return torch.stack(rows, dim=1) if len(rows) > 1 else rows[0]

    def encoded(self, base: Any, modality: str, rows: torch.Tensor) -> Any:
        """[`encode`] backwards: what the model's own forward takes for its encoder's output."""
        first, *deeper = rows.unbind(1) if rows.ndim == 3 else (rows,)
        pooled = first if modality == "audio" else (first,)
        return SimpleNamespace(
            last_hidden_state=first, pooler_output=pooled, deepstack_features=[(level,) for level in deeper]
        )

    def smallest(self, base: Any, modality: str) -> dict[str, torch.Tensor]:
        """Model inputs of the smallest item that the tower takes."""
        parameter = self.like_weights(base, modality)
        features, beside = self.inputs[modality][:2]
        if modality == "audio":
            mel = parameter.new_zeros(1, base.config.audio_config.num_mel_bins, 4)
            return {features: mel, beside: torch.ones(1, 4, dtype=torch.long, device=parameter.device)}
        vision = base.config.vision_config
        side = vision.spatial_merge_size
        dim = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        grid = torch.tensor([[1, side, side]], device=parameter.device)
        return {features: parameter.new_zeros(side * side, dim), beside: grid}

    def like_weights(self, base: Any, modality: str) -> torch.Tensor:
        """
        An empty tensor of the type and on the device of a tower's weights.

        They are looked at through `parameters()` alone: under ZeRO-3 a name such as `conv1.weight` gathers the weight
        from all ranks, and only those that need a dummy ask. Under FSDP2 what is made of a weight is sharded as it is.
        """
        weight = next(self.tower(base, modality)[0].parameters())
        return torch.empty(0, dtype=weight.dtype, device=weight.device)

    # Language model.

    def types(self, base: Any, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Model input `(B, L)` with 0 at text, 1 at images, 2 at videos and 3 at sounds, where the model takes one."""
        if not self.token_types:
            return {}
        types = torch.zeros_like(input_ids)
        for number, modality in enumerate(("image", "video", "audio"), start=1):
            if modality in self.inputs:
                types[input_ids == getattr(base.config, f"{modality}_token_id")] = number
        return {"mm_token_type_ids": types}

    def positions(self, head: Any, input_ids: Sequence[int], media: Media) -> torch.Tensor:
        """Positions `(axes, P)` of a prompt's tokens, its media among them, as `generate` would give them."""
        ids = torch.tensor([input_ids])
        whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **media, **self.types(head.base_model, ids)}
        positions = head._prepare_position_ids_for_generation(ids, whole)  # (1, P), or (4, 1, P) with the text's first
        return positions[1:, 0] if positions.ndim == 3 else positions

    def engine_config(self, config: Any) -> Any:
        """The model's configuration as vLLM reads it."""
        return config

    def cannot_pack(self, base: Any) -> str | None:
        """Why completions of one prompt cannot be segments of one row, or `None`."""
        kinds = set(getattr(base.config.get_text_config(), "layer_types", None) or ())
        if strange := kinds - {"full_attention", "sliding_attention"}:
            return f"layers of kind {', '.join(sorted(strange))} carry a state from token to token"
        return None


def cat_padded(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Along the first axis, the others padded at their end to the longest."""
    longest = [max(t.shape[axis] for t in tensors) for axis in range(1, tensors[0].ndim)]

    def padded(tensor: torch.Tensor) -> torch.Tensor:
        missing = [n - have for n, have in zip(longest, tensor.shape[1:], strict=True)]
        return pad(tensor, [n for more in reversed(missing) for n in (0, more)]) if any(missing) else tensor

    return torch.cat([padded(t) for t in tensors])
