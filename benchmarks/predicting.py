"""`predict.py` beside a loop around ttach, from photos on the disk to a submission:

    python -m benchmarks.predicting --data PATH

Both take the same test photos, network and views, the photo as it is and mirrored, and write a submission. Ours decodes
into a pack, predicts each view, brings its points home, merges, writes, and reads back; or predicts from a pack that
is there. The other reads and letterboxes photo by photo, lets ttach flip (it does not swap left and right) and average,
and writes with pandas. In turn, in one process. The network is one that has seen a few photos.
"""

import argparse
import io
import json
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
import ttach

from augment import fit_photo
from benchmarks.results import write_result
from benchmarks.rounds import Ratio, in_turn, over
from hack_train import train
from pipeline.data.contest import find_contest
from pipeline.inference.options import PredictOptions
from pipeline.networks import load_run_network
from pipeline.runs import Run
from pipeline.runtime import Runtime
from predict import predict

SIZE = 96
VIEWS = [[], [{"MirrorAugmenter": {"probability": 1}}]]
BATCH = PredictOptions().batch_size
TRAINING = ["--model", "resnet18", "--weights", "none", "--steps-per-epoch", "2", "--epochs", "1", "--roi", "whole"]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--photos", type=int, default=2000, help="of the test, some of them several times")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args(arguments)


def main():
    options = parse()
    runtime = Runtime.choose(gpu=options.gpu)
    with tempfile.TemporaryDirectory() as name, redirect_stderr(io.StringIO()):
        folder = Path(name)
        test = repeated(find_contest(options.data) / "test", folder / "contest", options.photos)
        table = pd.read_csv(test / "test_points.csv", sep="\t")
        device = ["--gpu"] if options.gpu else []
        paths = ["--data", options.data, "--runs", folder / "runs", "--cache", folder / "cache"]
        views = folder / "views.json"
        views.write_text(json.dumps(VIEWS))
        with redirect_stdout(io.StringIO()):
            run = Run(train([*paths, *TRAINING, "--size", str(SIZE), *device]))
        network = load_run_network(run, "best").to(runtime.device).eval()

        def ours(*, packed: bool):
            if not packed:
                shutil.rmtree(folder / "packs", ignore_errors=True)
            where: list[str | Path] = ["--run", run.folder, "--data", test.parent, "--cache", folder / "packs"]
            with redirect_stdout(io.StringIO()):
                predict([*where, "--views", views, "--weights", "equal", "--output", folder / "ours.csv", *device])

        works = {
            "a loop around ttach": lambda: by_ttach(network, test / "images", table, folder / "theirs.csv", runtime),
            "predict.py, which packs": lambda: ours(packed=False),
            "predict.py, from a pack": lambda: ours(packed=True),
        }
        found = in_turn(works, rounds=options.rounds)
    reference = "a loop around ttach"
    ratios = [
        Ratio.of(f"rate of {name}, by the {kind}", reference, over(getattr(found[reference], kind), getattr(own, kind)))
        for name, own in found.items()
        if name != reference
        for kind in ("clock", "processor")
    ]
    about = f"resnet18 at {SIZE} px, {runtime.precision}, {len(table):,} photos, batches of {BATCH}, two views"
    write_result("predicting", {"prediction": about}, ratios=ratios, gpu=options.gpu, peers=("ttach",))


def repeated(test: Path, contest: Path, count: int) -> Path:
    """A test of `count` photos, which are links to those of `test` in turn."""
    made = contest / "test"
    (made / "images").mkdir(parents=True)
    header, *rows = (test / "test_points.csv").read_text().splitlines()
    lines = [header]
    for number in range(count):
        photo, asked = rows[number % len(rows)].split("\t")
        (made / "images" / f"{number}_{photo}").symlink_to((test / "images" / photo).resolve())
        lines.append(f"{number}_{photo}\t{asked}")
    (made / "test_points.csv").write_text("\n".join(lines) + "\n")
    return made


class Flat(torch.nn.Module):
    """The network as ttach wants it: (B, 2 K) keypoints as shares of the image."""

    def __init__(self, network: torch.nn.Module, runtime: Runtime):
        super().__init__()
        self.network, self.runtime = network, runtime

    def forward(self, images):
        with self.runtime.autocast():
            return (self.network(images) / SIZE).flatten(1)


@torch.no_grad()
def by_ttach(network: torch.nn.Module, folder: Path, table: pd.DataFrame, output: Path, runtime: Runtime):
    """Writes the submission that one would write by hand."""
    wrapped = ttach.KeypointsTTAWrapper(Flat(network, runtime), ttach.Compose([ttach.HorizontalFlip()]), scaled=True)
    rows = []
    for start in range(0, len(table), BATCH):
        part = table.iloc[start : start + BATCH]
        fitted = [fit_photo(read(folder / name), SIZE) for name in part["file_name"]]
        images = torch.from_numpy(np.stack([square for square, _ in fitted])).permute(0, 3, 1, 2)
        points = wrapped(images.to(runtime.device)).float().cpu().numpy().reshape(len(part), -1, 2) * SIZE
        for found, (_, matrix), asked in zip(points, fitted, part["point_index_list"], strict=True):
            home = np.c_[found[json.loads(asked)], np.ones(len(json.loads(asked)))] @ np.linalg.inv(matrix).T
            rows.append(home[:, :2].ravel())
    columns = [f"Point_M{number}_{axis}" for number in range(len(rows[0]) // 2) for axis in "XY"]
    pd.DataFrame(np.stack(rows), table["file_name"], columns).to_csv(output, float_format="%.2f")


def read(path: Path) -> np.ndarray:
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert photo is not None
    return photo


if __name__ == "__main__":
    main()
