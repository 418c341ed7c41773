"""Resampling: one bilinear warp per image, by OpenCV on the CPU and by `grid_sample` elsewhere, in agreement.

Outside the source the nearest pixel of its edge is repeated. A constant would not commute with colour: "brighten, turn"
and "turn, brighten" would then be two pictures, and a chain could not be one warp.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch

from augment.geometry import is_affine, translation, which_are_affine

LOOKING_BACK = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


def on_device(array: np.ndarray, device: torch.device, dtype: type | None = None) -> torch.Tensor:
    """The array on the device. A GPU gets it from pinned memory, so that nothing waits for the copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def each_image(
    change: Callable[[int, np.ndarray, np.ndarray], None], images: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Calls `change(row, source, target)` for each of (B, 3, H, W) images with its (H, W, 3) pixels.

    Returns the targets as a (B, 3, *size) channels-last tensor of the same type.
    """
    sources = images.permute(0, 2, 3, 1).numpy()
    targets = np.empty((len(sources), *size, 3), sources.dtype)
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        change(row, source, target)
    return torch.from_numpy(targets).permute(0, 3, 1, 2)


def output_to_source(
    geometry: np.ndarray, source: tuple[int, int], size: tuple[int, int]
) -> list[tuple[np.ndarray, list[int]]]:
    """Where (B, 3, 3) source-to-output matrices look, for `warp_image`.

    Returns for each the matrix from the output to a source with a border around it, (2, 3) if it is affine and (3, 3)
    otherwise, and how many pixels that border has at the top, bottom, left and right: as many as the output
    sees, at most half the source.
    """
    inverse = np.linalg.inv(geometry)
    far_y, far_x = size[0] - 1, size[1] - 1
    corners = inverse @ np.array([(0, far_x, far_x, 0), (0, 0, far_y, far_y), (1, 1, 1, 1)], np.float64)
    seen = corners[:, :2] / corners[:, 2:]
    half = np.array(source[::-1]) // 2
    before = np.ceil(-seen.min(axis=2)).clip(0, half)
    after = (np.ceil(seen.max(axis=2)) + 1 - source[::-1]).clip(0, half)
    borders = np.stack((before[:, 1], after[:, 1], before[:, 0], after[:, 0]), axis=1).astype(int)
    back = translation(before[:, 0], before[:, 1]) @ inverse
    rows = np.where(which_are_affine(back), 2, 3)
    return [(matrix[:n], border) for matrix, n, border in zip(back, rows.tolist(), borders.tolist(), strict=True)]


def warp_image(source: np.ndarray, target: np.ndarray, back: np.ndarray, border: list[int]):
    """Warps (H, W, 3) pixels into `target`, which has the output's size, by one of the results of `output_to_source`.

    Copying with a border and warping inside it is faster than a warp that looks for the border at each pixel, with the
    same result up to rounding; with a fourth channel OpenCV warps half again as fast as with three.
    """
    bordered = any(border)
    part, mirrored = (None, False) if bordered else _part(source, target.shape, back)
    if part is not None and mirrored:
        cv2.flip(part, 1, dst=target)
    elif part is not None:
        target[:] = part
    else:
        wide = cv2.cvtColor(source, cv2.COLOR_RGB2RGBA)
        if bordered:
            top, bottom, left, right = border
            wide = cv2.copyMakeBorder(wide, top, bottom, left, right, cv2.BORDER_REPLICATE)
        warp = cv2.warpAffine if len(back) == 2 else cv2.warpPerspective
        warped = warp(wide, back, target.shape[1::-1], flags=LOOKING_BACK, borderMode=cv2.BORDER_REPLICATE)
        cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=target)


def _part(source, shape, back):
    """The part of the source that the output is, pixel for pixel, and whether it is mirrored; None if it is no part."""
    if len(back) == 3:
        return None, False
    (a, b, x), (c, d, y) = back.tolist()
    if abs(a) != 1 or b or c or d != 1 or x % 1 or y % 1:
        return None, False
    height, width = shape[:2]
    left, top = int(x if a == 1 else x - width + 1), int(y)
    if min(left, top) < 0 or left + width > source.shape[1] or top + height > source.shape[0]:
        return None, False
    return source[top : top + height, left : left + width], a == -1


def grid_sample(
    images: torch.Tensor, geometry: np.ndarray, size: tuple[int, int], *, padding_mode: str = "border"
) -> torch.Tensor:
    """Warps (B, C, H, W) float32 images by (B, 3, 3) source-to-output matrices to (B, C, *size), on any device.

    The coordinates are sums of products, not a matrix product, because a GPU may be set to multiply matrices in
    TF32, whose 10 bits of mantissa give an error of 0.1 px at 128 px.
    """
    height, width = images.shape[-2:]
    to_unit_square = np.array([[2 / max(width - 1, 1), 0, -1], [0, 2 / max(height - 1, 1), -1], [0, 0, 1]])
    rows = on_device(to_unit_square @ np.linalg.inv(geometry), images.device, np.float32)
    (a, b, c), (d, e, f), (g, h, i) = rows.permute(1, 2, 0)[..., None, None]
    x = torch.arange(size[1], dtype=torch.float32, device=images.device)
    y = torch.arange(size[0], dtype=torch.float32, device=images.device)[:, None]
    grid = torch.stack((a * x + b * y + c, d * x + e * y + f), dim=-1)
    if not is_affine(geometry):
        grid = grid / (g * x + h * y + i)[..., None]
    return torch.nn.functional.grid_sample(images, grid, padding_mode=padding_mode, align_corners=True)
