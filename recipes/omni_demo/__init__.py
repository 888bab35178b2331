# SPDX-License-Identifier: Apache-2.0
"""The demo data: drawn faces that speak, made on this machine from packages, with nothing to download.

- `config.py`: the fields of `recipes/configs/demo/data.yaml`
- `phrases.py`: what is said
- `prosody.py`: the six ways to say it
- `voices.py`: eSpeak NG
- `faces.py`: Open Peeps, and the expressions of the six ways to look
- `targets.py`: the sentences of questions, contexts and thoughts
- `counterfactual.py`: what would be true with another face, or another voice
- `design.py`: which face meets which voice, in balanced blocks
- `questions.py`: who is seen and heard in which split, and the rows of it
- `clips.py`: picture and sound to mp4, png and wav
- `generate.py`: everything into a folder, in parallel, resumable
- `model.py`: a model small enough to learn all this on a CPU
"""
