"""The flags of a script: a dataclass of options, filled by tyro and checked against the bounds of its fields."""

import sys
from typing import TypeVar, get_type_hints

import tyro
from pydantic import TypeAdapter, ValidationError
from tyro.conf import FlagCreatePairsOff, Positional

from pipeline.errors import UserError

Options = TypeVar("Options")
MAX_SHOWN = 60  # characters


def parse_flags(kind: type[Options], description: str | None, *, arguments: list[str] | None = None) -> Options:
    """The options that `arguments`, or without them the command line, give.

    Raises UserError for a value that is out of bounds; exits with status 2 for a flag that is none.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    check_arguments(arguments)
    options = tyro.cli(kind, args=arguments, description=description, config=(FlagCreatePairsOff,))
    try:
        return TypeAdapter(kind).validate_python(vars(options))
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        given = get_type_hints(kind, include_extras=True)[name]
        flag = name if Positional in getattr(given, "__metadata__", ()) else flag_of(name)
        raise UserError(f"{flag} {fault['input']!r}: {fault['msg']}") from error


def flag_of(name: str) -> str:
    """The flag of a field."""
    return f"--{name.replace('_', '-')}"


def check_arguments(arguments: list[str]):
    """Raises UserError for what is not in UTF-8, which neither a recipe nor a table can hold."""
    for argument in arguments:
        try:
            check_text(argument)
        except ValueError as error:
            raise UserError(f"{argument[:MAX_SHOWN]!r} on the command line is not UTF-8; rename the file") from error


def check_text(text: str):
    """Raises ValueError for what no file can hold as text, or be named."""
    if "\0" in text or text.encode(errors="ignore").decode() != text:
        raise ValueError(f"{text[:MAX_SHOWN]!r} is not UTF-8 text without zero bytes")
