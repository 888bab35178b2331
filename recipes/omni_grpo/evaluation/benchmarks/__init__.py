# SPDX-License-Identifier: Apache-2.0
"""
Published benchmarks, read from their original files into rows of `omni_grpo.data.rows.schema`.

- `intentbench`, `daily_omni`, `worldsense`: questions with options; one JSON file each
- `emotion_clips`: MAFW and DFEW (a fold's list), RAVDESS (the names of its files)

A reader takes the annotation file and the folder of the media, and yields rows. It leaves no record out: one that does
not fit is an error that names it. `meta` holds what results are reported by. To add one, write such a function, cite
the layout, and name it in [`READERS`]; `recipes/configs/benchmarks/<name>.yaml` is its protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omni_grpo.data.rows.loading import check_rows
from omni_grpo.data.rows.schema import DataError, Example
from omni_grpo.evaluation.benchmarks.daily_omni import read_daily_omni
from omni_grpo.evaluation.benchmarks.emotion_clips import read_dfew, read_mafw, read_ravdess
from omni_grpo.evaluation.benchmarks.intentbench import read_intentbench
from omni_grpo.evaluation.benchmarks.worldsense import read_worldsense

Reader = Callable[[Path, Path], Iterator[dict[str, Any]]]

READERS: dict[str, Reader] = {
    "intentbench": read_intentbench,
    "daily_omni": read_daily_omni,
    "worldsense": read_worldsense,
    "mafw": read_mafw,
    "dfew": read_dfew,
    "ravdess": read_ravdess,
}


def load_benchmark(
    name: str,
    annotations: str | Path,
    media_root: str | Path | None = None,
    media_roots: Sequence[str] | None = None,
) -> list[Example]:
    """
    Every question of a benchmark as a checked row, in the order of its file.

    Args:
        name (`str`): A key of [`READERS`].
        annotations (`str` or `Path`): The released file; for RAVDESS, the folder with the actors.
        media_root (`str` or `Path`, *optional*):
            Folder of the clips as unpacked; defaults to the folder of `annotations`, or `annotations` if it is one.
        media_roots (sequence of `str`, *optional*): Further folders that links below it may lead to.

    Raises:
        `DataError`: A record is not in the released layout, a clip is not there, or there is no record.
        `FileNotFoundError`: `annotations` is not there.
        `ValueError`: `name` is unknown.
    """
    if name not in READERS:
        raise ValueError(f"benchmark: {name!r} is unknown; one of {', '.join(READERS)}")
    source = Path(annotations)
    if not source.exists():
        raise FileNotFoundError(f"test_file: nothing at {source.resolve()}; download {name} there, or name its place")
    root = Path(media_root) if media_root else source if source.is_dir() else source.parent
    try:
        rows = [(f"{source}:{index}", row) for index, row in enumerate(READERS[name](source, root))]
    except ValueError as error:
        raise DataError(f"{source}: {error}") from error
    examples = check_rows(rows, root, graded=True, media_roots=media_roots)
    if not examples:
        raise DataError(f"{source}: no record of {name} in it")
    return examples
