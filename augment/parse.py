"""Augmenters from plain data, as a recipe has them: a list of {name: {parameter: value or [low, high]}}."""

from typing import Any

from augment.augmenters import Augmenter, Chain, Draws, RandomAugmenter
from augment.borrowed import AlbumentationsAugmenter
from augment.geometric import AffineAugmenter, CropAugmenter, MirrorAugmenter, PerspectiveAugmenter
from augment.photometric import (
    BarsAugmenter,
    BlurAugmenter,
    BrightnessContrastAugmenter,
    ColourAugmenter,
    GammaAugmenter,
    GreyAugmenter,
    JpegAugmenter,
    LowResolutionAugmenter,
    MotionBlurAugmenter,
    NoiseAugmenter,
    OccluderAugmenter,
    TextAugmenter,
)

AUGMENTERS: dict[str, type[Augmenter]] = {
    kind.__name__: kind
    for kind in (
        Augmenter,
        AffineAugmenter,
        MirrorAugmenter,
        CropAugmenter,
        PerspectiveAugmenter,
        BrightnessContrastAugmenter,
        ColourAugmenter,
        GreyAugmenter,
        GammaAugmenter,
        BlurAugmenter,
        MotionBlurAugmenter,
        LowResolutionAugmenter,
        NoiseAugmenter,
        JpegAugmenter,
        BarsAugmenter,
        OccluderAugmenter,
        TextAugmenter,
    )
}


def parse_augmenters(entries: Any) -> Chain:
    """A chain from plain data. Raises ValueError with the entry's place, the field, what was found and is allowed."""
    if not isinstance(entries, list):
        raise ValueError(f"found {entries!r}, allowed is a list of {{name: {{parameter: value}}}}")
    return Chain(tuple(_parse_entry(place, entry) for place, entry in enumerate(entries)))


def _parse_entry(place, entry) -> Draws:
    if not (isinstance(entry, dict) and len(entry) == 1):
        raise ValueError(f"entry {place} is {entry!r}, allowed is {{name: {{parameter: value}}}}")
    ((name, values),) = entry.items()
    values = values or {}
    if not isinstance(values, dict):
        raise ValueError(f"entry {place}, {name}: found {values!r}, allowed is {{parameter: value}}")
    if name == "RandomAugmenter":
        known = _known(name, values, ("augmenters", "weights", "probability"))
        return _parse_random(**known | _parse_probability(name, known))
    if name == "AlbumentationsAugmenter":
        known = _known(name, values, ("transforms", "probability"))
        if not isinstance(known.get("transforms"), list):
            raise ValueError(f"{name}.transforms: a list of {{class: {{argument: value}}}} is needed")
        return AlbumentationsAugmenter.parse(**known | _parse_probability(name, known))
    if name not in AUGMENTERS:
        known = ", ".join([*AUGMENTERS, "RandomAugmenter", "AlbumentationsAugmenter"])
        raise ValueError(f"entry {place}: {name!r} is none of {known}")
    kind = AUGMENTERS[name]
    known = _known(name, values, ("probability", *kind.parameters()))
    return kind(**{parameter: _parse_range(name, parameter, value) for parameter, value in known.items()})


def _parse_random(augmenters=None, weights=(), probability=1.0):
    try:
        numbers = tuple(float(weight) for weight in weights)
    except (TypeError, ValueError):
        raise ValueError(f"RandomAugmenter.weights: {weights!r} is not a list of numbers") from None
    return RandomAugmenter(
        augmenters=parse_augmenters(augmenters or []).augmenters, weights=numbers, probability=probability
    )


def _parse_probability(name, values):
    probability = _parse_range(name, "probability", values.get("probability", 1.0))
    if not 0 <= probability <= 1:
        raise ValueError(f"{name}.probability: {probability!r} is not between 0 and 1")
    return {"probability": probability}


def _parse_range(name, parameter, value):
    numbers = value if isinstance(value, list) and len(value) == 2 and parameter != "probability" else [value]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        raise ValueError(f"{name}.{parameter}: {value!r} is not a number or a range [low, high]")
    return tuple(numbers) if isinstance(value, list) else value


def _known(name, values, allowed):
    for parameter in values:
        if parameter not in allowed:
            raise ValueError(f"{name} has no {parameter!r}, only {', '.join(allowed)}")
    return values
