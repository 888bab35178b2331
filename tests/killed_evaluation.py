# SPDX-License-Identifier: Apache-2.0
"""
Run an evaluation or a sampling and kill its process with signal 9, as a machine does, while it writes its second batch:

    python tests/killed_evaluation.py eval_omni --config eval.yaml

One row of that batch is written whole and half of the next; the script itself runs as it is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))


WRITERS = {"eval_omni": "omni_grpo.evaluation.evaluate", "sample_omni": "omni_grpo.sampling.sampling"}


def main(script: str, *argv: str) -> None:
    writer = import_module(WRITERS[script])
    written = writer.append

    def append_and_die(own, rows):
        if not own.exists():
            written(own, rows)
            return
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[:2])
        with own.open("ab") as out:
            out.write(text.encode()[: -len(text) // 4])
        os.kill(os.getpid(), signal.SIGKILL)

    writer.append = append_and_die
    import_module(script).main(list(argv))


if __name__ == "__main__":
    main(*sys.argv[1:])
