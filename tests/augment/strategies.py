"""Random augmenters with every parameter in a wide range, and random chains of them."""

import numpy as np
from hypothesis import strategies as st

from augment import (
    AffineAugmenter,
    Augmenter,
    BarsAugmenter,
    BlurAugmenter,
    BrightnessContrastAugmenter,
    Chain,
    ColourAugmenter,
    CropAugmenter,
    GammaAugmenter,
    GreyAugmenter,
    JpegAugmenter,
    Key,
    LowResolutionAugmenter,
    MirrorAugmenter,
    MotionBlurAugmenter,
    NoiseAugmenter,
    OccluderAugmenter,
    PerspectiveAugmenter,
    RandomAugmenter,
    TextAugmenter,
)

SIZE = (48, 64)
BATCH = 4
PERMUTATION = np.array([1, 0, 2, 4, 3])

GEOMETRIC = {
    "affine": AffineAugmenter(
        rotation=(-40, 40), scale=(0.6, 1.6), stretch=(0.7, 1.4), shift_x=(-0.3, 0.3), shift_y=(-0.3, 0.3)
    ),
    "mirror": MirrorAugmenter(probability=0.5),
    "crop": CropAugmenter(share=(0.5, 1)),
    "perspective": PerspectiveAugmenter(tilt_x=(-0.2, 0.2), tilt_y=(-0.2, 0.2)),
}
PHOTOMETRIC = {
    "brightness and contrast": BrightnessContrastAugmenter(brightness=(-20, 20), contrast=(0.8, 1.2)),
    "colour": ColourAugmenter(saturation=(0.5, 1.3), hue=(-15, 15), probability=0.7),
    "grey": GreyAugmenter(probability=0.5),
    "gamma": GammaAugmenter(gamma=(0.6, 1.6)),
    "blur": BlurAugmenter(sigma=(0, 2), probability=0.7),
    "motion blur": MotionBlurAugmenter(length=(0, 8), probability=0.7),
    "low resolution": LowResolutionAugmenter(factor=(0.3, 1), probability=0.7),
    "noise": NoiseAugmenter(sigma=(0, 12), probability=0.7),
    "jpeg": JpegAugmenter(quality=(20, 95), probability=0.7),
    "bars": BarsAugmenter(left=(0, 0.3), right=(0, 0.3), top=(0, 0.2), bottom=0.1),
    "occluder": OccluderAugmenter(probability=0.7),
    "text": TextAugmenter(probability=0.7),
}
NOTHING = {"nothing": Augmenter()}
RANDOM = {"random": RandomAugmenter(augmenters=tuple((GEOMETRIC | PHOTOMETRIC).values()), weights=(1.0,) * 16)}
ALL = GEOMETRIC | PHOTOMETRIC | NOTHING | RANDOM


def drawn_by(augmenter, seed=0, batch=BATCH, size=SIZE):
    return augmenter.draw(Key(seed, 0, np.arange(batch)), size)


def chains(augmenters, max_size=4):
    return st.lists(st.sampled_from(sorted(augmenters)), max_size=max_size).map(
        lambda names: Chain(tuple(augmenters[name] for name in names))
    )


def views_of(augmenters, max_size=4):
    return st.builds(drawn_by, chains(augmenters, max_size), st.integers(0, 2**32))


geometric_views = views_of(GEOMETRIC)
any_views = views_of(ALL)
