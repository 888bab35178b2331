# SPDX-License-Identifier: Apache-2.0
"""The demo data set to disk: in parallel, resumable, the same bytes for the same configuration.

A clip that is there is not made again. `manifest.json` keeps a fingerprint of what each split was made from; when the
configuration (or a library that draws, speaks or encodes) changes, the splits it touches are made anew.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from omni_demo.config import SPLITS, DemoDataConfig
from omni_demo.questions import ClipSpec, plan

if TYPE_CHECKING:
    from omni_demo.voices import Speaker

logger = logging.getLogger(__name__)

GENERATOR_VERSION = 2  # raise it when the same configuration gives other data
_LIBRARIES = ("dicebear-core", "dicebear-styles", "resvg_py", "espeakng-loader", "av")
_ELSEWHERE = {
    "output_dir",
    "splits",
    "num_workers",
    "contrast_splits",
    "wording",
}  # these do not change a clip of every split

_LICENSES = """# Licences of the demo data

Everything in this folder was generated on the machine it lies on; no recording and no photograph is in it.

| part | made with | terms |
|---|---|---|
| faces | [Open Peeps](https://www.openpeeps.com/) by Pablo Stanley, drawn by DiceBear (code MIT) and resvg | CC0 1.0 |
| speech | eSpeak NG, a program under GPL-3.0-or-later | its sound output is not covered by the program's licence |
| phrases, questions, contexts, targets | this project | CC0 1.0 |

The faces are cartoons and the voices synthetic. The labels are what the generator was told to make, not what people
perceived: good for checking a training recipe, not for recognising the emotions of people.
"""


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    rows: dict[str, int]  # split -> rows in its JSONL file
    clips: int  # the splits' clips in all
    made: int  # of these, made by this run
    seconds: float


def generate(config: DemoDataConfig) -> Summary:
    """
    Make the splits of `config` below `config.output_dir`: `<split>.jsonl`, `clips/<split>/`, `LICENSES.md`.

    Raises:
        ValueError: counts that cannot be balanced (see [`DemoDataConfig`]).
        FileExistsError: the folder holds a split that this generator did not make.
    """
    started = time.monotonic()
    root = Path(config.output_dir)
    plans = {split: plan(config, split) for split in SPLITS if split in config.splits}
    root.mkdir(parents=True, exist_ok=True)
    _forget_outdated(root, {split: fingerprint(config, split) for split in plans})
    wanted = [clip for _, clips in plans.values() for clip in clips]
    missing = [clip for clip in wanted if not _is_there(root, clip)]
    _make(missing, config, root)
    for split, (rows, _) in plans.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        _write_if_changed(root / f"{split}.jsonl", text)
    _write_if_changed(root / "LICENSES.md", _LICENSES)
    return Summary(
        rows={split: len(rows) for split, (rows, _) in plans.items()},
        clips=len(wanted),
        made=len(missing),
        seconds=time.monotonic() - started,
    )


def fingerprint(config: DemoDataConfig, split: str) -> str:
    """A hash of all that decides a split: the fields that touch it, the generator, and the libraries it calls."""
    fields = {k: v for k, v in asdict(config).items() if k not in _ELSEWHERE and _owner(k) in (split, None)}
    parts = [split, GENERATOR_VERSION, fields, {name: version(name) for name in _LIBRARIES}]
    parts += ["contrast"] if split in config.contrast_splits else []
    parts += [config.wording] if config.wording != "template" else []
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _owner(field_name: str) -> str | None:
    """The split that alone a field is about: `base_text` for `base_text_face`, nobody for `fps`."""
    return max((split for split in SPLITS if field_name.startswith(f"{split}_")), key=len, default=None)


def _forget_outdated(root: Path, fingerprints: dict[str, str]) -> None:
    path = root / "manifest.json"
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for split, current in fingerprints.items():
        if known.get(split) == current:
            continue
        rows, clips = root / f"{split}.jsonl", root / "clips" / split
        if split in known:
            logger.info("%s was made from something else: making it anew", split)
        elif rows.exists() or clips.exists():
            raise FileExistsError(f"{rows} or {clips} is not of this generator; choose another output_dir")
        rows.unlink(missing_ok=True)
        shutil.rmtree(clips, ignore_errors=True)
    # Before the first clip: one that is there from now on is one of this configuration.
    _write_if_changed(path, json.dumps({**known, **fingerprints}, indent=2) + "\n")


def _is_there(root: Path, clip: ClipSpec) -> bool:
    from omni_demo.clips import clip_paths

    return all((root / path).exists() for path in clip_paths(clip))


def _write_if_changed(path: Path, text: str) -> None:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    partial_path = path.with_name(f".{path.name}.{os.getpid()}")
    partial_path.write_text(text, encoding="utf-8")
    partial_path.replace(path)


def _make(clips: list[ClipSpec], config: DemoDataConfig, root: Path) -> None:
    if not clips:
        return
    work = partial(_make_clip, config=config, root=root)
    rarely = 0.1 if sys.stderr.isatty() else 30  # in a file
    bar = tqdm(total=len(clips), unit="clip", leave=False, delay=5, mininterval=rarely)
    with _mapper(config.num_workers or os.cpu_count() or 1) as mapped, bar:
        for _ in mapped(work, clips):
            bar.update()


@contextmanager
def _mapper(num_workers: int) -> Iterator[Any]:
    """`map(function, items)`, in this process for one worker, else in a pool."""
    if num_workers == 1:
        yield map
        return
    # Spawned, not forked: a fork would share this process's eSpeak NG, and its locks.
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        # Clips of one person follow each other: a chunk draws the person once.
        yield partial(pool.map, chunksize=16)


_speaker: Speaker | None = None  # one eSpeak NG a process, started at its first clip


def _make_clip(clip: ClipSpec, config: DemoDataConfig, root: Path) -> None:
    global _speaker
    from omni_demo.clips import write_clip
    from omni_demo.voices import Speaker

    if _speaker is None:
        _speaker = Speaker()
        atexit.register(_speaker.close)
    write_clip(clip, config, _speaker, root)
