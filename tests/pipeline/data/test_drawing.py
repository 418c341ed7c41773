"""Pictures show what their captions and legends say, to the colour-blind too, and points hide no face."""

import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.drawing import (
    PREDICTION,
    TILE,
    TRUTH,
    compared,
    draw_lines,
    draw_points,
    gallery,
    shortened,
    text_width,
    write_picture,
)
from pipeline.inference import ensemble
from pipeline.inference.ensemble import Ensemble
from pipeline.training import pictures

GREY = np.full((200, 200, 3), 90, np.uint8)
# Machado, Oliveira and Fernandes (2009), severity 1, of linear RGB.
DICHROMATS = {
    "protanopia": [(0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)],
    "deuteranopia": [(0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)],
}


def as_linear(colour):
    shares = np.array(colour) / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def luminance(colour):
    return as_linear(colour) @ (0.2126, 0.7152, 0.0722)


def lab_distance(one, other, matrix):
    seen = [np.clip(np.array(matrix) @ as_linear(colour), 0, 1) for colour in (one, other)]
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    roots = [np.cbrt((xyz @ colour) / xyz.sum(axis=1)) for colour in seen]
    labs = [np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)]) for x, y, z in roots]
    return np.linalg.norm(labs[0] - labs[1])


def test_truth_and_prediction_differ_in_luminance_and_to_the_colour_blind():
    darker, brighter = sorted(map(luminance, (TRUTH, PREDICTION)))
    assert (brighter + 0.05) / (darker + 0.05) > 3  # as WCAG asks of graphics
    for matrix in DICHROMATS.values():
        assert lab_distance(TRUTH, PREDICTION, matrix) > 60
    assert (
        lab_distance((100, 160, 60), (200, 120, 60), DICHROMATS["deuteranopia"]) < 30
    )  # green and red of one luminance


class Photos:
    """As much of a pack as pictures ask for: grey squares, in whose pixels the points are."""

    def __init__(self, points):
        self.values = points
        self.photo_to_image = np.tile(np.eye(3), (len(points), 1, 1))
        self.names = np.array([f"{index}.jpg" for index in range(len(points))])
        self.roi = SimpleNamespace(size=64)

    def __len__(self):
        return len(self.values)

    def shown(self, samples):
        return np.full((len(samples), 64, 64, 3), 90, np.uint8)


def has(picture, colour):
    return bool((picture == colour).all(axis=2).any())


@pytest.mark.parametrize("with_truth", [True, False])
def test_the_legend_has_the_colours_that_are_drawn_and_no_other(with_truth):
    points = np.array([[[20.0, 20]], [[30, 40]]])
    truth = points if with_truth else None
    picture = gallery(Photos(points), np.arange(2), points + 8, truth, title="", captions=["", ""])
    for part in np.split(picture, [len(picture) - TILE]):  # the legend is above the photos
        assert has(part, PREDICTION)
        assert has(part, TRUTH) == with_truth


@given(seed=st.integers(0, 999), num_points=st.integers(0, 40))
def test_a_line_leads_from_the_truth_to_the_prediction_where_both_are_known_and_differ(seed, num_points):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.uniform(10, 190, (2, num_points, 2))
    kind = rng.integers(0, 4, num_points)
    truth[kind == 0], predicted[kind == 1] = np.nan, np.nan
    predicted[kind == 2] = truth[kind == 2]
    both = kind == 3
    changed = (draw_lines(GREY, truth, predicted) != GREY).any(axis=2)
    expected = np.zeros((200, 200), np.uint8)
    for start, end in zip(truth[both], predicted[both], strict=True):
        middle = np.rint((start + end) / 2).astype(int)
        assert changed[middle[1] - 1 : middle[1] + 2, middle[0] - 1 : middle[0] + 2].any()
        cv2.line(expected, np.rint(start).astype(int).tolist(), np.rint(end).astype(int).tolist(), 1, 5)
    assert not changed[expected == 0].any()


def test_a_prediction_that_is_the_truth_is_drawn_as_points_alone():
    points = np.random.default_rng(0).uniform(0, 200, (50, 2))
    alone = draw_points(draw_points(GREY, points, TRUTH), points, PREDICTION)
    np.testing.assert_array_equal(compared(GREY, points, points), alone)


@given(x=st.floats(20, 180), y=st.floats(20, 180))
def test_a_point_is_drawn_where_it_is(x, y):
    changed = draw_points(GREY, np.array([[x, y], [np.nan, 3], [1e9, -1e9]]), PREDICTION)[..., 0].astype(float) - 90
    rows, columns = np.indices(changed.shape)
    assert [(changed * columns).sum() / changed.sum(), (changed * rows).sum() / changed.sum()] == pytest.approx(
        [x, y], abs=0.15
    )


@pytest.mark.parametrize("side", [128, TILE, 1000])
def test_few_points_can_be_seen_and_many_leave_the_photo_to_be_seen(side):
    image = np.full((side, side, 3), 90, np.uint8)
    rng = np.random.default_rng(0)
    seen = []
    for num_points in (1, 5, 68, 971):
        picture = draw_points(image, rng.uniform(0.1 * side, 0.9 * side, (num_points, 2)), PREDICTION)
        changed = np.abs(picture.astype(float) - image)[..., 1].sum() / (PREDICTION[1] - 90)
        seen.append(changed / num_points)
        assert changed / side**2 < 0.12
    assert sorted(seen, reverse=True) == seen
    assert seen[1] > 0.0004 * side**2


@given(text=st.text("abcXYZ019_-.é漢Ж", min_size=20, max_size=80))
def test_a_name_that_is_too_long_keeps_both_ends_and_fits(text):
    short = shortened(text, 200)
    assert text_width(short) <= 200
    if text_width(text) <= 200:
        assert short == text
    else:
        head, tail = short.split("…")
        assert text.startswith(head)
        assert text.endswith(tail)
        assert len(tail) <= len(head) <= len(tail) + 1
        assert text_width(short) > 170  # no more is cut than has to be


def captured(monkeypatch, module):
    """The galleries that a module draws from now on: their samples and captions."""
    drawn = []
    monkeypatch.setattr(module, "gallery", lambda pack, samples, *_, captions, **__: drawn.append((samples, captions)))
    monkeypatch.setattr(module, "write_picture", lambda path, picture: None)
    return drawn


def test_the_doubtful_photos_are_in_the_order_of_their_captions(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    drawn = captured(monkeypatch, ensemble)
    deviations = rng.uniform(1, 9, (30, 4))
    deviations[3] = np.nan  # a photo that is broken
    rows = np.delete(np.arange(30), 3)
    pack = Photos(np.zeros((31, 4, 2)))
    pack.photo_to_image[:, :2, :2] *= rng.uniform(0.1, 1, 31)[:, None, None]
    places = np.delete(np.arange(31), [0, 9])  # the pack has two photos that another run does not see
    test = SimpleNamespace(packs=[pack], deviations=deviations, rows=rows, samples=places[None])
    drawing = SimpleNamespace(calibration=None, predict_all=lambda packs, samples: None, folder=tmp_path)
    Ensemble.draw(drawing, test)
    (_, captions), (samples, doubtful) = drawn
    assert len(captions) == len(doubtful) == ensemble.NUM_SHOWN
    said = [tuple(map(float, re.fullmatch(r"±(.+)% of the side, (.+) px", line).groups())) for line in doubtful]
    shares = [share for share, _ in said]
    assert shares == sorted(shares, reverse=True)
    pixels = deviations[rows].mean(axis=1)
    np.testing.assert_allclose([pixels for _, pixels in said], pixels[np.searchsorted(places, samples)], atol=0.006)
    every = pixels * pack.photo_to_image[places, 0, 0] / pack.roi.size
    np.testing.assert_allclose(shares, 100 * np.sort(every)[::-1][: len(shares)], atol=0.006)
    assert (np.diff([pixels for _, pixels in said]) > 0).any()  # the order is another than that of the pixels


def test_the_worst_photos_are_in_the_order_of_their_captions(monkeypatch):
    drawn = captured(monkeypatch, pictures)
    monkeypatch.setattr(pictures, "mse_of_photos", lambda *_: errors)
    errors = np.random.default_rng(0).uniform(0, 99, 20)
    board = SimpleNamespace(add_picture=lambda *_, **__: None)
    data = SimpleNamespace(pack=Photos(np.zeros((40, 4, 2))))
    trainer = SimpleNamespace(data=data, state=SimpleNamespace(step=0))
    worst = pictures.WorstPhotos(SimpleNamespace(picture=lambda name: name), board)
    worst.draw(trainer, "train", np.arange(20, 40), np.zeros((20, 4, 2)))
    ((samples, captions),) = drawn
    said = np.array([re.fullmatch(r"MSE (.+) px², RMS (.+) px", line).groups() for line in captions], float)
    np.testing.assert_allclose(said[:, 0], np.sort(errors)[::-1][:8], atol=0.006)
    np.testing.assert_allclose(said[:, 0], errors[samples - 20], atol=0.006)
    np.testing.assert_allclose(said[:, 1] ** 2, said[:, 0], rtol=0.01)


def test_a_picture_is_written_as_it_is_or_the_error_names_the_file(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    write_picture(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], picture)
    with pytest.raises(FileNotFoundError) as error:
        write_picture(tmp_path / "no folder/a.png", picture)
    assert "no folder" in str(error.value.filename)
