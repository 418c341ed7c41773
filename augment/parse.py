"""Augmenters from plain data, as a recipe has them: a list of {name: {parameter: value or [low, high]}}."""

from typing import Any

from augment.augmenters import Augmenter, Chain, RandomAugmenter, Sampler
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
    """A chain from plain data. Raises ValueError with the index, the field, what was found and what is allowed."""
    if not isinstance(entries, list):
        raise ValueError(f"found {entries!r}, allowed is a list of {{name: {{parameter: value}}}}")
    augmenters = []
    for index, entry in enumerate(entries):
        try:
            augmenters.append(_parse_entry(entry))
        except ValueError as error:
            raise ValueError(f"entry {index}: {error}") from error
    return Chain(tuple(augmenters))


def _parse_entry(entry) -> Sampler:
    if not (isinstance(entry, dict) and len(entry) == 1):
        raise ValueError(f"{entry!r}, allowed is {{name: {{parameter: value}}}}")
    ((name, values),) = entry.items()
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"{name}: found {values!r}, allowed is {{parameter: value}}")
    if name == "RandomAugmenter":
        return _parse_random(**_known(name, values, ("augmenters", "weights", "probability")))
    if name == "AlbumentationsAugmenter":
        return AlbumentationsAugmenter.parse(**_known(name, values, ("transforms", "probability", "seed")))
    if name not in AUGMENTERS:
        known = ", ".join([*AUGMENTERS, "RandomAugmenter", "AlbumentationsAugmenter"])
        raise ValueError(f"{name!r} is none of {known}")
    kind = AUGMENTERS[name]
    given = _known(name, values, ("probability", *kind.parameters()))
    fields: dict[str, Any] = {
        field: tuple(value) if isinstance(value, list) else value for field, value in given.items()
    }
    return kind(**fields)


def _parse_random(augmenters=None, weights=None, probability=1.0):
    if weights is not None and not isinstance(weights, list):
        raise ValueError(f"RandomAugmenter.weights: {weights!r} is not a list of numbers")
    try:
        chain = parse_augmenters([] if augmenters is None else augmenters)
    except ValueError as error:
        raise ValueError(f"RandomAugmenter.augmenters: {error}") from error
    return RandomAugmenter(augmenters=chain.augmenters, weights=tuple(weights or ()), probability=probability)


def _known(name, values, allowed):
    for parameter in values:
        if parameter not in allowed:
            raise ValueError(f"{name} has no {parameter!r}, only {', '.join(allowed)}")
    return values
