"""Views are replayed, batched and brought home exactly; what makes no sense as a view is refused."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from augment import RegionOfInterest, transform_points
from models import Prediction
from pipeline.data.pack import Squares
from pipeline.data.source import HostSource
from pipeline.errors import UserError
from pipeline.inference.equivariance import equivariance
from pipeline.inference.merge import merge, total_variance
from pipeline.inference.predict import predict_points, predict_views
from pipeline.inference.tta import parse_views, read_views
from pipeline.recipe import VIEWS
from pipeline.runtime import Runtime

SIDE = 48
MIRROR = {"MirrorAugmenter": {"probability": 1}}
TURN = {"AffineAugmenter": {"rotation": 20}}
ZOOM = {"CropAugmenter": {"share": 0.5, "x": 0.5, "y": 0.5}}
PARTNERS = np.array([1, 0, 2])
CPU = {"runtime": Runtime(torch.device("cpu"), "fp32")}


def views_of(*entries, mirroring=True):
    return parse_views(list(entries), size=SIDE, mirroring=mirroring, source="views")


class Follower(torch.nn.Module):
    """A perfectly equivariant network: it finds the left point red, the right one green and the middle one blue.

    Seen through a mirror, what was the red spot on the left is a red spot on the right; a face's left eye would look
    like a right one, so there the two colours have changed their meaning, which `mirrored` says.
    """

    def __init__(self, shift=(0.0, 0.0)):
        super().__init__()
        self.register_buffer("mean_shape", torch.zeros(3, 2))
        self.shift = torch.tensor(shift)
        self.mirrored = False

    def forward(self, images):
        weights = (images.double() - 60).clip(min=0)
        y, x = (torch.arange(n, dtype=torch.float64) for n in images.shape[-2:])
        total = weights.sum((2, 3)).clip(min=1e-9)
        found = torch.stack(((weights.sum(2) * x).sum(2) / total, (weights.sum(3) * y).sum(2) / total), dim=2)
        return (found[:, [1, 0, 2]] if self.mirrored else found).float()

    def predict(self, images):
        """Each point may be off by its share of the distance between the left and the right one."""
        points = self(images)
        between = (points[:, 0] - points[:, 1]).norm(dim=1, keepdim=True)
        shares = torch.tensor([0.2, 0.1, 0.05])
        return Prediction(points, (between * (shares[[1, 0, 2]] if self.mirrored else shares)).log())


def spots(points, side):
    """(N, side, side, 3) images with a red, a green and a blue spot at (N, 3, 2) points."""
    y, x = np.mgrid[:side, :side]
    distance = (x[..., None] - points[:, None, None, :, 0]) ** 2 + (y[..., None] - points[:, None, None, :, 1]) ** 2
    return np.rint(255 * np.exp(-distance / (2 * 3.0**2))).astype(np.uint8)


@pytest.fixture(
    params=[RegionOfInterest(SIDE, 0, 0, SIDE), RegionOfInterest(80, 20, 9, SIDE)], ids=["the whole square", "a ROI"]
)
def pack(request):
    """Seven photos with three spots each, in pixels of photos three times as large."""
    roi = request.param
    rng = np.random.default_rng(0)
    points = np.array([(16, 20), (32, 20), (24, 31)]) + rng.uniform(-3, 3, (7, 3, 2))
    photo_to_image = np.tile(np.diag([1 / 3, 1 / 3, 1.0]), (7, 1, 1))
    squares = spots(points + (roi.left, roi.top), roi.square)
    return Squares(squares, photo_to_image, roi, np.array(list("abcdefg"))), transform_points(
        np.linalg.inv(photo_to_image), points
    )


def predicted(pack, views, *, batch_size=3, shift=(0.0, 0.0)):
    """(V, N, K, 2) points, (V, N, K) counts and (V, N, K) variances of the follower, which is told when it looks into
    a mirror, and which has learned from labels that lie aside by a shift."""
    network = Follower(shift).eval()
    found = []
    for view in views:
        network.mirrored = bool(view.of(1, SIDE).mirrored.all())
        blocks = predict_views(
            network, pack, np.arange(len(pack.squares)), [view], PARTNERS, batch_size=batch_size, **CPU
        )
        found.append([(block.points[0], block.counts[0], block.variances[0]) for block in blocks])
    return tuple(np.stack([np.concatenate([block[i] for block in one]) for one in found]) for i in range(3))


def test_views_of_an_equivariant_network_have_no_bias(pack):
    squares, truth = pack
    views = views_of([], [MIRROR], [TURN], [MIRROR, TURN], [{"AffineAugmenter": {"scale": 1.2, "shift_x": 0.1}}])
    points, counts, _ = predicted(squares, views)
    assert counts.all()
    # In pixels of photos three times as large: a flip that is wrong by a pixel would be wrong by three.
    assert np.abs(points - truth).max() < 0.3
    assert np.abs((points - truth).mean(axis=(1, 2))).max() < 0.06
    assert np.abs((points - points[0]).mean(axis=(1, 2))).max() < 0.06


def test_where_no_point_has_another_partner_no_left_and_right_are_compared():
    points = np.zeros((2, 3, 4, 2))
    own = np.arange(4)
    with warnings.catch_warnings(action="error"):
        rows = equivariance(["as it is", "mirrored"], points, np.broadcast_to(np.eye(3), (3, 3, 3)), own)
    assert all("confused" not in row for row in rows)


def test_labels_that_lie_aside_of_what_they_name_are_predicted_there_through_every_view(pack):
    squares, truth = pack
    views = views_of([], [MIRROR], [TURN], [MIRROR, TURN], [{"AffineAugmenter": {"scale": 1.2, "shift_x": 0.1}}])
    points, _, _ = predicted(squares, views, shift=(1.5, -0.5))
    labels = truth + 3 * np.array((1.5, -0.5))  # in pixels of photos that are three times as large
    assert np.abs((points - labels).mean(axis=(1, 2))).max() < 0.06


def test_the_scale_that_a_network_tells_comes_home_through_every_view_as_points_do(pack):
    squares, truth = pack
    views = views_of([], [MIRROR], [TURN], [MIRROR, TURN], [{"AffineAugmenter": {"scale": 1.2, "shift_x": 0.1}}])
    variances = predicted(squares, views)[2]
    between = np.linalg.norm(truth[:, 0] - truth[:, 1], axis=1)  # in pixels of the photos
    expected = (between[:, None] * (0.2, 0.1, 0.05)) ** 2
    np.testing.assert_allclose(variances, np.broadcast_to(expected, variances.shape), rtol=0.03)


def test_the_variance_of_views_is_that_of_their_mixture():
    rng = np.random.default_rng(0)
    points, variances, weights = (
        rng.uniform(0, 9, (3, 2, 4, 2)),
        rng.uniform(0, 9, (3, 2, 4)),
        np.array([0.2, 0.3, 0.5]),
    )
    drawn = rng.choice(3, 200_000, p=weights)
    samples = points[drawn] + rng.normal(size=(len(drawn), 2, 4, 2)) * np.sqrt(variances[drawn])[..., None]
    found = total_variance(points, variances, weights)
    np.testing.assert_allclose(found, samples.var(axis=0).mean(axis=-1), rtol=0.02)


def test_equal_views_give_the_single_prediction_to_the_bit(pack):
    squares, _ = pack
    network = Follower().eval()
    samples = np.arange(7)
    single = predict_points(network, squares, samples, batch_size=3, **CPU)
    blocks = predict_views(network, squares, samples, views_of([], [], []), None, batch_size=3, **CPU)
    merged = np.concatenate([merge(block.points, np.ones(3), block.counts) for block in blocks])
    np.testing.assert_array_equal(merged.astype(np.float32), single)


def test_photos_are_taken_once_for_all_views(pack):
    squares, _ = pack
    taken = []

    class Counting(HostSource):
        def take(self, samples):
            taken.extend(samples.tolist())
            return super().take(samples)

    source = Counting(squares.squares, torch.device("cpu"))
    views = views_of([], [TURN], [ZOOM])
    list(predict_views(Follower().eval(), squares, np.arange(7), views, None, source=source, batch_size=3, **CPU))
    assert sorted(taken) == list(range(7))


def test_neither_the_order_of_photos_nor_the_batch_changes_a_prediction(pack):
    squares, _ = pack
    order = np.random.default_rng(1).permutation(7)
    one = predict_points(Follower().eval(), squares, np.arange(7), batch_size=2, **CPU)
    other = predict_points(Follower().eval(), squares, order, batch_size=7, **CPU)
    np.testing.assert_allclose(other, one[order], atol=1e-4)


@pytest.mark.parametrize("room", [1, 2, 7])
def test_where_memory_runs_out_fewer_photos_are_shown_at_once_and_predictions_stay(pack, room):
    """A validation could not be told a smaller batch, since that of the training is another."""
    squares, _ = pack
    views = views_of([], [TURN])
    shown = []

    class Large(Follower):
        def predict(self, images):
            shown.append(len(images))
            if len(images) > room:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().predict(images)

    expected = list(predict_views(Follower().eval(), squares, np.arange(7), views, None, batch_size=5, **CPU))
    found = list(predict_views(Large().eval(), squares, np.arange(7), views, None, batch_size=5, **CPU))
    for one, other in zip(expected, found, strict=True):
        assert one.block == other.block
        np.testing.assert_allclose(other.points, one.points, atol=1e-4)
        np.testing.assert_allclose(other.variances, one.variances, rtol=1e-4)
    assert sum(count > room for count in shown) == {1: 2, 2: 1, 7: 0}[room]  # it is learned once
    if room == 7:
        assert shown == [5, 5, 2, 2]


def test_where_one_photo_is_too_much_it_is_said_and_other_errors_are_not_tried_again(pack):
    squares, _ = pack
    for error, count in ((torch.OutOfMemoryError("CUDA out of memory."), 3), (RuntimeError("shapes do not fit"), 1)):
        shown = []

        class Broken(Follower):
            def predict(self, images, shown=shown, error=error):
                shown.append(len(images))
                raise error

        with pytest.raises(RuntimeError, match=str(error)):
            predict_points(Broken().eval(), squares, np.arange(7), batch_size=4, **CPU)
        assert len(shown) == count


def test_the_order_of_views_changes_nothing():
    entries = [[TURN], [], [MIRROR, TURN], [MIRROR]]
    assert views_of(*entries) == views_of(*entries[::-1])
    assert views_of(*entries)[0].plain == []


def test_a_point_that_a_view_has_cropped_out_does_not_count_in_it(pack):
    """Of a network that says that one point lies to the left of what it is shown."""
    squares, _ = pack
    network = Follower().eval()
    said = torch.tensor([(-20.0, 20.0), (20.0, 20.0), (4.0, 30.0)])
    network.forward = lambda images: said.expand(len(images), 3, 2)
    views = views_of([], [{"CropAugmenter": {"share": 0.5, "x": 1, "y": 0.5}}])
    (found,) = predict_views(network, squares, np.arange(7), views, None, **CPU)
    assert found.counts[0].all()  # as it is, the first lies outside the photo itself
    assert (found.counts[1] == [False, True, True]).all()
    merged = merge(found.points, np.ones(2), found.counts)
    np.testing.assert_array_equal(merged[:, 0], found.points[0, :, 0])
    assert (np.abs(merged - found.points[0])[:, 1:].max(axis=2) > 1).all()


def test_what_lies_outside_the_photo_itself_counts_everywhere(pack):
    squares, _ = pack
    network = Follower().eval()
    network.forward = lambda images: torch.full((len(images), 3, 2), -5.0)
    views = views_of([], [{"AffineAugmenter": {"scale": 1.1}}])
    for block in predict_views(network, squares, np.arange(7), views, None, **CPU):
        assert block.counts.all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2e38])  # the last is none any more in pixels of the photo
def test_a_prediction_that_is_no_number_is_an_error_with_the_photos_name(pack, value):
    squares, _ = pack
    network = Follower().eval()
    found = network.forward

    def spoiled(images):
        points = found(images)
        points[1, 2, 1] = value  # the second photo of a batch of four
        return points

    network.forward = spoiled
    with pytest.raises(UserError, match=r"point 2 of photo f .*, and 1 of 3 photos"):
        predict_points(network, squares, np.array([4, 5, 6]), batch_size=4, **CPU)
    with pytest.raises(UserError, match="point 2 of photo b "):
        list(predict_views(network, squares, np.arange(7), views_of([], [TURN]), None, batch_size=4, **CPU))


def test_mirrored_views_are_left_out_without_flip_indices():
    assert [view.name for view in views_of([], [MIRROR], [TURN], mirroring=False)] == ["as it is", "Affine rotation 20"]
    with pytest.raises(UserError, match="flip indices"):
        views_of([MIRROR], mirroring=False)


def test_the_views_of_the_default_recipe_are_views():
    views = parse_views(VIEWS, size=SIDE, mirroring=True, source="views")
    assert len(views) == len(VIEWS)
    assert sum(view.of(1, SIDE).mirrored.all() for view in views) == len(views) / 2
    assert all(not view.of(5, SIDE).varies for view in views)


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ([], "list of views"),
        ({"augment": []}, "list of views"),
        ([[], 3], "view 1"),
        ([[{"AffineAugmenter": {"rotation": [-5, 5]}}]], "view 0 is random"),
        ([[{"MirrorAugmenter": {}}]], "view 0 is random"),
        ([[{"AffineAugmenter": {"rotation": 30, "probability": 1e-6}}]], "view 0 is random"),
        ([[{"AffineAugmenter": {"angle": 5}}]], "view 0.*angle"),
        ([{"augment": [], "weight": -1}], "view 0.*weight"),
        ([{"augment": [], "weight": "2"}], "view 0.*weight"),
        ([{"augment": [], "weight": 10**400}], "view 0.*weight"),
        ([{"augment": [], 1: 2, "x": 3}], "view 0 has no '1'"),
        ([[{"AffineAugmenter": {"rotation": 10**400}}]], "view 0.*rotation"),
    ],
)
def test_what_is_no_view_is_refused_with_its_place(entries, named):
    with pytest.raises(UserError, match=f"views.*{named}"):
        parse_views(entries, size=SIDE, mirroring=True, source="views")


def test_a_file_of_views_is_read_or_refused(tmp_path):
    path = tmp_path / "views.json"
    path.write_text(json.dumps([[], {"augment": [MIRROR], "weight": 2}]))
    assert [view.weight for view in parse_views(read_views(path), size=SIDE, mirroring=True, source="")] == [1.0, 2.0]
    for text in ("[[", 100_000 * "["):
        path.write_text(text)
        with pytest.raises(UserError, match=r"views\.json: not JSON"):
            read_views(path)
    with pytest.raises(UserError, match="no such file"):
        read_views(tmp_path / "none.json")


class Resident:
    """All squares as one tensor on the device, as a GPU with room for them would hold them."""

    def __init__(self, squares):
        self.squares = torch.from_numpy(squares).permute(0, 3, 1, 2)

    def take(self, samples):
        return self.squares[torch.from_numpy(samples)]


def test_wherever_the_squares_lie_predictions_are_the_same(pack):
    pack, _ = pack
    samples, network = np.array([5, 0, 3, 6]), Follower().eval()
    expected = predict_points(network, pack, samples, batch_size=3, **CPU)
    source = Resident(pack.squares)
    nowhere = replace(pack, squares=np.zeros_like(pack.squares))
    found = predict_points(network, nowhere, samples, source=source, batch_size=3, **CPU)
    np.testing.assert_array_equal(found, expected)
