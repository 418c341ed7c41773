"""Drawing a head: its skin is painted on a chart of directions, then seen from somewhere, in some light."""

from dataclasses import dataclass

import cv2
import numpy as np

from demo.head import Head, bump, soft_step

CHART = 3  # chart pixels a degree
RELIEF = 2  # pixels a degree of the map of radii
MARCH = 18  # steps towards the surface
SKINS = np.array(
    [(255, 224, 196), (241, 194, 160), (224, 172, 132), (198, 134, 94), (141, 85, 54), (92, 58, 40)], float
)
HAIRS = np.array([(24, 20, 18), (58, 38, 26), (110, 72, 40), (186, 146, 88), (150, 66, 36), (150, 148, 146)], float)
IRISES = np.array([(84, 58, 38), (70, 100, 130), (76, 102, 66), (50, 38, 30)], float)


@dataclass(frozen=True)
class Looks:
    """The colours of a face, RGB in 0..255, and what grows on it."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    beard: float
    makeup: float
    texture: int  # seed of mottling and strands

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Looks":
        skin = _between(SKINS, rng)
        hair = _between(HAIRS, rng)
        return cls(
            skin=skin,
            hair=hair * rng.uniform(0.7, 1.1),
            iris=_between(IRISES, rng),
            lips=skin * (0.86, 0.60, 0.60) + rng.normal(0, 8, 3),
            beard=rng.uniform(0.25, 0.75) if rng.random() < 0.25 else 0.0,
            makeup=rng.uniform(0.2, 0.9) if rng.random() < 0.3 else 0.0,
            texture=int(rng.integers(2**31)),
        )


@dataclass(frozen=True)
class Camera:
    """Where a head is seen from: angles in degrees; `scale` pixels a unit, the head's middle at (x, y)."""

    yaw: float
    pitch: float
    roll: float
    scale: float
    x: float
    y: float

    def rotation(self) -> np.ndarray:
        """(3, 3), from the head to the picture: first the yaw, then the pitch, then the roll."""
        yaw, pitch, roll = np.radians((self.yaw, self.pitch, self.roll))
        turn = np.array([(np.cos(yaw), 0, np.sin(yaw)), (0, 1, 0), (-np.sin(yaw), 0, np.cos(yaw))])
        nod = np.array([(1, 0, 0), (0, np.cos(pitch), np.sin(pitch)), (0, -np.sin(pitch), np.cos(pitch))])
        lean = np.array([(np.cos(roll), -np.sin(roll), 0), (np.sin(roll), np.cos(roll), 0), (0, 0, 1)])
        return lean @ nod @ turn

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of (..., 3) points of the head, by parallel rays."""
        return (points @ self.rotation().T)[..., :2] * self.scale + (self.x, self.y)


def paint(head: Head, looks: Looks) -> np.ndarray:
    """(180 * CHART, 360 * CHART, 3) float32 colours of the skin, hair and features in each direction."""
    rng = np.random.default_rng(looks.texture)
    height, width = 180 * CHART, 360 * CHART
    mottle = rng.normal(0, 4.0, (45, 90, 3)).astype(np.float32)
    chart = cv2.resize(mottle, (width, height), interpolation=cv2.INTER_CUBIC)
    chart += looks.skin.astype(np.float32)
    lon = ((np.arange(width, dtype=np.float32) + 0.5) / CHART - 180)[None]
    lat = ((np.arange(height, dtype=np.float32) + 0.5) / CHART - 90)[:, None]
    _paint_skin(chart[60 * CHART : 170 * CHART, 105 * CHART : 255 * CHART], head, looks, rng)
    _paint_eyes(chart, head, looks)
    brow = _closed(head.brow)
    _fill_pair(chart, brow, looks.hair * 0.75 * (1 - 0.3 * looks.makeup), soft=0.6)
    tip = head.eye_latitude + 3 + head.nose_length
    nostril = _ellipse(head.nose_width * 0.5, tip + 3.6, 2.2, 1.1)
    _fill_pair(chart, nostril, looks.skin * 0.28, soft=0.7)
    _paint_mouth(chart, head, looks)

    strands = cv2.resize(rng.normal(1.0, 0.16, (12, 360)).astype(np.float32), (width, height))
    ragged = 2.5 * cv2.resize(rng.normal(0, 1, (1, 180)).astype(np.float32), (width, 1))
    cover = soft_step(head.hair_edge(lon).astype(np.float32) - ragged - lat)
    chart += (looks.hair.astype(np.float32) * strands[..., None] - chart) * cover[..., None]
    return chart


def _paint_skin(front, head, looks, rng):
    """Blush, eye sockets and stubble, on the part of the chart that is the face: 30 degrees up, 75 to each side."""
    away = np.abs((np.arange(front.shape[1], dtype=np.float32) + 0.5) / CHART - 75)[None]
    lat = ((np.arange(front.shape[0], dtype=np.float32) + 0.5) / CHART - 30)[:, None]
    blush = bump(away - 27, 6.4) * bump(lat - 15, 5.7) * (0.10 + 0.10 * looks.makeup)
    front += blush[..., None] * np.array((20, -70, -60), np.float32)
    socket = bump(away - head.eye_distance, 6.4) * bump(lat - head.eye_latitude, 4.2) * (0.14 + 0.25 * looks.makeup)
    front *= (1 - socket)[..., None]
    if looks.beard:
        edge = soft_step((lat - 24 + 0.25 * away) / 1.5) * soft_step(75 - away)
        stubble = np.float32(looks.beard) * edge * rng.uniform(0.6, 1.0, edge.shape).astype(np.float32)
        front += (looks.hair.astype(np.float32) * 0.8 - front) * stubble[..., None]


def _paint_eyes(chart, head, looks):
    lid = _closed(head.eye)
    upper, lower = head.eye("upper"), head.eye("lower")
    pupil_lon, pupil_lat = head.pupil()
    rows = slice(int((head.eye_latitude + 80) * CHART), int((head.eye_latitude + 100) * CHART))
    eye = chart.copy()
    for side in (-1, 1):
        _fill(eye, (side * lid[0], lid[1]), np.array((232, 228, 224)))
        middle = pupil_lon if side > 0 else 2 * head.gaze_x - pupil_lon
        for radius, colour in ((4.1, looks.iris * 0.5), (3.7, looks.iris), (1.7, np.array((14, 12, 12)))):
            _fill(eye, _ellipse(middle, pupil_lat, radius, radius), colour)
        _fill(eye, _ellipse(middle + 1.2, pupil_lat - 1.3, 0.8, 0.8), np.array((250, 250, 250)))
        inside = np.zeros(chart.shape[:2], np.float32)
        _fill(inside, (side * lid[0], lid[1]), 1.0)
        chart[rows] += (eye[rows] - chart[rows]) * inside[rows, :, None]
        lash = looks.hair * 0.4 if looks.makeup else np.minimum(looks.hair * 0.6, looks.skin * 0.35)
        _line(chart, (side * upper[0], upper[1]), lash, 1.1 + 0.9 * looks.makeup)
        _line(chart, (side * lower[0], lower[1]), looks.skin * 0.62, 0.5)
        crease = head.eye_distance + 1.15 * (upper[0] - head.eye_distance)
        _line(chart, (side * crease, upper[1] - 2.6), looks.skin * 0.72, 0.6)


def _paint_mouth(chart, head, looks):
    lips = looks.lips * (1 - 0.35 * looks.makeup) + looks.makeup * 0.35 * np.array((190, 20, 50))
    edges = {part: head.lip(part) for part in ("upper outer", "upper inner", "lower inner", "lower outer")}
    _fill(chart, _between_edges(edges["upper outer"], edges["lower outer"]), lips, soft=0.5)
    inside = _between_edges(edges["upper inner"], edges["lower inner"])
    if head.mouth_open > 0:
        _fill(chart, inside, np.array((58, 18, 20)))
        lon, lat = edges["upper inner"]
        depth = np.interp(lon, *edges["lower inner"]) - lat
        _fill(
            chart,
            _between_edges((0.8 * lon, lat), (0.8 * lon, lat + 0.42 * depth)),
            np.array((236, 230, 218)),
            soft=0.3,
        )
    _line(chart, edges["upper inner"], lips * 0.45, 0.9)
    shadow = edges["lower outer"]
    _line(chart, (shadow[0] * 0.7, shadow[1] + 0.8), looks.skin * 0.78, 1.0)
    fold = head._folds()
    for side in (-1, 1):
        _line(chart, (side * fold[0][64:], fold[1][64:]), looks.skin * (0.86 - 0.08 * abs(head.smile)), 0.8)


def _between(colours, rng):
    """A colour somewhere on the line between two neighbours of a list."""
    position = rng.uniform(0, len(colours) - 1)
    low = int(position)
    return colours[low] + (position - low) * (colours[min(low + 1, len(colours) - 1)] - colours[low])


def _closed(edge):
    return _between_edges(edge("upper"), edge("lower"))


def _between_edges(one, other):
    return np.concatenate((one[0], other[0][::-1])), np.concatenate((one[1], other[1][::-1]))


def _ellipse(lon, lat, radius_lon, radius_lat):
    angle = np.linspace(0, 2 * np.pi, 40)
    return lon + radius_lon * np.cos(angle), lat + radius_lat * np.sin(angle)


def _on_chart(curve):
    """Longitudes and latitudes as OpenCV's fixed-point pixels of the chart."""
    pixels = np.stack(((curve[0] + 180) * CHART - 0.5, (curve[1] + 90) * CHART - 0.5), axis=-1)
    return np.rint(pixels * 16).astype(np.int32)


def _fill(image, curve, colour, soft=0.0):
    """Fills a closed curve, with an edge that fades over `soft` degrees."""
    polygon = _on_chart(curve)
    margin = int(3 * soft * CHART) + 2
    (left, top), (right, bottom) = polygon.min(0) // 16 - margin, polygon.max(0) // 16 + margin
    left, top = max(left, 0), max(top, 0)
    part = image[top : bottom + 1, left : right + 1]
    mask = np.zeros(part.shape[:2], np.uint8)
    cv2.fillPoly(mask, [polygon - np.array((left, top), np.int32) * 16], 255, cv2.LINE_AA, shift=4)
    if soft:
        mask = cv2.GaussianBlur(mask, (0, 0), soft * CHART).reshape(mask.shape)
    cover = np.float32(1 / 255) * (mask[..., None] if image.ndim == 3 else mask)
    part += (np.asarray(colour, np.float32) - part) * cover


def _fill_pair(image, curve, colour, soft=0.0):
    for side in (-1, 1):
        _fill(image, (side * curve[0], curve[1]), colour, soft)


def _line(image, curve, colour, width):
    """Draws a curve of a width in degrees."""
    lon, lat = curve
    across = np.stack((-np.gradient(lat), np.gradient(lon)))
    across *= 0.5 * width / np.maximum(np.linalg.norm(across, axis=0), 1e-6)
    _fill(
        image, _between_edges((lon - across[0], lat - across[1]), (lon + across[0], lat + across[1])), colour, soft=0.15
    )


def render(head: Head, looks: Looks, camera: Camera, size: tuple[int, int], light: np.ndarray, ambient: float):
    """Sees a head in a picture of (height, width).

    light: (3,) direction towards the light, in the picture's axes. Returns (H, W, 3) float32 colours and (H, W)
    float32 cover in 0..1.
    """
    chart = paint(head, looks).astype(np.float32)
    depth, lon, lat, hit = _march(head, camera, size)
    colours = cv2.remap(
        chart, (lon + 180) * CHART - 0.5, (lat + 90) * CHART - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    smooth = cv2.GaussianBlur(depth, (0, 0), max(0.6, camera.scale / 90))
    normal = np.stack(
        (-np.gradient(smooth, axis=1), -np.gradient(smooth, axis=0), np.full_like(smooth, 1 / camera.scale))
    )
    normal /= np.linalg.norm(normal, axis=0)
    facing = np.tensordot(light, normal, axes=1)
    shade = ambient + (1 - ambient) * np.clip(facing, 0, 1)
    shine = 26 * np.clip(facing, 0, 1) ** 24
    cover = cv2.GaussianBlur(cv2.erode(hit.astype(np.float32), np.ones((2, 2))), (0, 0), 0.7)
    return colours * shade[..., None] + shine[..., None], cover


def _march(head, camera, size):
    """For each pixel, how far along its ray the surface is, in which direction from the head's middle, and whether."""
    height, width = size
    rotation = camera.rotation()
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = (x - camera.x) / camera.scale, (y - camera.y) / camera.scale
    back = rotation.T.astype(np.float32)
    start = back[:, :2] @ np.stack((x, y)).reshape(2, -1)
    relief_lon = ((np.arange(360 * RELIEF) + 0.5) / RELIEF - 180)[None]
    relief_lat = ((np.arange(180 * RELIEF) + 0.5) / RELIEF - 90)[:, None]
    relief = head.radius(relief_lon, relief_lat).astype(np.float32)
    depth = np.full(start.shape[1], 1.5, np.float32)
    step = np.float32(0.75 * min(head.width, head.depth))
    for _ in range(MARCH):
        point = start + back[:, 2:] * depth
        narrow = head.width * head.narrowing(point[1])
        px, pz = point[0] / narrow, point[2] / head.depth
        flat = np.hypot(px, pz)
        lon, lat = np.degrees(np.arctan2(px, pz)), np.degrees(np.arctan2(point[1], flat))
        radius = cv2.remap(
            relief,
            ((lon + 180) * RELIEF - 0.5).reshape(size),
            ((lat + 90) * RELIEF - 0.5).reshape(size),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).ravel()
        outside = np.hypot(flat, point[1]) - radius
        depth -= step * outside
    return (part.reshape(size) for part in (depth, lon.astype(np.float32), lat.astype(np.float32), outside < 0.03))
