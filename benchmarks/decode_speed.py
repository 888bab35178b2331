# SPDX-License-Identifier: Apache-2.0
"""
Processor time of reading a data file's media: plain, in the first epoch of a decode cache (which writes) and in a later
one (which reads), each pass after the other, over and over.

    python benchmarks/decode_speed.py --train_file data/demo/rl.jsonl --rows 200 --num_frames 4 \
        --min_pixels 7056 --max_pixels 7056
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from omni_grpo.data.media.decode_cache import DecodeCache
from omni_grpo.data.media.reader import MediaReader, read_media
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.schema import Example


def items(rows: list[Example]) -> list[tuple[str, str]]:
    """Kind and path of what a prompt's encoding reads, in order."""
    found = []
    for item in (item for row in rows for item in row.media):
        found += [(item.type, item.path)] + ([("audio", item.path)] if item.use_audio else [])
    return found


def milliseconds(read: MediaReader, wanted: list[tuple[str, str]], settings: MediaSettings) -> float:
    """Processor time an item."""
    start = time.process_time()
    for kind, path in wanted:
        read(kind, path, settings)
    return 1000 * (time.process_time() - start) / len(wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_file", default="data/demo/rl.jsonl")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    for name in ("num_frames", "min_pixels", "max_pixels"):
        parser.add_argument(f"--{name}", type=int, default=getattr(MediaSettings(), name))
    args = parser.parse_args()
    settings = MediaSettings(num_frames=args.num_frames, min_pixels=args.min_pixels, max_pixels=args.max_pixels)
    rows = load_examples(args.train_file)
    wanted = items(rows[:: max(len(rows) // args.rows, 1)][: args.rows])
    times: dict[str, list[float]] = {"plain": [], "first epoch": [], "later epoch": [], "next run": []}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            cache = DecodeCache(folder, 65536)
            times["plain"].append(milliseconds(read_media, wanted, settings))
            times["first epoch"].append(milliseconds(cache.read, wanted, settings))
            times["later epoch"].append(milliseconds(cache.read, wanted, settings))
            times["next run"].append(milliseconds(DecodeCache(folder, 65536).read, wanted, settings))
            megabytes = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6
    print(f"{len(wanted)} items, {megabytes:.0f} MB decoded, {args.rounds} rounds; processor time, medians")
    for name, values in times.items():
        ratios = [value / first for value, first in zip(values, times["first epoch"], strict=True)]
        print(
            f"{name:12} {statistics.median(values):7.2f} ms an item, {statistics.median(ratios):6.1%} of the first epoch"
        )


if __name__ == "__main__":
    main()
