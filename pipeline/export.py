"""A run as files that need none of this project: `python -m pipeline.export RUN`.

    landmarks.torchscript.pt    torch.jit.load(…)                  all take (B, 3, size, size) uint8 RGB images and
    landmarks.pt2               torch.export.load(…).module()      give (B, K, 2) float32 points in their pixels
    landmarks.onnx              any ONNX runtime
    landmarks.json              {"fit", "square", "left", "top", "size", "points"}: an image is the window of `size`
                                pixels from (left, top) of a photo that `fit_photo` has fitted into `square` pixels

Each file is read back, compared with the network on photos of the run's contest, and timed.
"""

import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from tyro.conf import Positional, arg

from models import LandmarkNet
from pipeline.data import load_test_data
from pipeline.errors import UserError, run_script
from pipeline.files import write_text
from pipeline.flags import parse_flags
from pipeline.runs import find_run
from pipeline.start import load_run_network

MAX_DIFFERENCE = 0.02  # pixels of the image
NUM_PHOTOS = 16
ROUNDS = 7

Points = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Options:
    run: Positional[Path]
    """The folder of a run."""
    output: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where the files go; without it the folder export in the run's."""


def export_torchscript(network: LandmarkNet, example: torch.Tensor, path: Path) -> Points:
    torch.jit.save(torch.jit.trace(network, example), path)
    return torch.jit.load(path)


def export_program(network: LandmarkNet, example: torch.Tensor, path: Path) -> Points:
    batch = torch.export.Dim("batch", min=1, max=4096)
    torch.export.save(torch.export.export(network, (example,), dynamic_shapes=({0: batch},)), path)
    return torch.export.load(path).module()


def export_onnx(network: LandmarkNet, example: torch.Tensor, path: Path) -> Points:
    """Raises ModuleNotFoundError where the packages for it are not installed."""
    import onnxruntime
    import onnxscript  # noqa: F401, torch.onnx needs it

    torch.onnx.export(
        network,
        (example,),
        path,
        input_names=["images"],
        output_names=["points"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


FORMATS = {
    "landmarks.torchscript.pt": export_torchscript,
    "landmarks.pt2": export_program,
    "landmarks.onnx": export_onnx,
}


def worst_difference(found: Points, network: LandmarkNet, photos: torch.Tensor) -> float:
    """The largest distance from the network's own points, in pixels of the image, for batches of several sizes."""
    with torch.no_grad():
        return max(
            float((found(photos[:count].contiguous()) - network(photos[:count])).abs().max())
            for count in {1, 2, len(photos)}
        )


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
    _, pack = load_test_data(recipe, len(network.mean_shape))
    photos = torch.from_numpy(pack.shown(slice(NUM_PHOTOS)).copy()).permute(0, 3, 1, 2).contiguous()
    folder = options.output or run.folder / "export"
    folder.mkdir(parents=True, exist_ok=True)
    about = {"fit": recipe.photos.fit, **vars(pack.window), "points": len(network.mean_shape)}
    write_text(folder / "landmarks.json", json.dumps(about))
    print(f"{'file':44}{'worst px':>10}{'ms, 1 photo':>14}{f'ms of {len(photos)}':>12}")

    def times(found):
        return f"{milliseconds(found, photos[:1]):14.2f}{milliseconds(found, photos):12.2f}"

    print(f"{'the network itself':44}{'':10}{times(network)}")
    for name, export in FORMATS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch's own tracing, about what is verified here
                found = export(network, photos[[0, -1]], folder / name)
        except ModuleNotFoundError as error:
            print(f"{name:44}left out: {error}; it needs: pip install onnx onnxscript onnxruntime")
            continue
        worst = worst_difference(found, network, photos)
        if not worst < MAX_DIFFERENCE:
            raise UserError(f"{folder / name} is {worst:.3f} px off the network; do not use it")
        print(f"{name:44}{worst:10.5f}{times(found)}")
    print(f"written to {folder}")


if __name__ == "__main__":
    run_script(main)
