"""Trainings in this folder are of a small network and draw nothing: what they hold depends on neither."""

from unittest import mock

import pytest
from torchvision.models import mobilenetv3

from pipeline.training.pictures import Curves, WorstPhotos


@pytest.fixture(autouse=True, scope="module")
def without_pictures():
    """Drawing and packing pictures of 971 points takes longer than all else here."""
    with (
        mock.patch.object(WorstPhotos, "draw", return_value=None),
        mock.patch.object(WorstPhotos, "draw_point_errors", return_value=None),
        mock.patch.object(Curves, "draw", return_value=None),
    ):
        yield


@pytest.fixture(autouse=True, scope="module")
def small_network():
    """mobilenet_v3_small with three of its eleven blocks and narrow at its end: all kinds of its layers are left, norms
    with statistics and dropout too, and its steps and checkpoints take a quarter of the time."""
    whole = mobilenetv3._mobilenet_v3

    def build(blocks, _, *rest, **named):
        return whole(blocks[:3], 128, *rest, **named)

    with mock.patch.object(mobilenetv3, "_mobilenet_v3", build):
        yield
