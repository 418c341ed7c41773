"""Which value of a field holds where several give one: later files over earlier ones, flags over all of them.

What a run hands on with its weights is over none: it belongs to them, so that another value is a contradiction.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

MAX_SHOWN = 40  # characters of a value
OF_NETWORK = ("model", "head", "map_stride", "deepest_stride", "size", "resize", "roi")
WHOLE = (0.0, 0.0, 1.0)
TIMES = ("minutes", "session_minutes")
LENGTH = ("epochs", *TIMES)


@dataclass(frozen=True)
class Given:
    """A value of a field, and the file or flag that gives it."""

    value: Any
    source: str

    def __str__(self) -> str:
        text = str(self.value)
        return f"{text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + ' …'} ({self.source})"


def override(before: dict[str, Given], after: dict[str, Given]) -> dict[str, Given]:
    """Both, where those of `after` hold; a line for each field that they change."""
    for name, field in _with_length(before, after).items():
        if name in before and before[name].value != field.value:
            print(f"{name:12} {field} overrides {before[name]}")
    return merged(before, after)


def merged(before: dict[str, Given], after: dict[str, Given]) -> dict[str, Given]:
    """What `override` gives, without a word."""
    return before | _with_length(before, after)


def _with_length(before, after):
    """Those of `after`, and what their length replaces, which would hold instead."""
    length = [name for name in LENGTH if name in after]
    return after | {name: Given(None, after[length[0]].source) for name in replaced_by(length) if name in before}


def replaced_by(length: list[str]) -> list[str]:
    """The times that no longer hold where the length of a training is given anew, by these fields."""
    return [name for name in TIMES if length and name not in length]


@dataclass(frozen=True)
class HandedOn:
    """What a run hands on to one that starts from its weights.

    Where its data are, and while they are the same, the photos that it held out, since its weights know all others;
    and what its network is. `network` has the ROI that was found, `stated` the one that its recipe asked for.
    on_boxes: whether it is shown parts of photos that only a table says.
    """

    run: Path
    data: str
    split: Path | None
    stated: dict[str, Any]
    network: dict[str, Any]
    on_boxes: bool = False

    def looks_elsewhere(self, given: dict[str, Given]) -> bool:
        """Whether other parts of photos are shown than to the run, so that its ROI says nothing about them."""
        by = {name for name in ("boxes", "locator") if name in given and given[name].value}
        return "locator" not in self.network and ("locator" in by or ("boxes" in by and not self.on_boxes))

    def check(self, given: dict[str, Given]):
        """Raises UserError for a field that contradicts what the network is, and where boxes are missing."""
        if self.on_boxes and not any(name in given and given[name].value for name in ("boxes", "locator")):
            raise UserError(
                f"--init {self.run} was trained on boxes of its photos; --boxes FILE gives those of these photos"
            )
        if where := self.network.get("locator"):
            for name in ("locator", "boxes"):
                other = given[name].value if name in given else None
                if other and os.path.realpath(other) != os.path.realpath(where):
                    raise UserError(
                        f"{name} {given[name]} contradicts --init {self.run}, which looks where {where} says; leave "
                        "it out"
                    )
        for name in OF_NETWORK:
            if name == "roi" and self.looks_elsewhere(given):
                continue
            own = self.network[name]
            allowed = (own, self.stated[name], WHOLE if own == "whole" else own)
            if name in given and given[name].value not in allowed:
                raise UserError(f"{name} {given[name]} contradicts --init {self.run}, which has {own}; leave it out")
