"""Recipe files: YAML of `field: value` lines, which may come from anywhere and are read as plain data."""

import difflib
from pathlib import Path
from typing import Any

import yaml

from pipeline.cli import check_text
from pipeline.errors import UserError
from pipeline.files import read_bytes
from pipeline.old_names import AT_FIRST, rename_fields
from pipeline.precedence import Given
from pipeline.recipe import SECTION_OF, Recipe, build_recipe, flatten

RUN_RECIPE = "recipe.yaml"  # in the folder of a run
MAX_DEPTH, MAX_VALUES = 30, 100_000  # of a recipe file


def read_recipe(path: Path) -> Recipe:
    """A recipe from a YAML file of `field: value` lines; what it does not name has its default."""
    return build_recipe(_content(path), name_of=lambda name: f"{path}: {name}")


def read_given(path: Path) -> dict[str, Given]:
    """The fields that a file names, each with the file that gives it."""
    values = flatten(read_recipe(path))
    return {name: Given(values[name], str(path)) for name in _content(path)}


def _content(path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_bytes(path).decode()) or {}
        _check_plain(content)
        content = rename_fields(content) if isinstance(content, dict) else content
        if path.name == RUN_RECIPE and isinstance(content, dict):  # it names all fields that there were at the time
            content = AT_FIRST | content
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; save it as that") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise UserError(f"{path} is not YAML that a recipe takes: {reason}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: lines of `field: value` are expected")
    for name in content:
        if name not in SECTION_OF:
            near = difflib.get_close_matches(str(name), SECTION_OF, n=1)
            raise UserError(
                f"{path}: {name!r} is no field of a recipe" + (f"; did you mean {near[0]}?" if near else "")
            )
    return content


def _check_plain(content):
    """Raises ValueError for what is no plain data: dates, sets, and lists that hold themselves or grow by aliases."""
    pending = [(content, 0)]
    num_values = 0
    while pending:
        value, depth = pending.pop()
        num_values += 1
        if depth > MAX_DEPTH or num_values > MAX_VALUES:
            raise ValueError("it is nested too deeply, or refers to itself")
        if isinstance(value, dict):
            pending += [(child, depth + 1) for pair in value.items() for child in pair]
        elif isinstance(value, list):
            pending += [(child, depth + 1) for child in value]
        elif isinstance(value, str):
            check_text(value)
        elif not isinstance(value, int | float | bool | None):
            raise ValueError(f"{value!r} is no text, number, list or mapping; quote it if it is text")
