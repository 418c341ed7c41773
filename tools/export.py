"""Exports a run as files that do not need this project: `python -m tools.export RUN`.

    landmarks.torchscript.pt    torch.jit.load(…)                  all take (B, 3, size, size) uint8 RGB images and
    landmarks.pt2               torch.export.load(…).module()      give (B, K, 2) float32 points in their pixels
    landmarks.onnx              any ONNX runtime
    landmarks.json              {"resize", "square", "left", "top", "size", "points", "box_margin", "middle", "spread"}:
                                `fit_photo` turns a photo into a square of `square` pixels; an image is the part of it
                                that starts at (left, top) and has `size` pixels a side. If box_margin is not null, the
                                photo is first cut to what it has of the square around a box, with that margin on each
                                side, as a share of its longer side (`fit_box`). A run's locator, in its folder
                                locator, is exported in the same way: its points say where the box is; middle and
                                spread are where it expects the points to be and how large

Each file is read back, compared with the network on photos that the run held out, or on images of noise if these are
not there, and timed. The run alone is enough. A file that does not agree is not kept.
"""

import io
import json
import statistics
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
from tyro.conf import Positional, arg

from models import LandmarkNet
from pipeline.cli import parse_flags
from pipeline.data.boxes import MARGIN
from pipeline.data.contest import LANDMARKS, find_contest
from pipeline.data.pack import Squares
from pipeline.data.photos import BrokenPhoto, read_photo
from pipeline.data.roi import region_of
from pipeline.errors import UserError, run_script
from pipeline.files import sync, write_text
from pipeline.inference.onnx_network import (
    INSTALL,
    MAX_DIFFERENCE,
    Points,
    export_onnx,
    open_session,
    worst_difference,
)
from pipeline.networks import load_run_network
from pipeline.runs import Run, find_run

NUM_PHOTOS = 16
ROUNDS = 7


@dataclass(frozen=True)
class Options:
    run: Positional[Path]
    """The folder of the run to export."""
    data: Annotated[Path | None, arg(aliases=["-d"], metavar="PATH")] = None
    """The contest's folder, if it was moved since the run was trained."""
    output: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where the files go; by default the folder export in the run's."""


def export_torchscript(network: LandmarkNet, example: torch.Tensor, path: Path) -> Points:
    with _into(path) as buffer:
        torch.jit.save(torch.jit.trace(network, example), buffer)
    return torch.jit.load(path)


def export_program(network: LandmarkNet, example: torch.Tensor, path: Path) -> Points:
    batch = torch.export.Dim("batch", min=1, max=4096)
    with _into(path) as buffer:
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=({0: batch},)), buffer)
    return torch.export.load(path).module()


@contextmanager
def _into(path: Path) -> Iterator[io.BytesIO]:
    """A buffer for what goes into a file: if torch itself writes to a disk that is full, it aborts the process."""
    buffer = io.BytesIO()
    yield buffer
    path.write_bytes(buffer.getbuffer())


def export_onnx_file(network: LandmarkNet, example: torch.Tensor, path: Path) -> Points:
    """Raises ModuleNotFoundError if the packages for it are not installed."""
    import onnxscript  # noqa: F401, torch.onnx needs it

    export_onnx(network, example, path)
    session = open_session(path)
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


ABOUT = "landmarks.json"
FORMATS = {
    "landmarks.torchscript.pt": export_torchscript,
    "landmarks.pt2": export_program,
    "landmarks.onnx": export_onnx_file,
}


def held_out_photos(run: Run, data: Path | None) -> dict[str, np.ndarray]:
    """The first photos that the run held out, by name; none if the run's data are no longer there.

    Raises UserError if `data` is given and has none of them.
    """
    contest = data or run.recipe().run.data
    try:
        folder = (find_contest(contest) / LANDMARKS).parent / "images"
    except UserError:
        if data:
            raise
        return {}
    photos = {}
    for name in run.held_out_names():
        try:
            photos[name] = read_photo(folder / name)
        except BrokenPhoto:
            continue
        if len(photos) == NUM_PHOTOS:
            break
    if data and not photos:
        raise UserError(f"--data {data} has none of the photos that {run.folder} held out; leave it out for noise")
    return photos


def example_images(run: Run, data: Path | None) -> tuple[torch.Tensor, str]:
    """(B, 3, size, size) uint8 images to verify on, and what they are in a few words."""
    options = run.recipe().photos
    roi = region_of(options)
    if photos := held_out_photos(run, data):
        shown, what = roi.cut(Squares.of(photos, roi, options.resize).squares), f"{len(photos)} held-out photos"
    else:
        size = (NUM_PHOTOS, roi.size, roi.size, 3)
        shown, what = np.random.default_rng(0).integers(0, 256, size, np.uint8), f"{NUM_PHOTOS} images of noise"
    return torch.from_numpy(shown.copy()).permute(0, 3, 1, 2).contiguous(), what


def milliseconds(found: Points, photos: torch.Tensor) -> float:
    """Median time of one photo."""
    times = []
    with torch.no_grad():
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            found(photos)
            times.append(1000 * (time.perf_counter() - begun) / len(photos))
    return statistics.median(times[1:])


def main():
    options = parse_flags(Options, __doc__)
    run = find_run(options.run, options.run)
    recipe = run.recipe()
    network = load_run_network(run, "best")
    photos, what = example_images(run, options.data)
    with torch.no_grad():
        if not network(photos).isfinite().all():
            raise UserError(f"{run.best} gives points that are no numbers; there is nothing to export")
    folder = options.output or run.folder / "export"
    folder.mkdir(parents=True, exist_ok=True)
    on_boxes = recipe.photos.boxes or recipe.photos.locates
    about = {
        "resize": recipe.photos.resize,
        **vars(region_of(recipe.photos)),
        "points": len(network.mean_shape),
        "box_margin": MARGIN if on_boxes else None,
        "middle": network.mean_shape.mean(dim=0).tolist(),
        "spread": run.about_data().spread,
    }
    for name in (ABOUT, *FORMATS):  # of earlier weights
        (folder / name).unlink(missing_ok=True)
    print(f"compared on {what}")
    print(f"{'file':44}{'worst px':>10}{'ms, 1 photo':>14}{f'ms of {len(photos)}':>12}")
    print(f"{'the network itself':44}{'':10}{_times(network, photos)}")
    for name, export in FORMATS.items():
        try:
            found, worst = _export(export, network, photos, folder / name)
        except ModuleNotFoundError as error:
            print(f"{name:44}left out: {error}; it needs: {INSTALL}")
            continue
        print(f"{name:44}{worst:10.5f}{_times(found, photos)}")
    write_text(folder / ABOUT, json.dumps(about))
    print(f"written to {folder}")


def _export(export, network, photos, path):
    """The points of a file that replaces `path` once it is found to agree, and how well it agrees."""
    with TemporaryDirectory(dir=path.parent) as unverified, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own tracing, about what is verified here
        file = Path(unverified) / path.name
        found = export(network, photos[[0, -1]], file)
        worst = worst_difference(found, network, photos)
        if not worst < MAX_DIFFERENCE:
            raise UserError(f"{path} was not written: its points are {worst:.3f} px off the network's own")
        sync(file)
        file.replace(path)
    return found, worst


def _times(found, photos):
    return f"{milliseconds(found, photos[:1]):14.2f}{milliseconds(found, photos):12.2f}"


if __name__ == "__main__":
    run_script(main)
