"""Recipe files: YAML of `field: value` lines, which may come from anywhere and are read as plain data."""

import os
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from pipeline.cli import check_text
from pipeline.errors import UserError, did_you_mean
from pipeline.files import read_bytes
from pipeline.old_names import AT_FIRST, IN_ALL_RUNS, rename_fields
from pipeline.precedence import Given, merged, override
from pipeline.recipe import SECTION_OF, Recipe, build_recipe, flatten
from pipeline.stages import check_stages, stage_recipes

RUN_RECIPE = "recipe.yaml"  # in the folder of a run, of folds or of stages
FOLDS = "folds.json"  # of a folder of folds: how many, and what they hold out
MAX_DEPTH, MAX_VALUES = 30, 100_000  # of a recipe file
MERGE = "tag:yaml.org,2002:merge"  # of the key <<, which takes over the pairs of other mappings
MAX_FILES = 100  # that one file extends, each as often as it is named


def read_recipe(path: Path) -> Recipe:
    """A recipe from a YAML file of `field: value` lines; what neither it nor a file that it extends names has its
    default.
    """
    recipe = _recipe_of(path, _layers(path))
    check_stages(recipe, name_of=lambda name: f"{path}: {name}")
    return recipe


def read_given(path: Path) -> dict[str, Given]:
    """The fields that a file, or one that it extends, names, and which file gives each. Says what overrides what."""
    layers = _layers(path)
    recipe = _recipe_of(path, layers)
    stage_recipes(recipe, name_of=lambda name: f"{path}: {name}")  # how they go together, flags decide too
    return reduce(override, layers)


def _recipe_of(path, layers) -> Recipe:
    values = {name: given.value for name, given in reduce(merged, layers).items()}
    return build_recipe(values, name_of=lambda name: f"{path}: {name}")


def _layers(path: Path, extending: tuple[Path, ...] = ()) -> list[dict[str, Given]]:
    """What each file gives, the later over the earlier: of the files that a file extends, in their order, those that
    they extend and then their own, and at last its own.

    extending: the files that lead to this one. Raises UserError for circles, and for files that are not there.
    """
    if os.path.realpath(path) in map(os.path.realpath, extending):
        way = " extends ".join(map(str, (*extending, path)))
        raise UserError(f"{way}: that goes round in a circle; take out one of these lines")
    if len(extending) > MAX_FILES:
        raise UserError(f"{extending[0]}: more than {MAX_FILES} files are extended; take out some")
    content = _content(path)
    layers: list[dict[str, Given]] = []
    for name in _extended(path, content.pop("extends", [])):
        other = path.parent / name
        if not os.path.lexists(other):
            raise UserError(f"{path}: it extends {name}, and {other} is not there; the path starts where the file lies")
        layers += _layers(other, (*extending, path))
        if len(layers) > MAX_FILES:
            raise UserError(f"{path}: more than {MAX_FILES} files are extended; take out some")
    values = flatten(build_recipe(content, name_of=lambda name: f"{path}: {name}"))
    return [*layers, {name: Given(values[name], str(path)) for name in content}]


def _extended(path, names) -> list[str]:
    """The names of the files that a file extends."""
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{path}: extends takes the name of a recipe file, or a list of such, not {str(names)[:40]!r}")
    return names


def _content(path) -> dict[str, Any]:
    try:
        content = yaml.load(read_bytes(path).decode(), _EachKeyOnce) or {}
        _check_plain(content)
        content = rename_fields(content) if isinstance(content, dict) else content
        if path.name == RUN_RECIPE and isinstance(content, dict) and content.keys() >= IN_ALL_RUNS:
            content = AT_FIRST | content  # that of a run names all fields that there were at the time
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; save it as that") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise UserError(f"{path} is not YAML that a recipe takes: {reason}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: lines of `field: value` are expected")
    for name in content:
        if name not in SECTION_OF and name != "extends":
            near = did_you_mean(str(name), [*SECTION_OF, "extends"])
            raise UserError(f"{path}: {name!r} is no field of a recipe{near}")
    return content


class _EachKeyOnce(yaml.SafeLoader):
    """The safe loader, which also refuses a key that stands twice in a mapping: the first value would be lost."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if key.value in seen:
                    raise ValueError(f"{key.value} stands there twice, again in line {key.start_mark.line + 1}")
                seen.add(key.value)
        return node


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
