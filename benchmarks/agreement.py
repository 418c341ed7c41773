"""Where an image goes and where its points go, in ours and in the peers: python -m benchmarks.agreement

A bright blob is moved by each library as an image and as a keypoint; the distance between the blob's centroid and the
keypoint is what a model would have to unlearn. Then the detail that is left after a chain of three: the energy of high
frequencies, as a share of that after one resampling.
"""

import warnings
from collections.abc import Callable

import albumentations as A
import cv2
import kornia.augmentation as K
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from augment import AffineAugmenter, Chain, CropAugmenter, Key, MirrorAugmenter, Transform
from augment.geometry import resize
from benchmarks.results import write_result

SIZE = (128, 128)
POSITIONS = [(58.0, 61.0), (70.3, 57.6), (63.5, 72.1), (54.8, 66.4)]
SHARE = 0.75  # of the crop
CORNERS = [(0, 0), (127, 0), (127, 127), (0, 127)]
TILTED = [(6, 4), (121, 0), (127, 127), (2, 122)]

Move = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]  # (H, W, 3) image and (2,) point -> the same


def blob(x, y, spread=2.0):
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    bright = np.rint(255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2)))
    return np.repeat(bright[..., None], 3, axis=2).astype(np.uint8)


def centroid(image):
    bright = (image[..., 0].astype(float) - 8).clip(min=0)
    rows, columns = np.mgrid[: bright.shape[0], : bright.shape[1]]
    return np.array([(bright * columns).sum(), (bright * rows).sum()]) / max(bright.sum(), 1e-9)


def ours(view: Transform) -> Move:
    def move(image, point):
        warped = view.warp(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
        return warped, view.move(point[None, None], flip_indices=np.array([0]))[0, 0]

    return move


def torchvisions(function, **arguments) -> Move:
    def move(image, point):
        points = tv_tensors.KeyPoints(torch.tensor(point[None]).float(), canvas_size=SIZE)
        pixels = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
        smooth = {} if function in (F.horizontal_flip, F.crop) else {"interpolation": InterpolationMode.BILINEAR}
        return function(pixels, **arguments, **smooth).permute(1, 2, 0).numpy(), function(points, **arguments)[
            0
        ].numpy()

    return move


def albumentations(transform) -> Move:
    composed = A.Compose([transform], keypoint_params=A.KeypointParams(format="xy", remove_invisible=False), seed=0)

    def move(image, point):
        result = composed(image=image, keypoints=point[None])
        return result["image"], np.asarray(result["keypoints"][0])

    return move


def kornias(*transforms) -> Move:
    sequence = K.AugmentationSequential(*transforms, data_keys=["input", "keypoints"])

    def move(image, point):
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        warped, points = sequence(pixels, torch.tensor(point[None, None]).float())
        return warped[0].permute(1, 2, 0).numpy(), points[0, 0].numpy()

    return move


def draw(augmenter) -> Transform:
    return augmenter.draw(Key(0, 0, np.arange(1)), SIZE)


def operations() -> dict[str, dict[str, Move]]:
    """For each operation, how each library does it."""
    half, double = (64, 64), (256, 256)
    tilt = cv2.getPerspectiveTransform(np.array(CORNERS, np.float32), np.array(TILTED, np.float32))
    affine = {"rotation": 17, "scale": 1.1, "shift_x": 0.05, "shift_y": -0.03}
    part = round(SHARE * SIZE[0])
    return {
        "rotate by 30°": {
            "ours": ours(draw(AffineAugmenter(rotation=-30))),
            "torchvision v2": torchvisions(F.rotate, angle=30),
            "albumentations": albumentations(A.Rotate(limit=(30, 30), p=1)),
            "kornia": kornias(K.RandomRotation((30.0, 30.0), p=1)),
        },
        "rotate by 180°": {
            "ours": ours(draw(AffineAugmenter(rotation=180))),
            "torchvision v2": torchvisions(F.rotate, angle=180),
            "albumentations": albumentations(A.Rotate(limit=(180, 180), p=1)),
            "kornia": kornias(K.RandomRotation((180.0, 180.0), p=1)),
        },
        "mirror": {
            "ours": ours(draw(MirrorAugmenter(probability=1))),
            "torchvision v2": torchvisions(F.horizontal_flip),
            "albumentations": albumentations(A.HorizontalFlip(p=1)),
            "kornia": kornias(K.RandomHorizontalFlip(p=1)),
        },
        "resize by ½": {
            "ours": ours(Transform.of(resize(SIZE, half), SIZE, half)),
            "torchvision v2": torchvisions(F.resize, size=list(half)),
            "albumentations": albumentations(A.Resize(*half, p=1)),
            "kornia": kornias(K.Resize(half)),
        },
        "resize by 2": {
            "ours": ours(Transform.of(resize(SIZE, double), SIZE, double)),
            "torchvision v2": torchvisions(F.resize, size=list(double)),
            "albumentations": albumentations(A.Resize(*double, p=1)),
            "kornia": kornias(K.Resize(double)),
        },
        "crop and enlarge": {
            "ours": ours(draw(CropAugmenter(share=SHARE, x=0.5, y=0.5))),
            "torchvision v2": torchvisions(F.resized_crop, top=16, left=16, height=part, width=part, size=list(SIZE)),
            "albumentations": albumentations(A.Compose([A.CenterCrop(part, part, p=1), A.Resize(*SIZE, p=1)])),
            "kornia": kornias(K.CenterCrop((part, part)), K.Resize(SIZE)),
        },
        "affine": {
            "ours": ours(draw(AffineAugmenter(**affine))),
            "torchvision v2": torchvisions(F.affine, angle=17, translate=[6, -4], scale=1.1, shear=[0.0, 0.0]),
            "albumentations": albumentations(A.Affine(rotate=17, scale=1.1, translate_px={"x": 6, "y": -4}, p=1)),
            "kornia": kornias(
                K.RandomAffine((17.0, 17.0), translate=None, scale=(1.1, 1.1), p=1),
            ),
        },
        "perspective": {
            "ours": ours(Transform.of(tilt[None], SIZE)),
            "torchvision v2": torchvisions(
                F.perspective, startpoints=[list(p) for p in CORNERS], endpoints=[list(p) for p in TILTED]
            ),
            "albumentations": albumentations(A.Perspective(scale=(0.05, 0.05), keep_size=True, p=1)),
            "kornia": kornias(K.RandomPerspective(0.2, p=1)),
        },
    }


def worst(move: Move) -> list[float]:
    """The largest (x, y) distance between a blob's centroid and its point, over a few positions, in pixels."""
    torch.manual_seed(0)
    found = []
    for position in POSITIONS:
        image, point = move(blob(*position), centroid(blob(*position)))
        found.append(np.abs(centroid(image) - point))
    return [round(float(value), 3) for value in np.max(found, axis=0)]


def high_frequencies(image) -> float:
    grey = image.astype(np.float32).mean(axis=2)
    return float(((grey - cv2.blur(grey, (3, 3))) ** 2)[24:-24, 24:-24].mean())


def detail() -> dict[str, float]:
    """High frequencies after turning by 7°, -12° and 9°, as a share of those after one turn by 4°."""
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    turns = (7.0, -12.0, 9.0)
    chains = {
        "ours": ours(draw(Chain(tuple(AffineAugmenter(rotation=turn) for turn in turns)))),
        "albumentations": albumentations(A.Compose([A.Affine(rotate=turn, p=1) for turn in turns])),
        "kornia": kornias(*(K.RandomRotation((turn, turn), p=1) for turn in turns)),
    }

    def torchvision(pixels, _):
        chain = v2.Compose([v2.RandomRotation((turn, turn), InterpolationMode.BILINEAR) for turn in turns])
        return chain(torch.from_numpy(pixels).permute(2, 0, 1)).permute(1, 2, 0).numpy(), _

    once = high_frequencies(ours(draw(AffineAugmenter(rotation=4.0)))(image, np.zeros(2))[0])
    chains["torchvision v2"] = torchvision
    return {name: round(high_frequencies(move(image, np.zeros(2))[0]) / once, 3) for name, move in chains.items()}


def main():
    warnings.simplefilter("ignore")
    table = {name: {library: worst(move) for library, move in moves.items()} for name, moves in operations().items()}
    columns = ("ours", "torchvision v2", "albumentations", "kornia")
    print(f"{'distance of image and point, px':32}" + "".join(f"{column:>18}" for column in columns))
    for name, row in table.items():
        print(f"{name:32}" + "".join(f"{'({:.2f}, {:.2f})'.format(*row[column]):>18}" for column in columns))
    share = detail()
    print(f"{'detail after three turns':32}" + "".join(f"{share[column]:18.2f}" for column in columns))
    result = {"pixels between image and point (x, y)": table, "detail after three turns": share}
    write_result("agreement", result, peers=("albumentations", "kornia"))


if __name__ == "__main__":
    main()
