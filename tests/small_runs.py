# SPDX-License-Identifier: Apache-2.0
"""What the trainings of the tests have in common."""

SMALL_RUN = {
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "save_strategy": "no",
}


def length_reward(completions, **kwargs):
    """Differs between completions, so that there is something to learn."""
    return [float(len(c[-1]["content"]) % 7) for c in completions]
