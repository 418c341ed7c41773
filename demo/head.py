"""The shape of a head, and the 971 points on it in the contest's order.

A head is a surface in 3-D: for each direction, as longitude and latitude in degrees, how far out it is. Longitude 0
is the nose and grows to the right of the picture, latitude 0 is the height of the nose's root and grows downwards.
X runs to the right, Y down, Z out of the face; the unit is about half the height of the head.

The points follow the contest's regions: 0-63 and 64-127 brows, 128-272 outline, 273-336 and 337-400 eyes, 401-463 and
464-526 sides of the nose, 527-586 middle line, 587-713 and 714-840 folds around eyes and cheeks, 841-872, 873-904,
905-936 and 937-968 lips, 969 and 970 pupils. The two of a pair mirror each other; the outline and the lips run from
left to right, so mirroring reverses them; the middle line stays.
"""

from dataclasses import dataclass, fields

import numpy as np

NUM_POINTS = 971

# Mean and standard deviation of each number that makes a face.
IDENTITY = {
    "width": (0.76, 0.035),
    "depth": (0.92, 0.03),
    "taper": (0.16, 0.05),  # how much narrower the jaw is
    "chin": (60.0, 2.5),
    "eye_distance": (20.5, 1.0),
    "eye_width": (10.0, 0.7),
    "eye_height": (5.6, 0.7),
    "eye_latitude": (-5.0, 1.0),
    "eye_slant": (0.0, 0.8),
    "brow_height": (10.5, 1.1),
    "brow_arch": (2.2, 0.9),
    "brow_thickness": (2.6, 0.6),
    "nose_length": (19.0, 1.4),
    "nose_width": (8.3, 0.9),
    "nose_height": (0.19, 0.03),
    "mouth_latitude": (34.5, 1.2),
    "mouth_width": (18.0, 1.6),
    "upper_lip": (3.6, 0.7),
    "lower_lip": (4.8, 0.8),
    "cheeks": (0.03, 0.012),
    "brow_ridge": (0.03, 0.012),
}
EXPRESSION = {
    "smile": (0.15, 0.5),
    "brow_raise": (0.0, 1.2),
    "gaze_x": (0.0, 1.6),
    "gaze_y": (0.0, 0.7),
}


@dataclass(frozen=True)
class Head:
    """The numbers that make one face with one expression: angles in degrees, lengths in halves of a head."""

    width: float
    depth: float
    taper: float
    chin: float
    eye_distance: float
    eye_width: float
    eye_height: float
    eye_latitude: float
    eye_slant: float
    brow_height: float
    brow_arch: float
    brow_thickness: float
    nose_length: float
    nose_width: float
    nose_height: float
    mouth_latitude: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    cheeks: float
    brow_ridge: float
    smile: float
    brow_raise: float
    gaze_x: float
    gaze_y: float
    mouth_open: float  # 0 … 1
    eyes_open: float  # 0 … 1.15
    hair: float  # how far the hair stands out
    hairline: float  # latitude at the forehead
    hair_length: float  # latitude at the sides

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Head":
        numbers = {
            name: mean + deviation * float(np.clip(rng.normal(), -2.2, 2.2))
            for name, (mean, deviation) in (IDENTITY | EXPRESSION).items()
        }
        return cls(
            **numbers,
            mouth_open=float(rng.random() < 0.35) * rng.uniform(0.15, 1.0),
            eyes_open=rng.uniform(0.0, 0.2) if rng.random() < 0.06 else rng.uniform(0.6, 1.15),
            hair=rng.uniform(0.03, 0.17),
            hairline=-95.0 if rng.random() < 0.08 else rng.uniform(-48, -30),
            hair_length=rng.uniform(-8, 8) if rng.random() < 0.6 else rng.uniform(35, 80),
        )

    def radius(self, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        """How far out the surface is in each direction, before the head is scaled to its width and depth."""
        tip = self.eye_latitude + 3 + self.nose_length
        away = np.abs(longitude)
        under_chin = np.clip((latitude - self._chin()) / (90 - self._chin()), 0, 1)
        radius = (1 + self._hair_cover(longitude, latitude) * self.hair) * (1 - 0.28 * under_chin)
        for lon, lat, spread_lon, spread_lat, height in (
            (0.0, tip - 17, 4.5, 7.0, 0.30 * self.nose_height),
            (0.0, tip - 9, 4.5, 6.5, 0.55 * self.nose_height),
            (0.0, tip - 1, 5.5, 5.0, 1.00 * self.nose_height),
            (0.8 * self.nose_width, tip + 0.5, 3.2, 3.2, 0.40 * self.nose_height),
            (0.0, self.mouth_latitude, 12.0, 6.0, 0.055),
            (0.0, self._chin() - 7, 13.0, 7.0, 0.07),
            (0.0, self.eye_latitude - 11, 26.0, 5.0, self.brow_ridge),
            (self.eye_distance, self.eye_latitude, 8.0, 6.0, -0.045),
            (self.eye_distance + 12, 16.0, 13.0, 11.0, self.cheeks),
            (93.0, 2.0, 5.0, 11.0, 0.17),
        ):
            radius = radius + height * bump(away - lon, spread_lon) * bump(latitude - lat, spread_lat)
        return radius

    def hair_edge(self, longitude: np.ndarray) -> np.ndarray:
        """The latitude above which there is hair."""
        side = soft_step((np.abs(longitude) - 62) / 5)
        return self.hairline * (1 - side) + side * (self.hair_length if self.hairline > -90 else 0)

    def _hair_cover(self, longitude, latitude):
        return soft_step((self.hair_edge(longitude) - latitude) / 2.5)

    def narrowing(self, y: np.ndarray) -> np.ndarray:
        """The factor of the width at a height: the jaw is narrower than the temples."""
        t = np.clip((y - 0.05) / 0.9, 0, 1)
        return 1 - self.taper * t * t * (3 - 2 * t)

    def surface(self, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        """(..., 3) points of the surface in the directions given."""
        lon, lat = np.radians(longitude), np.radians(latitude)
        radius = self.radius(longitude, latitude)
        y = radius * np.sin(lat)
        x = radius * np.cos(lat) * np.sin(lon) * self.width * self.narrowing(y)
        return np.stack((x, y, radius * np.cos(lat) * np.cos(lon) * self.depth), axis=-1)

    def eye(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Longitudes and latitudes of the right eye's upper or lower edge, 32 from outside in, corners in the upper."""
        along = _along(part == "upper")[::-1]
        opening = self.eye_height * self.eyes_open * (1 - along**2) ** 0.75
        latitude = self.eye_latitude - self.eye_slant * along
        return (
            self.eye_distance + self.eye_width * along,
            latitude + (-0.62 * opening if part == "upper" else 0.38 * opening),
        )

    def lip(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Longitudes and latitudes of one of the lips' four edges, 32 from left to right; corners with the upper."""
        along = _along(part.startswith("upper"))
        width = self.mouth_width * (1 + 0.16 * self.smile - 0.12 * self.mouth_open)
        inner = part in ("upper inner", "lower inner")
        corners = self.mouth_latitude - 2.6 * self.smile * along**2 + 1.2 * self.mouth_open
        arch = np.sqrt(np.clip(1 - along**2, 0, 1))
        gap = 7.5 * self.mouth_open * arch
        bow = 0.55 * np.exp(-((along / 0.16) ** 2)) - 0.35 * np.exp(-(((np.abs(along) - 0.3) / 0.18) ** 2))
        offset = {
            "upper outer": -self.upper_lip * (arch - bow) - 0.25 * gap,
            "upper inner": -0.25 * gap,
            "lower inner": 0.75 * gap,
            "lower outer": self.lower_lip * arch + 0.75 * gap,
        }[part]
        return along * width * (0.9 if inner else 1.0), corners + offset

    def brow(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Longitudes and latitudes of the right brow's upper or lower edge, 32 from its outer to its inner end."""
        along = np.linspace(0, 1, 32)
        longitude = self.eye_distance + 13.5 - 26 * along
        middle = (
            self.eye_latitude - self.brow_height - self.brow_raise - self.brow_arch * (np.sin(np.pi * along**0.8) - 0.5)
        )
        half = 0.5 * self.brow_thickness * np.sin(np.pi * np.clip(0.12 + 0.75 * along, 0, 1))
        return longitude, middle + (-half if part == "upper" else half)

    def _chin(self):
        return self.chin + 3.5 * self.mouth_open

    def _outline(self):
        along = np.linspace(-1, 1, 145)
        chin = self._chin()
        return 80 * along, chin - (chin + 12) * np.abs(along) ** 2.9

    def _nose_side(self):
        """63 from the root of the nose along its side, around its wing, to below the nostril."""
        along = np.linspace(0, 1, 63)
        tip = self.eye_latitude + 3 + self.nose_length
        wing = bump(along - 0.82, 0.13)
        longitude = 3.2 + 0.8 * along + (self.nose_width - 0.8) * wing - 1.4 * np.clip((along - 0.9) / 0.1, 0, 1)
        return longitude, self.eye_latitude + 1 + (tip + 3.2 - self.eye_latitude - 1) * np.clip(along / 0.93, 0, 1)

    def _middle(self):
        along = np.linspace(0, 1, 60)
        end = self.mouth_latitude - self.upper_lip - 1.5
        return np.zeros(60), self.eye_latitude - 9 + (end - self.eye_latitude + 9) * along

    def _folds(self):
        """127: the lid's crease and the lower lid's, each from outside in, and the fold from the nose to the mouth."""
        (lon, up), (low, down) = self.eye("upper"), self.eye("lower")
        crease, bag = (self.eye_distance + 1.25 * (edge - self.eye_distance) for edge in (lon, low))
        along = np.linspace(0, 1, 63)
        fold_lon = self.nose_width + 3 + (self.mouth_width + 4 + 1.5 * self.smile - self.nose_width - 3) * along**1.3
        start = self.eye_latitude + 3 + self.nose_length
        fold_lat = start + (self.mouth_latitude + 2 - start) * along
        return np.concatenate((crease, bag, fold_lon)), np.concatenate((up - 2.6, down + 4.0, fold_lat))

    def pupil(self) -> tuple[float, float]:
        """Longitude of the right pupil, and of the left one by its negative plus twice the gaze; latitude of both."""
        return self.eye_distance + self.gaze_x, self.eye_latitude + self.gaze_y - 0.12 * self.eye_height

    def points(self) -> np.ndarray:
        """(971, 3) points in the contest's order."""
        lon, lat = self._directions()
        return self.surface(lon, lat)

    def _directions(self):
        def closed(edge):
            (upper_lon, upper_lat), (lower_lon, lower_lat) = edge("upper"), edge("lower")
            return np.concatenate((upper_lon, lower_lon[::-1])), np.concatenate((upper_lat, lower_lat[::-1]))

        def pair(curve):
            return [(-curve[0], curve[1]), curve]

        pupil_lon, pupil_lat = self.pupil()
        parts = [
            *pair(closed(self.brow)),
            self._outline(),
            *pair(closed(self.eye)),
            *pair(self._nose_side()),
            self._middle(),
            *pair(self._folds()),
            *(self.lip(part) for part in ("upper outer", "upper inner", "lower inner", "lower outer")),
            (np.array([2 * self.gaze_x - pupil_lon, pupil_lon]), np.array([pupil_lat, pupil_lat])),
        ]
        longitude, latitude = (np.concatenate(side) for side in zip(*parts, strict=True))
        assert len(longitude) == NUM_POINTS
        return longitude, latitude


def _along(with_ends):
    """32 numbers from -1 to 1, or between them."""
    return np.linspace(-1, 1, 32) if with_ends else np.linspace(-1, 1, 34)[1:-1]


def soft_step(x: np.ndarray) -> np.ndarray:
    """From 0 far below zero to 1 far above."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def bump(distance: np.ndarray, spread: float) -> np.ndarray:
    """From 1 at no distance to 0 far away, by a normal density's shape."""
    return np.exp(-0.5 * (distance / spread) ** 2)


assert {field.name for field in fields(Head)} >= set(IDENTITY) | set(EXPRESSION)
