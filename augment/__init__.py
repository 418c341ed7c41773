"""Views and augmenters: geometry that is drawn, composed, applied, inverted and written down.

The convention of the whole project, stated here once: x runs to the right, y runs down, and **pixel centres
lie at integers**, so that an image of width W covers [-0.5, W - 0.5]. Hence mirroring is W - 1 - x, and
resizing by s is s * (x + 0.5) - 0.5. Matrices are 3 x 3, float64, and map source pixels to output pixels.
Sizes are (height, width). Points are (..., 2) arrays of (x, y). Images are RGB, uint8.
"""

from augment.augmenters import Augmenter, Chain, RandomAugmenter, Sampler
from augment.borrowed import AlbumentationsAugmenter
from augment.fit import RegionOfInterest, fit_box, fit_photo
from augment.geometric import AffineAugmenter, CropAugmenter, MirrorAugmenter, PerspectiveAugmenter
from augment.geometry import transform_points
from augment.key import Key
from augment.parse import AUGMENTERS, parse_augmenters
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
from augment.transform import Transform

__all__ = [
    "AUGMENTERS",
    "AffineAugmenter",
    "AlbumentationsAugmenter",
    "Augmenter",
    "BarsAugmenter",
    "BlurAugmenter",
    "BrightnessContrastAugmenter",
    "Chain",
    "ColourAugmenter",
    "CropAugmenter",
    "GammaAugmenter",
    "GreyAugmenter",
    "JpegAugmenter",
    "Key",
    "LowResolutionAugmenter",
    "MirrorAugmenter",
    "MotionBlurAugmenter",
    "NoiseAugmenter",
    "OccluderAugmenter",
    "PerspectiveAugmenter",
    "RandomAugmenter",
    "RegionOfInterest",
    "Sampler",
    "TextAugmenter",
    "Transform",
    "fit_box",
    "fit_photo",
    "parse_augmenters",
    "transform_points",
]
