"""The flags of a script: a dataclass of options, filled by tyro and checked against the bounds of its fields."""

from typing import TypeVar

import tyro
from pydantic import TypeAdapter, ValidationError
from tyro.conf import FlagCreatePairsOff

from pipeline.errors import UserError

Options = TypeVar("Options")


def parse_flags(kind: type[Options], description: str | None) -> Options:
    """The options that the command line gives. Raises UserError for a value that is out of bounds."""
    options = tyro.cli(kind, description=description, config=(FlagCreatePairsOff,))
    try:
        return TypeAdapter(kind).validate_python(vars(options))
    except ValidationError as error:
        fault = error.errors()[0]
        flag = f"--{str(fault['loc'][0]).replace('_', '-')}"
        raise UserError(f"{flag} {fault['input']!r}: {fault['msg']}") from error
