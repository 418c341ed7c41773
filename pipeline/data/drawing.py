"""Photos with their points drawn on, side by side: what is easier to see than to read.

Truth and prediction have two colours of the palette of Okabe and Ito (2008), which differ in luminance and along the
axis from blue to yellow, so that the colour-blind can tell them apart too; each gallery has a legend.
"""

from pathlib import Path

import cv2
import numpy as np

from augment import transform_points
from pipeline.data.pack import Pack
from pipeline.files import replacing

Colour = tuple[int, int, int]

TRUTH = (0, 114, 178)
PREDICTION = (240, 228, 66)
POINTS = PREDICTION  # if no other points are beside them
LINE = (255, 255, 255)
TEXT = (235, 235, 235)
PAPER = 24  # of three equal values

TILE = 256  # pixels, the side of a photo in a gallery
GAP = 4  # pixels between photos
TEXT_LINE = 20  # pixels, the height of a line of text
COVERED = 0.012  # share of a picture that its points cover at most
FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.47)  # and its size
SMALLEST = 0.45  # pixels, the radius of a point
JPEG_QUALITY = 85


def gallery(
    pack: Pack,
    samples: np.ndarray,
    predicted: np.ndarray,
    truth: np.ndarray | None,
    *,
    title: str,
    captions: list[str],
    columns: int = 4,
) -> np.ndarray:
    """A picture with a title and a legend, and below them the photos at `samples`, each with its caption and its name.

    predicted, truth: (N, K, 2) in pixels of the photos, NaN where not known.
    """
    photo_to_image = pack.photo_to_image[samples]
    predicted = transform_points(photo_to_image, predicted)
    truth = np.full_like(predicted, np.nan) if truth is None else transform_points(photo_to_image, truth)
    tiles = []
    for i, image in enumerate(pack.shown(samples)):
        photo = compared(resized(image, TILE), *(scaled(one[i], TILE / len(image)) for one in (predicted, truth)))
        lines = [captions[i], str(pack.names[samples[i]])]
        tiles.append(np.vstack([photo, *(text_line(line, TILE) for line in lines)]))
    there = {"truth": (TRUTH, truth), "prediction": (PREDICTION, predicted)}
    legend = {word: colour for word, (colour, points) in there.items() if np.isfinite(points).any()}
    photos = grid(tiles, columns)
    return np.vstack([heading(title, legend, photos.shape[1]), photos])


def compared(image: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A copy of a (H, W, 3) image with (K, 2) predicted and true points of its pixels, and a line from each true point
    to its prediction.
    """
    image = draw_lines(image, truth, predicted)
    return draw_points(draw_points(image, truth, TRUTH), predicted, PREDICTION)


def draw_points(image: np.ndarray, points: np.ndarray, colour: Colour) -> np.ndarray:
    """A copy of a (H, W, 3) RGB image with (K, 2) points of its pixels drawn on it, exact to a sixteenth of a pixel."""
    dots = image.copy()
    radius, opacity = point_size(len(points), image.shape[:2])
    for point in _sixteenths(points[np.isfinite(points).all(axis=1)]):
        cv2.circle(dots, point, round(16 * radius), colour, cv2.FILLED, cv2.LINE_AA, shift=4)
    return cv2.addWeighted(dots, opacity, image, 1 - opacity, 0)


def point_size(num_points: int, size: tuple[int, int]) -> tuple[float, float]:
    """Radius in pixels and opacity, such that a few points can be seen, and many leave the photo visible."""
    height, width = size
    even = (COVERED * height * width / (np.pi * max(num_points, 1))) ** 0.5
    radius = np.clip(even, SMALLEST, max(SMALLEST, min(height, width) / 64))
    return float(radius), float(np.clip(even / SMALLEST, 0.6, 1))


def draw_lines(image: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A copy of an image with lines from (K, 2) points to others, where both are known and differ.

    The more lines there are, the more transparent they are, since many in parallel veil the photo.
    """
    lines = image.copy()
    differ = np.isfinite(starts + ends).all(axis=1) & (starts != ends).any(axis=1)
    for start, end in zip(_sixteenths(starts[differ]), _sixteenths(ends[differ]), strict=True):
        cv2.line(lines, start, end, LINE, 1, cv2.LINE_AA, shift=4)
    opacity = min(0.7, 8 / max(len(starts), 1) ** 0.5)
    return cv2.addWeighted(lines, opacity, image, 1 - opacity, 0)


def _sixteenths(points):
    """Points as OpenCV's `shift=4` wants them, far ones limited to what its integers hold."""
    return np.clip(np.rint(points * 16), -(2**20), 2**20).astype(int).tolist()


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """A square image with another side."""
    kind = cv2.INTER_AREA if side < len(image) else cv2.INTER_CUBIC
    return cv2.resize(image, (side, side), interpolation=kind)


def scaled(points: np.ndarray, scale: float) -> np.ndarray:
    """Points of an image in pixels of the image `scale` times as large."""
    return (points + 0.5) * scale - 0.5


def grid(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    """Tiles of one size in rows, a little apart."""
    tiles = [np.pad(tile, ((0, GAP), (0, GAP), (0, 0)), constant_values=PAPER) for tile in tiles]
    tiles += [np.full_like(tiles[0], PAPER)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def heading(title: str, legend: dict[str, Colour], width: int) -> np.ndarray:
    """A line with a title, and to its right the words of the legend, each after a dot of its colour."""
    band = np.full((TEXT_LINE + 12, width, 3), PAPER, np.uint8)
    middle, end = len(band) // 2, width - 10
    for word, colour in reversed(legend.items()):
        start = end - text_width(word)
        write(band, word, (start, middle + 5))
        cv2.circle(band, (start - 12, middle), 6, colour, cv2.FILLED, cv2.LINE_AA)
        end = start - 34
    write(band, shortened(title, end - 6), (6, middle + 5))
    return band


def text_line(text: str, width: int) -> np.ndarray:
    """A line of text, shortened in its middle if it is longer."""
    band = np.full((TEXT_LINE, width, 3), PAPER, np.uint8)
    write(band, shortened(text, width - 12), (6, TEXT_LINE - 6))
    return band


def shortened(text: str, width: int) -> str:
    """The text, without its middle if it would be wider than `width` pixels: names differ at their ends."""
    kept = len(text)
    short = text
    while kept > 2 and text_width(short) > width:
        kept -= 1
        short = text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]
    return short


def text_width(text: str) -> int:
    return cv2.getTextSize(text, *FONT, 1)[0][0]


def write(image: np.ndarray, text: str, corner: tuple[int, int], *, colour: Colour = TEXT):
    """Writes a text into the image, from the left end of its base line."""
    cv2.putText(image, text, corner, *FONT, colour, 1, cv2.LINE_AA)


def write_over(image: np.ndarray, text: str):
    """Writes a text at the foot of a photo, with an outline, since the photo may have any colour."""
    x, y = 5, len(image) - 6
    for right, down in np.ndindex(3, 3):  # a thicker letter would be wider
        write(image, text, (x + right - 1, y + down - 1), colour=(0, 0, 0))
    write(image, text, (x, y), colour=(255, 255, 255))


def write_picture(path: Path, picture: np.ndarray):
    """Writes an RGB picture in the format that the name ends with. Raises OSError if the file cannot be written."""
    with replacing(path) as file:
        file.write(encoded(picture, path.suffix))


def encoded(picture: np.ndarray, suffix: str, *, quality: int = JPEG_QUALITY) -> bytes:
    """An RGB picture in the format of a name's suffix; quality: of a JPEG."""
    parameters = (cv2.IMWRITE_JPEG_QUALITY, quality) if suffix == ".jpg" else ()
    done, content = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), parameters)
    assert done
    return content.tobytes()
