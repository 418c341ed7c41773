"""Packing beside bare decoding and resizing, and packs of JPEGs beside raw ones:

    python -m benchmarks.packing RUN
    python -m benchmarks.packing --data PATH    the rates alone, in a file of their own

RUN is a run whose data are still there. Its photos are decoded and resized by all cores and packed, raw and as JPEGs,
in turn, as they are and enlarged. Then batches are read from both packs, and the run's network predicts the photos that
it held out from both: how far its points move is what the JPEGs cost.
"""

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.results import write_result
from benchmarks.rounds import Ratio
from pipeline.allocator import keep_freed_memory
from pipeline.data.contest import LANDMARKS, find_contest
from pipeline.data.cores import num_cores
from pipeline.data.dataset import load_training_data
from pipeline.data.packing import Fitting, pack_photos
from pipeline.data.source import HostSource
from pipeline.inference.predict import predict_points
from pipeline.metrics import score
from pipeline.networks import load_run_network
from pipeline.runs import Run
from pipeline.runtime import Runtime

NUM_PACKED = 4000  # at most; of some hundred, the end, where one core waits for the other, would be a share of the time
NUM_ENLARGED, FACTOR = 1000, 2.5
BATCH = 32
RATES = "rate of packing over bare decoding and resizing"
ENLARGED = f"{RATES}, photos enlarged {FACTOR} times"


def clocked(work) -> np.ndarray:
    """Seconds by the clock, and of all cores."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - clock, time.process_time() - processor])


def decode_and_resize(paths: list[Path], size: int):
    """What no packing can do without, by all cores."""

    def one(path):
        photo = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        assert photo is not None
        height, width = (max(1, round(side * size / max(photo.shape[:2]))) for side in photo.shape[:2])
        cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)

    with ThreadPoolExecutor(num_cores()) as pool:
        list(pool.map(one, paths))


def packing(photos: Path, names: list[str], size: int, *, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Rates over that of bare work, by the clock and a second of processor time, of each round."""
    found: dict[str, list[np.ndarray]] = {"raw": [], "jpeg": []}
    for _ in range(rounds):
        bare = clocked(lambda: decode_and_resize([photos / name for name in names], size))
        for kind, ratios in found.items():
            with tempfile.TemporaryDirectory() as folder:
                pack = partial(pack_photos, Path(folder), names, photos, Fitting(size, "letterbox", kind))
                ratios.append(bare / clocked(pack))
    return {
        kind: dict(zip(("clock", "processor"), np.transpose(ratios).round(3).tolist(), strict=True))
        for kind, ratios in found.items()
    }


def rates(photos: Path, names: list[str], size: int, *, rounds: int) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Of the photos as they are, and enlarged as a camera's JPEGs would be."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names[:NUM_ENLARGED]:
            photo = cv2.imread(str(photos / name))
            assert photo is not None
            large = cv2.resize(photo, None, fx=FACTOR, fy=FACTOR, interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(Path(folder) / name), large, [cv2.IMWRITE_JPEG_QUALITY, 90])
        return {
            RATES: packing(photos, names, size, rounds=rounds),
            ENLARGED: packing(Path(folder), names[:NUM_ENLARGED], size, rounds=rounds),
        }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, help="measure the packing of this contest alone, without a run")
    parser.add_argument("--size", type=int, default=160, help="of the squares, with --data")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    if (options.run is None) == (options.data is None):
        parser.error("give either RUN or --data")
    return options


def main():
    options = parse()
    keep_freed_memory()  # as for a training
    if options.run:
        result = compare_on_a_run(Run(options.run), rounds=options.rounds)
    else:
        photos = find_contest(options.data) / Path(LANDMARKS).parent / "images"
        names = sorted(path.name for path in photos.iterdir())[:NUM_PACKED]
        result = {"photos": f"{len(names):,} packed, squares of {options.size} px"}
        result |= rates(photos, names, options.size, rounds=options.rounds)
    ratios = [
        Ratio.of(f"rate of packing, {which}{kind}, by the {clock}", "bare decoding and resizing", found)
        for measured, which in ((RATES, ""), (ENLARGED, "enlarged, "))
        for kind, clocks in result[measured].items()
        for clock, found in clocks.items()
    ]
    for measured in (RATES, ENLARGED):
        result[measured] = {
            kind: {clock: round(statistics.median(found), 3) for clock, found in clocks.items()}
            for kind, clocks in result[measured].items()
        }
    for name, value in result.items():
        print(f"{name:55} {value}")
    write_result("packing" if options.run else "packing_rates", result, ratios=ratios)


def compare_on_a_run(run: Run, *, rounds: int) -> dict[str, Any]:
    runtime, recipe = Runtime.choose(gpu=False), run.recipe()
    root = find_contest(recipe.run.data)
    with tempfile.TemporaryDirectory() as cache:
        data = {}
        for kind in ("raw", "jpeg"):
            photos = replace(run.photo_options(), pack=kind)
            data[kind] = load_training_data(replace(recipe, run=replace(recipe.run, cache=Path(cache)), photos=photos))
        samples = data["raw"].validation
        packs = {kind: one.pack for kind, one in data.items()}
        names = packs["raw"].names[:NUM_PACKED].tolist()
        found = rates(root / Path(LANDMARKS).parent / "images", names, packs["raw"].roi.square, rounds=rounds)
        sources = {kind: HostSource(pack.squares, torch.device("cpu")) for kind, pack in packs.items()}
        order = np.random.default_rng(0).permutation(len(packs["raw"]))[: 32 * BATCH].reshape(-1, BATCH)
        costs: dict[str, list[float]] = {kind: [] for kind in sources}
        for _ in range(rounds):
            for kind, source in sources.items():
                costs[kind].append(
                    clocked(lambda source=source: [source.take(batch) for batch in order])[1] / order.size
                )
        network = load_run_network(run, "best").eval()
        points = {kind: predict_points(network, pack, samples, runtime=runtime) for kind, pack in packs.items()}
        truth, groups = packs["raw"].values[samples], data["raw"].groups[samples]
        scores = {kind: score(found, truth, groups).mse for kind, found in points.items()}
        moved = np.sqrt(np.mean((points["jpeg"] - points["raw"]) ** 2))
        sizes = {
            kind: sum(path.stat().st_size for path in pack.folder.glob("images.*")) for kind, pack in packs.items()
        }
    return {
        "photos": f"{len(names):,} packed, {len(samples):,} held out, squares of {packs['raw'].roi.square} px",
        **found,
        "bytes of JPEGs over raw": round(sizes["jpeg"] / sizes["raw"], 3),
        "bytes of a JPEG for a pixel": round(3 * sizes["jpeg"] / sizes["raw"], 3),
        "processor time of taking a photo, microseconds": {
            kind: round(1e6 * statistics.median(found)) for kind, found in costs.items()
        },
        "MSE on held-out photos, JPEGs over raw": round(scores["jpeg"] / scores["raw"], 4),
        "RMS of what points move, over the RMS error": round(float(moved / np.sqrt(scores["raw"])), 4),
    }


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()
