"""The page docs/walkthrough.md, made of a template and of the figures of a walk, so that it says what was run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("page.md.j2")
PAGE = Path("docs/walkthrough.md")
LABELS = {  # of the picture of errors: step and figure
    "mean shape": ("head", "floor"),
    "head alone": ("head", "mse"),
    "all layers": ("full", "mse"),
    "lower rate": ("low", "mse"),
    "its views": ("views", "mse"),
    "two runs": ("ensemble", "mse"),
}


def render(figures: Mapping[str, Any], device: str) -> str:
    """The page. Raises an error of jinja2 where the template asks for a figure that is not there."""
    from jinja2 import Environment, StrictUndefined  # it takes a while to import

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    minutes = sum(step["processor seconds"] for step in figures.values()) / 60
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(step=figures, minutes=round(minutes), device=device)


def errors(figures: Mapping[str, Any]) -> dict[str, float]:
    """The MSE on held-out photos from the floor to the ensemble, by what is done."""
    return {label: float(figures[step][figure]) for label, (step, figure) in LABELS.items()}
