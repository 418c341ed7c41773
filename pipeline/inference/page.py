"""A page of HTML in one file: a template filled in, and pictures within its text."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.drawing import encoded

JPEG_QUALITY = 82


def render(template: Path, content: Mapping[str, Any]) -> str:
    """The page. Raises an error of jinja2 if the template asks for something that is not there."""
    from jinja2 import Environment, StrictUndefined  # it takes a while to import

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template.read_text(encoding="utf-8")).render(content)


def jpeg(picture: np.ndarray) -> str:
    """An (H, W, 3) RGB picture as the text of a JPEG for a data URI."""
    return base64.b64encode(encoded(picture, ".jpg", quality=JPEG_QUALITY)).decode()
