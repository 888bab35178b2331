# SPDX-License-Identifier: Apache-2.0
"""
Serve the demo's judge while a command runs; the command finds it in the environment variable JUDGE_ENDPOINT.

    python recipes/demo_judge.py accelerate launch recipes/grpo_omni.py --config recipes/configs/demo/rl_judged.yaml
    python recipes/demo_judge.py --error_rate 0.15 python recipes/grpo_omni.py --config …
    python recipes/demo_judge.py --port 8000     # serve until Ctrl-C
    python recipes/demo_judge.py --rows data/demo/rl.jsonl python recipes/grpo_omni.py --config …

A judge that errs gives that share of questions a wrong grade, the same one whenever the question is asked again. One that
knows the media of rows, by their hashes, can be sent them (`judge: {send_media: true}`).
"""

import argparse
import os
import signal
import subprocess
import sys
import threading

from omni_demo.evidence import Evidence
from omni_demo.judge_server import MODEL, serving
from omni_grpo.data.rows.loading import load_examples
from omni_rewards import Judge


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--error_rate", type=float, default=0.0, help="share of questions that get a wrong grade")
    parser.add_argument("--seed", type=int, default=0, help="of these errors")
    parser.add_argument("--rows", help="data file whose media it is sent")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    client = Judge("http://localhost/v1", MODEL, send_media=True)
    evidence = Evidence(load_examples(args.rows), client) if args.rows else None
    with serving(args.port, args.error_rate, args.seed, evidence) as server:
        print(f"judge {MODEL} at {server.endpoint}", flush=True)
        if not args.command:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                return 0
        run = subprocess.Popen(args.command, env={**os.environ, "JUDGE_ENDPOINT": server.endpoint})
        for number in (signal.SIGTERM, signal.SIGUSR1):  # a run that is told to stop saves first
            signal.signal(number, lambda told, _: run.send_signal(told))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the command too, and ends it
        code = run.wait()
        print(f"the judge answered {server.asked} questions")
        return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
