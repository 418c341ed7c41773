"""Speed of augmentation beside the peers, with 971 points a photo: python -m benchmarks.augment [--rounds 21]

Each library draws its own parameters from the same ranges for the same 64 photos and moves the points along. "Both" is
two processes at once, as loaders work. With --gpu, ours is set beside the training step of a ResNet50 of the same size.
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import kornia.augmentation as K
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from augment import Key, fit_photo, parse_augmenters, transform_points
from benchmarks.results import write_result
from benchmarks.rounds import Ratio, over
from demo.photo import draw_photo
from pipeline.runtime import choose_device

BATCH = 64
SIZES = (128, 224)
SECONDS = 0.2
PARTNERS = np.arange(971)
BASIC = [
    {
        "AffineAugmenter": {
            "rotation": [-20, 20],
            "scale": [0.9, 1.1],
            "shift_x": [-0.05, 0.05],
            "shift_y": [-0.05, 0.05],
        }
    },
    {"BrightnessContrastAugmenter": {"brightness": [-25, 25], "contrast": [0.8, 1.25]}},
    {"BlurAugmenter": {"sigma": [0.5, 1.5]}},
]
FULL = [
    BASIC[0],
    {"MirrorAugmenter": {"probability": 0.5}},
    {"PerspectiveAugmenter": {"tilt_x": [-0.1, 0.1], "tilt_y": [-0.1, 0.1], "probability": 0.3}},
    BASIC[1],
    {"ColourAugmenter": {"saturation": [0.6, 1.4], "hue": [-10, 10], "probability": 0.5}},
    {"GreyAugmenter": {"probability": 0.1}},
    {"BlurAugmenter": {"sigma": [0.5, 1.5], "probability": 0.25}},
    {"NoiseAugmenter": {"sigma": [2, 10], "probability": 0.2}},
    {"JpegAugmenter": {"quality": [30, 80], "probability": 0.2}},
]

Augment = Callable[[int], object]  # a number for the draw -> a batch of images and points


def photos(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(BATCH, size, size, 3) uint8 drawn faces and (BATCH, 971, 2) points in their pixels."""
    images, points = [], []
    for number in range(BATCH):
        photo = draw_photo(0, 0, number)
        square, matrix = fit_photo(photo.pixels, size)
        images.append(square)
        points.append(transform_points(matrix[None], photo.points[None])[0])
    return np.stack(images), np.stack(points)


def batch_key(number: int, count: int = BATCH) -> Key:
    """The key of a batch of an epoch."""
    return Key(0, 0, count * number + np.arange(count))


def ours(pixels, points, recipe, device="cpu") -> Augment:
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
    chain = parse_augmenters(FULL if recipe == "full" else BASIC)
    size = pixels.shape[1:3]

    def augment(number):
        view = chain.draw(batch_key(number, len(images)), size)
        return view.warp(images), view.move(points, PARTNERS)

    return augment


def opencv_loop(pixels, points, recipe) -> Augment:
    """What one would write by hand: a warp, a table of brightness, a blur, a matrix product; and each of the rest."""
    rng = np.random.default_rng(0)
    side = pixels.shape[1]
    levels = np.arange(256) - 127.5
    corners = np.array([(0, 0), (side, 0), (side, side), (0, side)], np.float32)

    def augment(number):
        images, moved = np.empty_like(pixels), np.empty_like(points)
        for i in range(BATCH):
            matrix = cv2.getRotationMatrix2D(((side - 1) / 2,) * 2, rng.uniform(-20, 20), rng.uniform(0.9, 1.1))
            matrix[:, 2] += rng.uniform(-0.05, 0.05, 2) * side
            image = cv2.warpAffine(pixels[i], matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
            moved[i] = points[i] @ matrix[:, :2].T + matrix[:, 2]
            if recipe == "full" and rng.random() < 0.5:
                image = cv2.flip(image, 1)
                moved[i] = ((side - 1, 0) + moved[i] * (-1, 1))[PARTNERS]
            if recipe == "full" and rng.random() < 0.3:
                tilted = corners + rng.uniform(-0.05, 0.05, corners.shape).astype(np.float32) * side
                tilt = cv2.getPerspectiveTransform(corners, tilted)
                image = cv2.warpPerspective(image, tilt, (side, side), borderMode=cv2.BORDER_REPLICATE)
                moved[i] = cv2.perspectiveTransform(moved[i][None], tilt)[0]
            table = levels * rng.uniform(0.8, 1.25) + 127.5 + rng.uniform(-25, 25)
            image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8))
            images[i] = more_by_hand(image, rng) if recipe == "full" else blurred(image, rng)
        return images, moved

    return augment


def blurred(image, rng):
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.5))


def more_by_hand(image, rng):
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
        hue = ((np.arange(256) + rng.uniform(-10, 10) * 256 / 360) % 256).astype(np.uint8)
        saturation = np.clip(np.arange(256) * rng.uniform(0.6, 1.4), 0, 255).astype(np.uint8)
        tables = np.stack((hue, saturation, np.arange(256, dtype=np.uint8)), axis=1)
        image = cv2.cvtColor(cv2.LUT(hsv, tables[None]), cv2.COLOR_HSV2RGB_FULL)
    if rng.random() < 0.1:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < 0.25:
        image = blurred(image, rng)
    if rng.random() < 0.2:
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(2, 10))
        image = cv2.add(image, noise, dtype=cv2.CV_8U)
    if rng.random() < 0.2:
        stored = cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(30, 80))))[1]
        seen = cv2.imdecode(stored, cv2.IMREAD_COLOR)
        assert seen is not None
        image = seen[..., ::-1]
    return image


def albumentations(pixels, points, recipe) -> Augment:
    affine = A.Affine(rotate=(-20, 20), scale=(0.9, 1.1), translate_percent=(-0.05, 0.05), p=1)
    bright = A.RandomBrightnessContrast((-0.1, 0.1), (-0.2, 0.25), p=1)
    steps = [affine, bright, A.GaussianBlur(sigma_limit=(0.5, 1.5), blur_limit=0, p=1)]
    if recipe == "full":
        steps = [
            affine,
            A.HorizontalFlip(p=0.5),
            A.Perspective(scale=(0.02, 0.08), p=0.3),
            bright,
            A.HueSaturationValue(5, 60, 0, p=0.5),
            A.ToGray(p=0.1),
            A.GaussianBlur(sigma_limit=(0.5, 1.5), blur_limit=0, p=0.25),
            A.GaussNoise(std_range=(2 / 255, 10 / 255), p=0.2),
            A.ImageCompression(quality_range=(30, 80), p=0.2),
        ]
    composed = A.Compose(steps, keypoint_params=A.KeypointParams(format="xy", remove_invisible=False))
    return lambda number: [composed(image=image, keypoints=p) for image, p in zip(pixels, points, strict=True)]


def torchvision(pixels, points, recipe) -> Augment:
    smooth = InterpolationMode.BILINEAR
    affine = v2.RandomAffine(20, translate=(0.05, 0.05), scale=(0.9, 1.1), interpolation=smooth)
    steps = [affine, v2.ColorJitter(brightness=0.1, contrast=0.2), v2.GaussianBlur(9, (0.5, 1.5))]
    to_float, to_uint8 = (v2.ToDtype(kind, scale=True) for kind in (torch.float32, torch.uint8))
    noise = v2.Compose([to_float, v2.GaussianNoise(0, 0.025), to_uint8])
    if recipe == "full":
        steps = [
            affine,
            v2.RandomHorizontalFlip(0.5),
            v2.RandomPerspective(0.1, p=0.3),
            v2.ColorJitter(brightness=0.1, contrast=0.2),
            v2.RandomApply([v2.ColorJitter(saturation=0.4, hue=0.03)], p=0.5),
            v2.RandomGrayscale(0.1),
            v2.RandomApply([v2.GaussianBlur(9, (0.5, 1.5))], p=0.25),
            v2.RandomApply([noise], p=0.2),
            v2.RandomApply([v2.JPEG((30, 80))], p=0.2),
        ]
    composed = v2.Compose(steps)
    samples = [
        (
            tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1).contiguous()),
            tv_tensors.KeyPoints(torch.from_numpy(p).float(), canvas_size=image.shape[:2]),
        )
        for image, p in zip(pixels, points, strict=True)
    ]
    return lambda number: [composed(*sample) for sample in samples]


def kornia(pixels, points, recipe, device="cpu") -> Augment:
    affine = K.RandomAffine(20.0, translate=(0.05, 0.05), scale=(0.9, 1.1), p=1)
    bright = K.ColorJiggle(0.1, 0.2, 0.0, 0.0, p=1)
    steps = [affine, bright, K.RandomGaussianBlur((9, 9), (0.5, 1.5), p=1)]
    if recipe == "full":
        steps = [
            affine,
            K.RandomHorizontalFlip(p=0.5),
            K.RandomPerspective(0.1, p=0.3),
            bright,
            K.ColorJiggle(0.0, 0.0, 0.4, 0.03, p=0.5),
            K.RandomGrayscale(p=0.1),
            K.RandomGaussianBlur((9, 9), (0.5, 1.5), p=0.25),
            K.RandomGaussianNoise(0.0, 0.025, p=0.2),
            K.RandomJPEG((30.0, 80.0), p=0.2),
        ]
    sequence = K.AugmentationSequential(*steps, data_keys=["input", "keypoints"])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(device)
    where = torch.from_numpy(points).float().to(device)
    return lambda number: sequence(images.float() / 255, where)


LIBRARIES = {
    "ours": ours,
    "plain OpenCV loop": opencv_loop,
    "albumentations 2.0.8": albumentations,
    "torchvision v2": torchvision,
    "kornia": kornia,
}


def rate(augment: Augment, seconds: float = SECONDS) -> float:
    """Photos a second."""
    begun, number = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        augment(number)
        number += 1
    return BATCH * number / (time.perf_counter() - begun)


def one_thread():
    warnings.simplefilter("ignore")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def measure(size: int, recipe: str, rounds: int) -> dict[str, list[float]]:
    """Rates of each library, round by round, all in this process on one thread."""
    one_thread()
    pixels, points = photos(size)
    augments = {name: library(pixels, points, recipe) for name, library in LIBRARIES.items()}
    for augment in augments.values():
        augment(0)
    found = [{name: rate(augment) for name, augment in augments.items()} for _ in range(rounds)]
    return {name: [one[name] for one in found] for name in augments}


def drawing_share(size: int, recipe: str, rounds: int) -> float:
    """Time of drawing over that of applying."""
    one_thread()
    pixels, points = photos(size)
    chain = parse_augmenters(FULL if recipe == "full" else BASIC)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    views = [chain.draw(batch_key(number), (size, size)) for number in range(20)]
    shares = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for number in range(20):
            chain.draw(batch_key(number), (size, size))
        drawn = time.perf_counter()
        for view in views:
            view.warp(images), view.move(points, PARTNERS)
        shares.append((drawn - begun) / (time.perf_counter() - drawn))
    return round(statistics.median(shares), 3)


def on_gpu(size: int, recipe: str) -> dict[str, float]:
    """Photos a second on the GPU: ours in batches of 64 and 256, and a ResNet50's training step in bf16 on 256."""
    from torchvision.models import resnet50

    pixels, points = photos(size)
    network = resnet50(num_classes=2 * 971).cuda().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), fused=True)
    batch = torch.rand(4 * BATCH, 3, size, size, device="cuda").to(memory_format=torch.channels_last)

    def step(number):
        with torch.autocast("cuda", torch.bfloat16):
            loss = network(batch).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    works = {
        "ours, 64 at once": (ours(pixels, points, recipe, device="cuda"), BATCH),
        "ours, 256 at once": (ours(pixels.repeat(4, axis=0), points.repeat(4, axis=0), recipe, "cuda"), 4 * BATCH),
        "ResNet50 step, 256 at once": (step, 4 * BATCH),
    }
    found = {}
    for name, (work, count) in works.items():
        for number in range(5):
            work(number)
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for number in range(30):
            work(number)
        torch.cuda.synchronize()
        found[name] = round(30 * count / (time.perf_counter() - begun), 1)
    return found


def compare(size: int, recipe: str, rounds: int) -> tuple[dict, list[Ratio]]:
    """A row for each library, on one thread and on all cores, and how much faster ours is on one."""
    cores = os.cpu_count() or 1
    alone = measure(size, recipe, rounds)
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        together = list(pool.map(measure, [size] * cores, [recipe] * cores, [rounds] * cores))
    table, kept = {}, []
    for name, found in alone.items():
        ratios = over(alone["ours"], found)
        all_cores = sum(statistics.median(one[name]) for one in together)
        mine = sum(statistics.median(one["ours"]) for one in together)
        table[name] = {
            "photos a second": round(statistics.median(found)),
            "ours is faster by": round(statistics.median(ratios), 2),
            f"photos a second on {cores} cores": round(all_cores),
            f"ours is faster by on {cores} cores": round(mine / all_cores, 2),
        }
        rate_1, ratio_1, rate_n, ratio_n = table[name].values()
        row = f"{size} px, {recipe}: {name}"
        print(f"{row:34}{rate_1:9}{ratio_1:9.2f}x   {'':10} {rate_n:8}{ratio_n:9.2f}x", flush=True)
        if name != "ours":
            kept.append(Ratio.of(f"rate of augmenting, {recipe}, {size} px", name, ratios))
    share = drawing_share(size, recipe, rounds)
    print(f"{f'{size} px, {recipe}: drawing':34}{share:9.1%} of applying")
    return table | {"drawing over applying": share}, kept


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="on the GPU alone")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--rounds", type=int, default=21)
    return parser.parse_args(arguments)


def main():
    options = parse()
    kinds = [(size, recipe) for size in options.sizes for recipe in ("basic", "full")]
    if options.gpu:
        choose_device(gpu=True)
        gpu = {f"{size} px, {recipe}": on_gpu(size, recipe) for size, recipe in kinds}
        write_result("augment", gpu, ratios=[ratio_on_gpu(kind, rates) for kind, rates in gpu.items()], gpu=True)
        return
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    print(f"{'photos a second, one thread':34}{'rate':>9}{'ours is':>10}   {cores} cores: {'rate':>11}{'ours is':>10}")
    found = {f"{size} px, {recipe}": compare(size, recipe, options.rounds) for size, recipe in kinds}
    torch.set_num_threads(threads)
    kept = [ratio for _, ratios in found.values() for ratio in ratios]
    results = {kind: table for kind, (table, _) in found.items()}
    write_result("augment", results, ratios=kept, peers=("albumentations", "kornia"))


def ratio_on_gpu(kind: str, rates: dict[str, float]) -> Ratio:
    ours, step = rates["ours, 256 at once"], rates["ResNet50 step, 256 at once"]
    return Ratio.of(f"rate of augmenting, {kind}", "a ResNet50's step", [ours / step])


if __name__ == "__main__":
    main()
