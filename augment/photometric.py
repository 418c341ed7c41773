"""Augmenters that move no point: colour, sharpness, noise, and what lies over a photo."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from augment import overlay
from augment.augmenters import Augmenter, Range
from augment.effects import NOISE_TILE, Blur, Colour, Jpeg, LowResolution, Noise, Tone
from augment.geometry import rotation, translation
from augment.overlay import Overlay
from augment.transform import Transform

ANY = (0, np.inf)
UNIT = (0, 1)
LONGEST = 500  # pixels, of a blur: its kernel has to fit into memory
COLOURS = dict.fromkeys(("red", "green", "blue"), (0, 255))
POSITIVE = (1e-3, np.inf)
LUMA = np.tile([0.299, 0.587, 0.114], (3, 1))  # ITU-R BT.601
GREY = np.pad(LUMA, ((0, 0), (0, 1)))


@dataclass(frozen=True, kw_only=True)
class BrightnessContrastAugmenter(Augmenter):
    """Adds `brightness` (in units of 0..255) and multiplies the distance to mid-grey by `contrast`."""

    brightness: Range = 0.0
    contrast: Range = 1.0
    bounds: ClassVar = {"contrast": POSITIVE}
    factors: ClassVar = ("contrast",)

    def view(self, key, size, drawn):
        matrix = drawn["contrast"][:, None, None] * np.eye(3, 4)
        matrix[:, :, 3] = (127.5 * (1 - drawn["contrast"]) + drawn["brightness"])[:, None]
        return _view(key, size, Colour(matrix))


@dataclass(frozen=True, kw_only=True)
class ColourAugmenter(Augmenter):
    """Multiplies the distance to grey by `saturation` and turns the `hue` by degrees about the axis of greys."""

    saturation: Range = 1.0
    hue: Range = 0.0
    bounds: ClassVar = {"saturation": ANY}

    def view(self, key, size, drawn):
        angle = np.radians(drawn["hue"])[:, None, None]
        cross = np.array([(0, -1, 1), (1, 0, -1), (-1, 1, 0)]) / np.sqrt(3)
        turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) / 3  # Rodrigues' formula
        linear = LUMA + drawn["saturation"][:, None, None] * (turn @ (np.eye(3) - LUMA))
        return _view(key, size, Colour(np.concatenate((linear, np.zeros((len(linear), 3, 1))), axis=2)))


@dataclass(frozen=True, kw_only=True)
class GreyAugmenter(Augmenter):
    """Makes a black-and-white photo."""

    def view(self, key, size, drawn):
        return _view(key, size, Colour(np.repeat(GREY[None], len(key.samples), axis=0)))


@dataclass(frozen=True, kw_only=True)
class GammaAugmenter(Augmenter):
    """Raises brightness to a power: above 1 darkens the middle, below 1 lightens it."""

    gamma: Range = 1.0
    bounds: ClassVar = {"gamma": POSITIVE}
    factors: ClassVar = ("gamma",)

    def view(self, key, size, drawn):
        return _view(key, size, Tone(drawn["gamma"]))


@dataclass(frozen=True, kw_only=True)
class BlurAugmenter(Augmenter):
    """Gaussian blur with a standard deviation `sigma`, in pixels."""

    sigma: Range = 1.0
    bounds: ClassVar = {"sigma": (0, LONGEST)}

    def view(self, key, size, drawn):
        return _view(key, size, Blur(drawn["sigma"][:, None, None] ** 2 * np.eye(2)))


@dataclass(frozen=True, kw_only=True)
class MotionBlurAugmenter(Augmenter):
    """The blur of a camera that moved by `length` pixels in a direction of `angle` degrees."""

    length: Range = 5.0
    angle: Range = (0.0, 180.0)
    bounds: ClassVar = {"length": (0, LONGEST)}

    def view(self, key, size, drawn):
        angle = np.radians(drawn["angle"])
        along = np.stack((np.cos(angle), np.sin(angle)), axis=-1)
        variance = drawn["length"] ** 2 / 12  # of a uniform line
        return _view(key, size, Blur(variance[:, None, None] * along[:, :, None] * along[:, None]))


@dataclass(frozen=True, kw_only=True)
class NoiseAugmenter(Augmenter):
    """Normal noise with a standard deviation `sigma`, in units of 0..255, on each value.

    x, y: at which point of an endless tile of noise it starts, 0 to 1.
    """

    sigma: Range = 8.0
    x: Range = (0.0, 1.0)
    y: Range = (0.0, 1.0)
    bounds: ClassVar = {"sigma": ANY, "x": UNIT, "y": UNIT}

    def view(self, key, size, drawn):
        start = np.stack([_index(drawn[axis], NOISE_TILE) for axis in "xy"], axis=1)
        return _view(key, size, Noise(drawn["sigma"], np.where(drawn["sigma"][:, None] > 0, start, 0)))


@dataclass(frozen=True, kw_only=True)
class JpegAugmenter(Augmenter):
    """The loss of a JPEG of this `quality`, 1 to 100."""

    quality: Range = (30.0, 90.0)
    bounds: ClassVar = {"quality": (1, 100)}

    def view(self, key, size, drawn):
        return _view(key, size, Jpeg(np.rint(drawn["quality"])))


@dataclass(frozen=True, kw_only=True)
class LowResolutionAugmenter(Augmenter):
    """The look of a photo that was smaller by `factor` and has been enlarged."""

    factor: Range = (0.3, 1.0)
    bounds: ClassVar = {"factor": (0.02, 1)}
    factors: ClassVar = ("factor",)

    def view(self, key, size, drawn):
        return _view(key, size, LowResolution(drawn["factor"]))


@dataclass(frozen=True, kw_only=True)
class BarsAugmenter(Augmenter):
    """Black bars, with a width for each side as a share of the image."""

    left: Range = (0.0, 0.2)
    right: Range = (0.0, 0.2)
    top: Range = 0.0
    bottom: Range = 0.0
    bounds: ClassVar = dict.fromkeys(("left", "right", "top", "bottom"), (0, 1))

    def view(self, key, size, drawn):
        (height, width), far = size, 4 * max(size)  # bars reach beyond the frame, so that zooming out leaves no gap
        left, top = width * drawn["left"] - 0.5, height * drawn["top"] - 0.5
        right, bottom = width * (1 - drawn["right"]) - 0.5, height * (1 - drawn["bottom"]) - 0.5
        out, end = np.full_like(left, -far), np.full_like(left, far)
        edges = [(out, out, left, end), (right, out, end, end), (out, out, end, top), (out, bottom, end, end)]
        shares = np.stack([drawn[side] for side in ("left", "right", "top", "bottom")], axis=1)
        mask = np.where(shares > 0, overlay.RECTANGLE, overlay.NOTHING)
        matrix = np.stack([overlay.rectangles(*edge) for edge in edges], axis=1)
        return _view(key, size, Overlay(mask, matrix, np.zeros((*mask.shape, 3))))


@dataclass(frozen=True, kw_only=True)
class OccluderAugmenter(Augmenter):
    """Something flat in front of the photo: a hand, a microphone, a sticker.

    share: its height as a share of the image's. aspect: width over height. x, y: its middle, 0 to 1. angle: degrees.
    shape: 0 to 1, from a rectangle over an ellipse to blobs. red, green, blue: its colour, 0 to 255.
    """

    share: Range = (0.1, 0.35)
    aspect: Range = (0.4, 2.5)
    x: Range = (0.0, 1.0)
    y: Range = (0.0, 1.0)
    angle: Range = (0.0, 180.0)
    shape: Range = (0.0, 1.0)
    red: Range = (0.0, 255.0)
    green: Range = (0.0, 255.0)
    blue: Range = (0.0, 255.0)
    bounds: ClassVar = {"share": POSITIVE, "aspect": POSITIVE, "shape": UNIT, **COLOURS}
    factors: ClassVar = ("aspect",)

    def view(self, key, size, drawn):
        mask = _index(drawn["shape"], overlay.FIRST_WORD)
        return _view(key, size, _patch(mask, size, drawn, aspect=drawn["aspect"]))


@dataclass(frozen=True, kw_only=True)
class TextAugmenter(Augmenter):
    """A word across the photo.

    share: its height as a share of the image's. x, y: its middle, 0 to 1. angle: degrees. word: 0 to 1, which one.
    red, green, blue: its colour, 0 to 255.
    """

    share: Range = (0.08, 0.25)
    x: Range = (0.0, 1.0)
    y: Range = (0.0, 1.0)
    angle: Range = (-15.0, 15.0)
    word: Range = (0.0, 1.0)
    red: Range = (0.0, 255.0)
    green: Range = (0.0, 255.0)
    blue: Range = (0.0, 255.0)
    bounds: ClassVar = {"share": POSITIVE, "word": UNIT, **COLOURS}

    def view(self, key, size, drawn):
        mask = overlay.FIRST_WORD + _index(drawn["word"], len(overlay.WORDS))
        return _view(key, size, _patch(mask, size, drawn, aspect=4.0))


def _index(number, count):
    """Which of `count` things (B,) numbers from 0 to 1 select."""
    return (number * count).astype(np.int64).clip(max=count - 1)


def _patch(mask, size, drawn, *, aspect):
    """One patch per image, turned by the angle, with its middle at (x, y)."""
    tall = drawn["share"] * size[0]
    wide = tall * aspect
    centred = overlay.rectangles(-wide / 2, -tall / 2, wide / 2, tall / 2)
    middle = translation(drawn["x"] * size[1] - 0.5, drawn["y"] * size[0] - 0.5)
    matrix = middle @ rotation(drawn["angle"]) @ centred
    colour = np.rint(np.stack([drawn[channel] for channel in COLOURS], axis=1))
    return Overlay(mask[:, None], matrix[:, None], colour[:, None])


def _view(key, size, effect):
    return Transform.identity(len(key.samples), size).with_effect(effect)
