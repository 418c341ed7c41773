"""The user's own callbacks, which a recipe names by file and class. See docs/callbacks.md."""

import importlib.util
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UserError
from pipeline.training.trainer import Callback


def load_callbacks(named: Sequence[str]) -> list[type[Callback]]:
    """The classes that `FILE.py:CLASS` names. Their files are executed.

    Raises UserError for what is no such name, cannot be imported, is no Callback or does not accept a run, and for one
    that has the name of another, under which its state would be saved in the checkpoint.
    """
    taken = {found.__name__ for found in Callback.__subclasses__() if found.__module__.startswith("pipeline.")}
    classes = [_load(name) for name in named]
    for place, found in enumerate(classes):
        if found.__name__ in taken:
            raise UserError(f"--callbacks: there is a {found.__name__} already; rename the class")
        if found.__name__ in {other.__name__ for other in classes[:place]}:
            raise UserError(f"--callbacks: two are called {found.__name__}; rename the class of one of them")
        try:
            inspect.signature(found).bind(None)
        except TypeError as error:
            raise UserError(
                f"--callbacks: {found.__name__} is made with one argument, the run: def __init__(self, run)"
            ) from error
    return classes


def _load(name):
    file, separator, class_name = name.rpartition(":")
    if not separator or not file.endswith(".py") or not class_name.isidentifier():
        raise UserError(f"--callbacks {name}: FILE.py:CLASS is expected, such as notify.py:Notify")
    found = getattr(_module(name, Path(file)), class_name, None)
    if not (inspect.isclass(found) and issubclass(found, Callback)):
        what = "has no such class" if found is None else f"has a {class_name} that is no Callback"
        raise UserError(f"--callbacks {name}: {file} {what}; see docs/callbacks.md")
    return found


def _module(name, path):
    if not path.is_file():
        raise UserError(
            f"--callbacks {name}: there is no file {path.absolute()}; give its path from the current folder"
        )
    spec = importlib.util.spec_from_file_location(f"own_callbacks_{path.stem}", path)
    assert spec
    assert spec.loader
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # dataclasses look for their module there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"--callbacks {name}: {path} cannot be imported: {reason}") from error
    return module
