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


# Fields of a run that an entry script makes of the tiny model, on media of the smallest size.
SCRIPT_RUN = {
    "dtype": "float32",
    "prompt_style": "short",
    "num_frames": 2,
    "min_pixels": 56 * 56,
    "max_pixels": 56 * 56,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
}
