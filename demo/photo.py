"""A photo of a drawn head as the contest's are: any size, framing, background, bars, grey, blur, text, noise."""

from dataclasses import dataclass

import cv2
import numpy as np

from demo.draw import Camera, Looks, render
from demo.head import Head

WORDS = ("LIVE", "NEWS", "photo", "SALE", "2020", "MOVIE", "www.face", "Star", "TODAY", "No 1")


@dataclass(frozen=True)
class Photo:
    """(H, W, 3) uint8 RGB pixels and (971, 2) points in them, not rounded."""

    pixels: np.ndarray
    points: np.ndarray


def draw_photo(seed: int, part: int, number: int) -> Photo:
    """The photo with this number: a function of its arguments alone."""
    rng = np.random.default_rng((seed, part, number))
    head, looks = Head.draw(rng), Looks.draw(rng)
    height, width = _draw_size(rng)
    camera = _draw_camera(rng, height, width)
    light = rng.normal(0, (0.7, 0.5, 0.35)) + (0, -0.35, 1.0)
    light /= np.linalg.norm(light)
    colours, cover = render(head, looks, camera, (height, width), light, ambient=rng.uniform(0.25, 0.6))
    picture = _draw_background(rng, height, width)
    _draw_body(picture, rng, looks, camera, head)
    picture += (colours - picture) * cover[..., None]
    points = camera.project(head.points())
    picture = _develop(picture, rng)
    if rng.random() < 0.12:
        _draw_text(picture, rng)
    if rng.random() < 0.3:
        picture, points = _add_bars(picture, points, rng)
    return Photo(picture, points)


def _draw_size(rng):
    short = int(rng.uniform(110, 230))
    long = int(short * rng.uniform(1.0, 1.4))
    return (short, long) if rng.random() < 0.4 else (long, short)


def _draw_camera(rng, height, width):
    yaw = rng.normal(0, 17) if rng.random() < 0.75 else rng.uniform(-60, 60)
    scale = min(height, width) * rng.uniform(0.27, 0.44)
    return Camera(
        yaw=float(np.clip(yaw, -65, 65)),
        pitch=float(np.clip(rng.normal(0, 8), -22, 22)),
        roll=float(np.clip(rng.normal(0, 8), -28, 28)),
        scale=scale,
        x=width * (0.5 + rng.normal(0, 0.04)),
        y=height * (0.46 + rng.normal(0, 0.04)),
    )


def _draw_background(rng, height, width):
    """Big soft patches of colour, sometimes with edges of things."""
    cells = rng.integers(2, 7)
    grey = rng.normal(0, rng.uniform(5, 60), (cells, cells, 1))
    colours = rng.uniform(40, 215) + rng.normal(0, 22, 3) + grey + rng.normal(0, 12, (cells, cells, 3))
    kind = cv2.INTER_CUBIC if rng.random() < 0.7 else cv2.INTER_NEAREST
    picture = cv2.resize(colours.astype(np.float32), (width, height), interpolation=kind)
    for _ in range(rng.integers(0, 6)):
        corners = rng.uniform(-0.2, 1.2, (4, 2)) * (width, height)
        cv2.fillConvexPoly(
            picture,
            cv2.convexHull(corners.astype(np.int32)),
            (rng.uniform(20, 230) + rng.normal(0, 25, 3)).tolist(),
            cv2.LINE_AA,
        )
    return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.6, 5.0))


def _draw_body(picture, rng, looks, camera, head):
    """Hair that falls behind, a neck and shoulders, behind the head."""
    unit = camera.scale
    lean = np.radians(camera.roll)
    down = np.array((-np.sin(lean), np.cos(lean)))
    middle = np.array((camera.x, camera.y)) - unit * 0.25 * np.sin(np.radians(camera.yaw)) * np.array((1.0, 0.0))
    if head.hair_length > 30 and head.hairline > -90:
        fall = middle + down * unit * 0.35
        axes = (unit * (head.width + 1.3 * head.hair + 0.06), unit * rng.uniform(1.05, 1.45))
        box = (fall.tolist(), (2 * axes[0], 2 * axes[1]), camera.roll)
        cv2.ellipse(picture, box, (looks.hair * 0.75).tolist(), cv2.FILLED, cv2.LINE_AA)
    bottom = picture.shape[0] + unit
    chest = np.array((camera.x, camera.y + 1.55 * unit))
    cloth = rng.uniform(10, 245, 3)
    wide = unit * rng.uniform(1.5, 2.0)
    shoulders = [
        chest + (-wide, 0.35 * unit),
        chest + (-0.5 * unit, -0.45 * unit),
        chest + (0.5 * unit, -0.45 * unit),
        chest + (wide, 0.35 * unit),
        (camera.x + wide, bottom),
        (camera.x - wide, bottom),
    ]
    neck = [
        middle + down * 0.5 * unit + (-0.38 * unit, 0),
        middle + down * 0.5 * unit + (0.38 * unit, 0),
        chest + (0.46 * unit, -0.1 * unit),
        chest + (0, 0.25 * unit),
        chest + (-0.46 * unit, -0.1 * unit),
    ]
    for outline, colour in ((shoulders, cloth), (neck, looks.skin * rng.uniform(0.45, 0.7))):
        cv2.fillPoly(picture, [np.rint(np.array(outline) * 16).astype(np.int32)], colour.tolist(), cv2.LINE_AA, shift=4)


def _draw_text(picture, rng):
    height, width = picture.shape[:2]
    size = height / 90 * rng.uniform(0.5, 1.6)
    corner = (int(width * rng.uniform(-0.1, 0.5)), int(height * rng.uniform(0.15, 1.0)))
    cv2.putText(
        picture, str(rng.choice(WORDS)), corner, cv2.FONT_HERSHEY_DUPLEX, size, rng.uniform(0, 255, 3).tolist(),
        max(1, int(size * 2)), cv2.LINE_AA,
    )  # fmt: skip


def _develop(picture, rng):
    """What a camera and its owner do to a picture: exposure, tint, blur, grey, noise; then 8 bits."""
    picture = picture * rng.uniform(0.6, 1.25) * rng.uniform(0.9, 1.1, 3) + rng.uniform(-12, 18)
    if rng.random() < 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 1.8))
    if rng.random() < 0.12:
        picture = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    picture = picture + rng.normal(0, rng.uniform(0.5, 9.0), picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _add_bars(picture, points, rng):
    """Black bars above and below or left and right, each of its own width."""
    height, width = picture.shape[:2]
    if rng.random() < 0.6:
        one, other = (int(width * share) for share in rng.uniform(0, 0.3, 2))
        return cv2.copyMakeBorder(picture, 0, 0, one, other, cv2.BORDER_CONSTANT), points + (one, 0)
    one, other = (int(height * share) for share in rng.uniform(0, 0.2, 2))
    return cv2.copyMakeBorder(picture, one, other, 0, 0, cv2.BORDER_CONSTANT), points + (0, one)
