"""Albumentations' transforms as augmenters: what replays, what becomes a matrix, what is refused."""

import numpy as np
import pytest
import torch

A = pytest.importorskip("albumentations")

from augment import AlbumentationsAugmenter, Chain, Key, MirrorAugmenter, RandomAugmenter, Transform, parse_augmenters  # noqa: E402
from augment.borrowed import check_sizes  # noqa: E402
from tests.augment.strategies import GEOMETRIC, PERMUTATION, SIZE, drawn_by  # noqa: E402
from tests.augment.test_agreement import blob, centroid  # noqa: E402

PIXELS = [
    A.RandomBrightnessContrast(p=1),
    A.GaussNoise(p=1),
    A.ImageCompression(p=1),
    A.MotionBlur(p=1),
    A.HueSaturationValue(p=1),
    A.CLAHE(p=1),
    A.CoarseDropout(p=1),
    A.ToGray(p=0.5),
    A.OneOf([A.GaussianBlur(p=1), A.RandomGamma(p=1)], p=0.8),
]
MATRICES = [
    A.HorizontalFlip(p=0.5),
    A.Affine(rotate=(-40, 40), scale=(0.8, 1.2), shear=(-9, 9), p=1),
    A.Perspective(p=1),
    A.Rotate(limit=30, p=1),
    A.RandomResizedCrop(size=(48, 64), scale=(0.6, 1), p=1),
    A.Transpose(p=1),
    A.SafeRotate(p=1),
    A.OneOf([A.VerticalFlip(p=1), A.Affine(shear=9, p=1)], p=1),
]


def images_of(seed, size=SIZE):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (4, 3, *size), dtype=np.uint8))


@pytest.mark.parametrize("transform", [*PIXELS, *MATRICES], ids=lambda t: type(t).__name__)
def test_a_draw_replays_through_json_and_depends_on_its_key_alone(transform):
    size = (64, 64) if isinstance(transform, A.Transpose) else SIZE
    augmenter = AlbumentationsAugmenter(transform)
    view = drawn_by(augmenter, seed=3, size=size)
    images = images_of(0, size)
    again = Transform.from_json(view.to_json())
    assert torch.equal(again.warp(images), view.warp(images))
    assert torch.equal(drawn_by(augmenter, seed=3, size=size).warp(images), view.warp(images))
    alone = augmenter.draw(Key(3, 0, np.array([2])), size)
    assert torch.equal(alone.warp(images[2:3]), view.warp(images)[2:3])
    assert torch.equal(view.warp(images), view.warp_with_torch(images)) or not view.effects


@pytest.mark.parametrize("transform", PIXELS, ids=lambda t: type(t).__name__)
def test_what_changes_pixels_moves_no_point(transform):
    view = drawn_by(AlbumentationsAugmenter(transform))
    assert (view.geometry == np.eye(3)).all()
    assert not torch.equal(view.warp(images_of(1)), images_of(1))


@pytest.mark.parametrize("transform", MATRICES, ids=lambda t: type(t).__name__)
def test_what_moves_points_is_a_matrix_that_agrees_with_their_keypoints_and_with_the_image(transform):
    size = (96, 96)
    augmenter = AlbumentationsAugmenter(transform)
    point = np.array([[[44.0, 52.0]]])
    params = A.KeypointParams(format="xy", remove_invisible=False)
    for seed in range(6):
        view = augmenter.draw(Key(seed, 0, np.arange(1)), size)
        from augment import foreign

        theirs = A.Compose([transform], keypoint_params=params)
        theirs.set_random_seed(int(foreign.seeds(Key(seed, 0, np.arange(1)).child(0))[0]))
        expected = theirs(image=np.zeros((*size, 3), np.uint8), keypoints=point[0])["keypoints"][0]
        moved = view.move(point, flip_indices=np.array([0]))[0, 0]
        np.testing.assert_allclose(moved, expected, atol=1e-2)
        if (np.abs(moved - 0.5 * np.array(view.size[::-1])) < 0.3 * np.array(view.size[::-1])).all():
            assert np.abs(centroid(view.warp(blob(44, 52, size, spread=2.0))) - moved).max() < 0.06


def test_it_takes_its_place_in_a_chain():
    chain = Chain(
        (
            GEOMETRIC["affine"],
            AlbumentationsAugmenter(A.Compose([A.HorizontalFlip(p=1), A.CLAHE(p=1)])),
            GEOMETRIC["crop"],
        )
    )
    view = drawn_by(chain)
    assert len(view.effects) == 1
    points = np.random.default_rng(0).uniform(0, 40, (4, 5, 2))
    home = view.placement.inverse().move(view.move(points, PERMUTATION), PERMUTATION)
    np.testing.assert_allclose(home, points, atol=1e-4)


@pytest.mark.parametrize(
    "transform",
    [A.ElasticTransform(p=1), A.GridDistortion(p=1), A.OpticalDistortion(p=1)],
    ids=lambda t: type(t).__name__,
)
def test_what_has_no_matrix_is_refused_at_construction_with_the_reason(transform):
    with pytest.raises(ValueError, match=f"{type(transform).__name__} moves points by no matrix"):
        AlbumentationsAugmenter(transform)


@pytest.mark.parametrize(
    "transform",
    [
        A.ElasticTransform(p=0.001),
        A.Compose([A.Affine(p=1), A.ElasticTransform(p=0.001)]),
        A.OneOf([A.HorizontalFlip(p=1), A.SomeOf([A.Affine(p=1), A.GridDistortion(p=0.001)], n=1, p=0.01)], p=0.01),
    ],
    ids=lambda t: type(t).__name__,
)
def test_what_is_rarely_done_is_refused_too(transform):
    with pytest.raises(ValueError, match="moves points by no matrix"):
        AlbumentationsAugmenter(transform)


def test_what_changes_pixels_though_it_could_move_points_is_kept():
    """Albumentations calls them dual; they leave points where they are."""
    images = images_of(1)
    view = drawn_by(AlbumentationsAugmenter(A.Morphological(p=1, scale=(3, 5))))
    assert (view.geometry == np.eye(3)).all()
    assert not torch.equal(view.warp(images), images)


def test_doing_nothing_goes_with_both_kinds():
    for other in (A.CLAHE(p=1), A.HorizontalFlip(p=1)):
        drawn_by(AlbumentationsAugmenter(A.OneOf([A.NoOp(), other], p=1)))


@pytest.mark.filterwarnings("ignore:Using lambda")
def test_what_cannot_be_written_down_is_refused():
    with pytest.raises(ValueError, match="Lambda cannot be replayed"):
        AlbumentationsAugmenter(A.Lambda(image=lambda pixels, **_: 255 - pixels, p=1))


def test_a_crop_larger_than_the_image_says_so():
    augmenter = AlbumentationsAugmenter(A.RandomCrop(100, 100))
    with pytest.raises(ValueError, match="RandomCrop fails on a plain image of 48 x 64 pixels"):
        drawn_by(augmenter)


@pytest.mark.filterwarnings("ignore:Argument.*PadIfNeeded")
@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (A.XYMasking(num_masks_x=1, num_masks_y=1, mask_x_length=(10, 200), mask_y_length=(10, 200), p=1), "fails"),
        (A.PadIfNeeded(min_height=256, min_width=256, p=1), "gives 256 x 256 pixels"),
    ],
)
def test_what_fails_on_images_of_a_size_is_refused(transform, said):
    """It may do on the images that it was tried on; a training would have met it in a thread."""
    augmenter = RandomAugmenter(augmenters=(MirrorAugmenter(), AlbumentationsAugmenter(transform)))
    check_sizes(augmenter, [480])
    with pytest.raises(ValueError, match=f"on images of 128 x 128 pixels, {said}"):
        check_sizes(Chain((augmenter,)), [480, 128])


@pytest.mark.parametrize("transform", [A.GaussNoise(p=1), A.Affine(rotate=(-40, 40), p=1)])
def test_with_a_seed_it_is_one_fixed_view(transform):
    assert drawn_by(AlbumentationsAugmenter(transform)).varies
    assert not drawn_by(AlbumentationsAugmenter(transform, seed=3)).varies
    other = drawn_by(AlbumentationsAugmenter(transform, seed=4))
    assert other.to_json() != drawn_by(AlbumentationsAugmenter(transform, seed=3)).to_json()


@pytest.mark.parametrize("transform", [A.Normalize(), A.ToFloat()], ids=lambda t: type(t).__name__)
def test_what_does_not_give_pixels_is_refused(transform):
    with pytest.raises(ValueError, match="uint8 pixels"):
        AlbumentationsAugmenter(A.Compose([A.CLAHE(p=1), transform]))


def test_a_mixture_of_both_kinds_is_refused():
    with pytest.raises(ValueError, match="OneOf draws among"):
        AlbumentationsAugmenter(A.OneOf([A.HorizontalFlip(p=1), A.CLAHE(p=1)], p=1))


def test_a_recipe_can_name_them():
    chain = parse_augmenters(
        [
            {
                "AlbumentationsAugmenter": {
                    "transforms": [{"OneOf": {"transforms": [{"CLAHE": {"p": 1}}, {"ToGray": None}], "p": 0.5}}]
                }
            }
        ]
    )
    assert isinstance(chain.augmenters[0], AlbumentationsAugmenter)
    drawn_by(chain)


@pytest.mark.parametrize(
    ("transforms", "named"),
    [
        ([{"Clahe": {}}], "no 'Clahe'"),
        ([{"CLAHE": {"limit": "x"}}], "CLAHE"),
        (["CLAHE"], "'CLAHE' is not"),
        ([{"os": {}}], "no 'os'"),
        ([{1: {}}], "is not {class"),
        ([{"CLAHE": 3}], "is not {class"),
        ([{"OneOf": {"transforms": 3}}], "found 3, allowed is a list"),
        ([{"Blur": {"blur_limit": [3, 4, 5]}}], "Blur: blur_limit.*at most 2 items"),
        ([{"ImageOnlyTransform": {}}], "ImageOnlyTransform"),
    ],
)
def test_a_recipe_that_names_what_is_not_there_is_refused(transforms, named):
    with pytest.raises(ValueError, match=named):
        parse_augmenters([{"AlbumentationsAugmenter": {"transforms": transforms}}])
