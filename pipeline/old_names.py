"""What recipes of earlier versions said in other words, or did not say: they still mean what they meant."""

from typing import Any

from pipeline.cli import flag_of
from pipeline.errors import UserError

RENAMED = {"fit": "resize", "window": "roi", "permutation": "flip_indices", "average": "ema_decay"}
IN_ALL_RUNS = {"data", "seed", "model", "size", "augment", "batch_size", "views"}  # fields of the recipe of any run
AT_FIRST: dict[str, Any] = {"head": "linear"}  # what recipes did before they had a field, where the default is another
RENAMED_VALUES = {("resize", "pad"): "letterbox"}


def rename_fields(content: dict[Any, Any]) -> dict[Any, Any]:
    """Fields by the names of today. Raises UserError where a field has both its names."""
    for old, new in RENAMED.items():
        if old in content and new in content:
            raise UserError(f"{old} is an earlier name of {new}, and both are given; leave out one of them")
    renamed = {RENAMED.get(name, name): value for name, value in content.items()}
    return {name: _value(name, value) for name, value in renamed.items()}


def rename_flags(arguments: list[str]) -> list[str]:
    """Command-line arguments with the flags of today."""
    renamed: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if flag.startswith("--") and name in RENAMED:
            name = RENAMED[name]
            renamed.append(f"{flag_of(name)}{equals}{_value(name, value)}")
        elif renamed and renamed[-1] == "--resize":
            renamed.append(_value("resize", argument))
        else:
            renamed.append(argument)
    return renamed


def _value(name, value):
    return RENAMED_VALUES.get((name, value), value) if isinstance(value, str) else value
