"""A run's weights are fitted where they can be; where not, the reason is kept, and what is advised works."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from augment import RegionOfInterest
from models import Prediction
from pipeline.errors import UserError
from pipeline.inference import member as module
from pipeline.inference.member import Member, print_not_fitted, weigh_views, why_not_calibrated
from pipeline.inference.tta import parse_views
from pipeline.recipe import Recipe
from pipeline.runs import Run
from pipeline.runtime import Runtime

SIDE, NUM_PHOTOS = 32, 40
REASON = "16 photos of 16 groups were held out"


class Blurred(torch.nn.Module):
    """Finds the mean shape, a little off by what the image has in a corner."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean_shape", torch.full((3, 2), 9.0))
        self.shift = torch.zeros(2)

    def forward(self, images):
        return self.mean_shape + images[:, :, :1, :2].reshape(len(images), 3, 2) / 255

    def predict(self, images):
        return Prediction(self.forward(images))


@pytest.fixture
def member(tmp_path, monkeypatch):
    """A run of which all photos are held out."""
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 256, (NUM_PHOTOS, SIDE, SIDE, 3), dtype=np.uint8)
    pack = SimpleNamespace(
        squares=squares,
        photo_to_image=np.tile(np.eye(3), (NUM_PHOTOS, 1, 1)),
        roi=RegionOfInterest(SIDE, 0, 0, SIDE),
        names=np.array([f"{number}.jpg" for number in range(NUM_PHOTOS)]),
        values=rng.normal(9, 1, (NUM_PHOTOS, 3, 2)),
    )
    data = SimpleNamespace(pack=pack, num_points=3, groups=np.arange(NUM_PHOTOS))
    monkeypatch.setattr(module, "held_out", lambda run, recipe: (data, np.arange(NUM_PHOTOS)))
    return member_of(tmp_path / "fold-0")


def member_of(folder):
    folder.mkdir()
    views = parse_views([[], [{"AffineAugmenter": {"scale": 1.2}}]], size=SIDE, mirroring=False, source="views")
    network, runtime = Blurred().eval(), Runtime(torch.device("cpu"), "fp32")
    weights, kind = np.array([0.5, 0.5]), "equal weights"
    return Member(Run(folder), Recipe(), network, "best", None, views, weights, kind, None, runtime, "digest")


def hold_out_too_few(monkeypatch):
    def refuse(run, recipe):
        raise UserError(REASON)

    monkeypatch.setattr(module, "held_out", refuse)


@pytest.mark.parametrize("weights", ["auto", "fit"])
def test_a_prediction_that_is_no_number_is_no_reason_for_equal_weights(member, weights):
    member.network.mean_shape[1, 0] = float("nan")
    with pytest.raises(UserError, match=r"point 1 of photo 0\.jpg"):
        weigh_views(member, weights, batch_size=16)
    assert not member.run.views.exists()


def test_where_nothing_can_be_fitted_weights_are_equal_and_the_reason_is_kept(member, monkeypatch):
    hold_out_too_few(monkeypatch)
    found = weigh_views(member, "auto", batch_size=16)
    assert (found.kind, found.calibration, found.not_fitted) == ("equal weights", None, REASON)
    with pytest.raises(UserError, match=REASON):
        weigh_views(member, "fit", batch_size=16)


def test_what_is_advised_for_a_calibration_works_where_it_is_advised(member, monkeypatch, capsys):
    equal = weigh_views(member, "equal", batch_size=16)
    assert equal.calibration is None
    assert "--weights fit" in why_not_calibrated([equal])
    assert weigh_views(member, "fit", batch_size=16).calibration is not None
    assert str(member.run.folder) in capsys.readouterr().out  # the table says of which run it is
    hold_out_too_few(monkeypatch)
    for weights in ("equal", "auto"):
        said = why_not_calibrated([weigh_views(member_of(member.run.folder / weights), weights, batch_size=16)])
        assert REASON in said
        assert "--weights" not in said


def test_a_reason_that_runs_share_is_said_once(member, monkeypatch, capsys):
    hold_out_too_few(monkeypatch)
    some = [weigh_views(member_of(member.run.folder / name), "auto", batch_size=16) for name in "abc"]
    print_not_fitted(some)
    assert capsys.readouterr().out == f"weights     equal, since none can be fitted: {REASON}\n"
    print_not_fitted([*some[:2], member])
    assert capsys.readouterr().out.endswith(f"{REASON} (a, b)\n")
    print_not_fitted([member])
    assert not capsys.readouterr().out
