# SPDX-License-Identifier: Apache-2.0
"""
Draws README's picture from a finished demo run: four frames and the sound of one held-out clip, the question, and what
the model wrote after SFT and after RL. The clip is the first, by id, that RL answers right and SFT does not.

    python docs/make_picture.py --run runs/demo
"""

import argparse
import json
import sys
import textwrap
from pathlib import Path

COLOURS = {"context": "#2f6f9f", "think": "#8a5a00", "answer": "#2e7d4f"}


def rows(run: Path, stage: str) -> dict[str, dict]:
    lines = (run / "eval" / stage / "predictions.jsonl").read_text(encoding="utf-8").split("\n")
    return {r["id"]: r for r in map(json.loads, filter(None, lines))}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--output", type=Path, default=Path("docs/demo.png"))
    args = parser.parse_args(argv)

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from omni_grpo.data.media.reader import read_audio, read_video
    from omni_grpo.data.media.settings import MediaSettings

    before, after = rows(args.run, "sft"), rows(args.run, "rl")
    chosen = next(
        i for i in sorted(after) if after[i]["answer_score"] > before[i]["answer_score"] and before[i]["format_ok"]
    )
    row, path = after[chosen], after[chosen]["media"][0]["path"]
    frames = read_video(path, MediaSettings(num_frames=4)).frames
    sound = read_audio(path, MediaSettings())

    figure = plt.figure(figsize=(11, 3.2), dpi=130, facecolor="white")
    grid = figure.add_gridspec(
        2, 8, height_ratios=[2, 1], left=0.02, right=0.98, top=0.97, bottom=0.04, hspace=0.02, wspace=0.08
    )
    for k, frame in enumerate(frames):
        axis = figure.add_subplot(grid[0, k])
        axis.imshow(frame)
        axis.axis("off")
    axis = figure.add_subplot(grid[1, :4])
    axis.plot(sound, color="#666666", linewidth=0.4)
    axis.margins(x=0)
    axis.axis("off")
    axis = figure.add_subplot(grid[:, 4:])
    axis.axis("off")
    axis.set(xlim=(0, 1), ylim=(0, 1))
    y = 0.98
    for line in textwrap.wrap(row["problem"], 58):
        axis.text(0.03, y, line, fontsize=10.5, weight="bold", va="top")
        y -= 0.083
    axis.text(
        0.03,
        y,
        f"gold: {row['solution']}    ({row['id']}, held-out person, voice and phrase)",
        fontsize=8,
        color="#666666",
        va="top",
    )
    y -= 0.115
    for title, prediction in (("after SFT", before[chosen]), ("after RL", after[chosen])):
        mark = "right" if prediction["answer_score"] else "wrong"
        axis.text(0.03, y, f"{title}: {mark}", fontsize=9, weight="bold", va="top", color="#333333")
        y -= 0.083
        for name, text in prediction["sections"].items():
            for k, line in enumerate(textwrap.wrap((text or "–").strip(), 62)):
                axis.text(
                    0.03,
                    y,
                    f"<{name}>" if k == 0 else "",
                    fontsize=8,
                    family="monospace",
                    color=COLOURS[name],
                    va="top",
                )
                axis.text(0.21, y, line, fontsize=8.5, color=COLOURS[name], va="top")
                y -= 0.075
        y -= 0.04
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output)


if __name__ == "__main__":
    main(sys.argv[1:])
