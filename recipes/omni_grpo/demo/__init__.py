# SPDX-License-Identifier: Apache-2.0
"""The demo data: drawn faces that speak, made on this machine from packages, with nothing to download.

- `config.py`: the fields of `recipes/configs/demo/data.yaml`
- `phrases.py`: what is said
- `voices.py`: eSpeak NG, and the prosody of the six ways to say it
- `faces.py`: Open Peeps, and the expressions of the six ways to look
- `targets.py`: the sentences of questions, contexts and thoughts
- `questions.py`: the design: which face meets which voice, in which split
- `clips.py`: picture and sound to mp4, png and wav
- `generate.py`: everything into a folder, in parallel, resumable
"""
