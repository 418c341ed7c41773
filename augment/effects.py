"""Effects change the look of an image but move no point, as data: colour, tone, blur, noise, JPEG, low resolution.

An effect holds arrays with a row for each image of a batch; a row with the neutral values leaves its image alone. Each
effect is implemented twice, for one image with OpenCV (`on_image`) and for a batch with torch (`on_tensor`), and the
two agree. After each effect the values are whole numbers in 0..255 again, on every device.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Self

import cv2
import numpy as np
import torch

from augment.geometry import linear_part, scale_of
from augment.key import Key
from augment.warp import on_device

NOISE_TILE = 256
# The tables of ITU-T T.81, annex K.
JPEG_LUMA = np.array(
    [
        (16, 11, 10, 16, 24, 40, 51, 61),
        (12, 12, 14, 19, 26, 58, 60, 55),
        (14, 13, 16, 24, 40, 57, 69, 56),
        (14, 17, 22, 29, 51, 87, 80, 62),
        (18, 22, 37, 56, 68, 109, 103, 77),
        (24, 35, 55, 64, 81, 104, 113, 92),
        (49, 64, 78, 87, 103, 121, 120, 101),
        (72, 92, 95, 98, 112, 100, 103, 99),
    ]
)
JPEG_CHROMA = np.pad(
    [(17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99)], ((0, 4), (0, 4)), constant_values=99
)


@dataclass(frozen=True, eq=False)
class Effect:
    """Arrays with a row per image, and what they do. `neutral` has the value of each that does nothing."""

    neutral: ClassVar[dict[str, Any]] = {}

    def active(self) -> np.ndarray:
        """(B,) bool: which images are changed at all."""
        differs = [
            (array != self.neutral[name]).any(axis=tuple(range(1, array.ndim))) for name, array in vars(self).items()
        ]
        return np.logical_or.reduce(differs)

    def where(self, chosen: np.ndarray) -> Self:
        """The effect on the images where the (B,) mask is true, and none on the others."""
        kept = {
            name: np.where(chosen.reshape(-1, *[1] * (array.ndim - 1)), array, self.neutral[name])
            for name, array in vars(self).items()
        }
        return replace(self, **kept)

    def at(self, rows: np.ndarray) -> Self:
        """The effect of the images at `rows`."""
        return replace(self, **{name: array[rows] for name, array in vars(self).items()})

    def through(self, geometry: np.ndarray, size: tuple[int, int]) -> Self:
        """The effect as it looks after its image of `size` is warped by (B, 3, 3) matrices."""
        return self

    def merged(self, following: "Effect") -> "Effect | None":
        """One effect that does this one and then `following`, or None if there is none."""
        return None

    def on_image(self, image: np.ndarray, row: int):
        """Changes one (H, W, 3) uint8 image in place."""
        raise NotImplementedError

    def on_tensor(self, images: torch.Tensor) -> torch.Tensor:
        """The (B, 3, H, W) float32 images, all of which it changes, after the effect; it may change them in place."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Colour(Effect):
    """Affine maps of RGB in units of 0..255: matrix (B, 3, 4). Brightness, contrast, saturation, hue, grey, tint."""

    matrix: np.ndarray
    neutral: ClassVar = {"matrix": np.eye(3, 4)}

    def merged(self, following):
        if not isinstance(following, Colour):
            return None
        product = following.matrix[:, :, :3] @ self.matrix
        product[:, :, 3] += following.matrix[:, :, 3]
        return Colour(product)

    def inverse(self) -> "Colour":
        """Raises ValueError if a colour is lost, as in grey."""
        if not (np.linalg.cond(self.matrix[:, :, :3]) < 1e6).all():
            raise ValueError("the colour of this view has no inverse")
        linear = np.linalg.inv(self.matrix[:, :, :3])
        return Colour(np.concatenate((linear, -linear @ self.matrix[:, :, 3:]), axis=2))

    def on_image(self, image, row):
        cv2.transform(image, self.matrix[row], dst=image)

    def on_tensor(self, images):
        """Sums of products, for the reason given at `grid_sample`."""
        rows = to_float32(images, self.matrix).permute(1, 2, 0)[..., None, None]
        red, green, blue = images.unbind(1)
        return whole(torch.stack([r * red + g * green + b * blue + k for r, g, b, k in rows], dim=1))


@dataclass(frozen=True, eq=False)
class Tone(Effect):
    """Powers of brightness: 255 (x / 255) ** gamma, gamma (B,)."""

    gamma: np.ndarray
    neutral: ClassVar = {"gamma": 1.0}

    def merged(self, following):
        return Tone(self.gamma * following.gamma) if isinstance(following, Tone) else None

    def on_image(self, image, row):
        table = np.rint(255 * np.linspace(0, 1, 256) ** self.gamma[row]).astype(np.uint8)
        cv2.LUT(image, table, dst=image)

    def on_tensor(self, images):
        gamma = to_float32(images, self.gamma)[:, None, None, None]
        return whole(255 * (images / 255) ** gamma)


@dataclass(frozen=True, eq=False)
class Blur(Effect):
    """Gaussian blur: covariance (B, 2, 2) of (x, y) in squared pixels of the image; a line for motion blur.

    Blurs add their covariances, and a warp transforms them by its linear part, so the blur of a chain is one blur. A
    perspective, whose linear part differs from place to place, counts as it is in the middle of the image.
    """

    covariance: np.ndarray
    neutral: ClassVar = {"covariance": 0.0}

    def through(self, geometry, size):
        linear = linear_part(geometry, size)
        return Blur(linear @ self.covariance @ linear.swapaxes(1, 2))

    def merged(self, following):
        return Blur(self.covariance + following.covariance) if isinstance(following, Blur) else None

    def on_image(self, image, row):
        (xx, xy), (_, yy) = self.covariance[row].tolist()
        if abs(xy) < 1e-3:  # sepFilter2D is exact to rounding, where GaussianBlur is not
            across = cv2.getGaussianKernel(*kernel_size_and_sigma(xx))
            down = across if xx == yy else cv2.getGaussianKernel(*kernel_size_and_sigma(yy))
            cv2.sepFilter2D(image, -1, across, down, image, borderType=cv2.BORDER_REPLICATE)
        else:
            cv2.filter2D(image, -1, _kernel(self.covariance[row]), image, borderType=cv2.BORDER_REPLICATE)

    def on_tensor(self, images):
        own = [_kernel(covariance) for covariance in self.covariance]
        down, across = (max(lengths) // 2 for lengths in zip(*(kernel.shape for kernel in own), strict=True))
        kernels = to_float32(images, np.stack([_padded(kernel, down, across) for kernel in own]))
        batch, channels, height, width = images.shape
        padded = torch.nn.functional.pad(images, (across, across, down, down), mode="replicate")
        weights = kernels[:, None, None].expand(-1, channels, -1, -1, -1).reshape(-1, 1, *kernels.shape[1:])
        blurred = torch.nn.functional.conv2d(padded.reshape(1, -1, *padded.shape[2:]), weights, groups=len(weights))
        return whole(blurred.view(batch, channels, height, width))


@dataclass(frozen=True, eq=False)
class Noise(Effect):
    """Normal noise on each value: sigma (B,) in 0..255, taken from an endless tile of noise at place (B, 2)."""

    sigma: np.ndarray
    place: np.ndarray
    neutral: ClassVar = {"sigma": 0.0, "place": 0}

    def on_image(self, image, row):
        cv2.add(image, noise_at(self.place[row], image.shape[:2]) * np.float32(self.sigma[row]), image, dtype=cv2.CV_8U)

    def on_tensor(self, images):
        tile = noise_tile_on(images.device)
        place = on_device(self.place, images.device)
        height, width = (torch.arange(n, device=images.device) for n in images.shape[2:])
        rows, columns = (place[:, :1] + height) % NOISE_TILE, (place[:, 1:] + width) % NOISE_TILE
        noise = tile[rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
        return whole(images + noise * to_float32(images, self.sigma)[:, None, None, None])


@dataclass(frozen=True, eq=False)
class Jpeg(Effect):
    """The loss of JPEG at a whole quality (B,) of 1..99; 100 is none. Chroma is stored at half the size, as in cameras.

    One image goes through OpenCV's own JPEG. For a batch the same is computed with libjpeg's roundings, so that the two
    agree except for coefficients that lie between two steps.
    """

    quality: np.ndarray
    neutral: ClassVar = {"quality": 100.0}

    def on_image(self, image, row):
        flags = (cv2.IMWRITE_JPEG_QUALITY, round(self.quality[row]))
        _, stored = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
        seen = cv2.imdecode(stored, cv2.IMREAD_COLOR)
        assert seen is not None
        cv2.cvtColor(seen, cv2.COLOR_BGR2RGB, dst=image)

    def on_tensor(self, images):
        height, width = images.shape[2:]
        padding = (0, -width % 16, 0, -height % 16)
        red, green, blue = torch.nn.functional.pad(images, padding, mode="replicate").unbind(1)
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        chroma = torch.stack(((blue - luma) / 1.772, (red - luma) / 1.402), dim=1)
        halves = _uneven_floor(torch.nn.functional.avg_pool2d(chroma.round(), 2), 0.25, 0.5)
        luma_steps, chroma_steps = (to_float32(images, steps) for steps in _jpeg_steps(self.quality))
        luma = _quantise(luma.round() - 128, luma_steps) + 128
        stored = torch.stack([_quantise(half, chroma_steps) for half in halves.unbind(1)], dim=1)
        stored = stored[:, :, : (height + 1) // 2, : (width + 1) // 2]
        double = torch.nn.functional.interpolate(stored, scale_factor=2, mode="bilinear")
        to_blue, to_red = _uneven_floor(double, 8 / 16, 7 / 16)[:, :, :height, :width].unbind(1)
        green = -0.344136 * to_blue - 0.714136 * to_red
        changed = torch.stack((1.402 * to_red, green, 1.772 * to_blue), dim=1).round() + luma[:, None, :height, :width]
        return whole(changed)


@dataclass(frozen=True, eq=False)
class LowResolution(Effect):
    """The look of an image that was once smaller by a factor (B,) of at most 1: averaged down, stretched up."""

    factor: np.ndarray
    neutral: ClassVar = {"factor": 1.0}

    def through(self, geometry, size):
        scale = scale_of(geometry, size)
        return LowResolution(np.where(self.factor < 1, np.minimum(self.factor / scale, 1.0), 1.0))

    def on_image(self, image, row):
        height, width = image.shape[:2]
        small = (_smaller(width, self.factor[row]), _smaller(height, self.factor[row]))
        cv2.resize(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height), image)

    def on_tensor(self, images):
        rows, columns = (
            _there_and_back(n, to_float32(images, np.array([_smaller(n, factor) for factor in self.factor])))
            for n in images.shape[2:]
        )
        return whole(rows[:, None] @ images @ columns[:, None].transpose(2, 3))


@lru_cache(maxsize=8)
def noise_tile_on(device: torch.device) -> torch.Tensor:
    return on_device(noise_tile(), device)


@lru_cache(maxsize=1)
def noise_tile() -> np.ndarray:
    """(NOISE_TILE, NOISE_TILE, 3) float32 standard normal numbers, always the same: Box-Muller on those of a key."""
    numbers = Key(0, 0, np.arange(NOISE_TILE**2)).uniform(6)
    radius = np.sqrt(-2 * np.log1p(-numbers[:, :3]))
    return (radius * np.cos(2 * np.pi * numbers[:, 3:])).reshape(NOISE_TILE, NOISE_TILE, 3).astype(np.float32)


def noise_at(place: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) of the endless tile, starting at (row, column) `place`."""
    (row, column), (height, width) = place % NOISE_TILE, size
    return _unrolled_tile(height, width)[row : row + height, column : column + width]


@lru_cache(maxsize=4)
def _unrolled_tile(height, width):
    """The tile, continued far enough for an image of this size to begin anywhere in it."""
    return np.pad(noise_tile(), ((0, height), (0, width), (0, 0)), mode="wrap")


def kernel_size_and_sigma(variance: float) -> tuple[int, float]:
    """The length of a kernel along an axis, and its sigma: about three sigma to each side, as OpenCV does for bytes."""
    sigma = math.sqrt(max(variance, 1e-4))
    return round(6 * sigma + 1) | 1, sigma


def _kernel(covariance):
    """float32 weights of a normal density, (rows, columns), as many as each axis needs.

    A thin line is thickened to a tenth of a squared pixel, so that the pixels it passes between see it.
    """
    if abs(covariance[0, 1]) < 1e-3:
        across, down = (cv2.getGaussianKernel(*kernel_size_and_sigma(variance)) for variance in covariance.diagonal())
        return (down @ across.T).astype(np.float32)
    thickened = covariance + 0.1 * np.eye(2)
    x, y = (np.arange(size) - size // 2 for size, _ in map(kernel_size_and_sigma, thickened.diagonal()))
    a, b, c = np.linalg.inv(thickened)[(0, 0, 1), (0, 1, 1)]
    weights = np.exp(-0.5 * (a * x**2 + 2 * b * x * y[:, None] + c * y[:, None] ** 2))
    return (weights / weights.sum()).astype(np.float32)


def _padded(kernel, down, across):
    """The kernel with zeros around it, so that it reaches `down` and `across` from its middle."""
    rows, columns = down - kernel.shape[0] // 2, across - kernel.shape[1] // 2
    return np.pad(kernel, ((rows, rows), (columns, columns)))


def _smaller(length, factor):
    return max(1, round(length * factor))


def _there_and_back(length, small):
    """(B, length, length): averages over areas down to (B,) `small` pixels, then interpolates linearly up again."""
    index = torch.arange(length, device=small.device)
    share = small[:, None, None] / length
    overlap = torch.minimum((index + 1) * share, index[:, None] + 1) - torch.maximum(index * share, index[:, None])
    overlap = overlap.clamp_(min=0)
    down = overlap / overlap.sum(dim=2, keepdim=True).clamp(min=1e-6)  # the rows beyond `small` stay empty
    middle = ((index[:, None] + 0.5) * share - 0.5).clamp_(min=0)
    up = (1 - (torch.minimum(middle, small[:, None, None] - 1) - index).abs()).clamp_(min=0)
    return up @ down


def _jpeg_steps(quality):
    """(B, 8, 8) steps of luminance and of chrominance at a quality, scaled as libjpeg does."""
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)[:, None, None]
    return [np.clip(np.floor((table * scale + 50) / 100), 1, 255) for table in (JPEG_LUMA, JPEG_CHROMA)]


@lru_cache(maxsize=1)
def _dct():
    """(8, 8) orthonormal matrix of the discrete cosine transform."""
    index = np.arange(8)
    matrix = np.cos((2 * index + 1) * index[:, None] * np.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _quantise(plane, steps):
    """(B, H, W) whole numbers in -128..127 after the coefficients of their 8 x 8 blocks have been rounded to multiples
    of (B, 8, 8) steps. What libjpeg holds as integers between the passes is rounded here too.
    """
    batch, height, width = plane.shape
    dct = to_float32(plane, _dct() * math.sqrt(8))
    blocks = plane.reshape(batch, height // 8, 8, width // 8, 8).transpose(2, 3)
    steps = steps[:, None, None]
    eighths = (dct @ (blocks @ dct.T * 4).round_() / 4).round_()
    coefficients = (eighths / (8 * steps) + 0.5 * eighths.sign()).trunc_() * steps
    stored = ((dct.T @ coefficients * 4).round_() @ dct / 32).round_().clamp_(-128, 127)
    return stored.transpose(2, 3).reshape(batch, height, width)


def _uneven_floor(plane, even, odd):
    """The floor of a plane after adding these to its even and odd columns, which is how libjpeg avoids a drift."""
    parity = torch.arange(plane.shape[-1], device=plane.device) % 2
    return (plane + (even + (odd - even) * parity)).floor_()


def to_float32(images: torch.Tensor, array: np.ndarray) -> torch.Tensor:
    """An array as float32 on the device of the images, without waiting for the copy."""
    return on_device(array, images.device, np.float32)


def whole(images: torch.Tensor) -> torch.Tensor:
    """Rounds to whole numbers in 0..255, in place."""
    return images.round_().clamp_(0, 255)
