"""One run or several that predict together, merged in pixels of the photos and in floats."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from augment.merge import blend, merge
from pipeline.data import load_test_data
from pipeline.errors import UserError
from pipeline.fitting import fit_weights
from pipeline.members import MIN_FITTED, Member, held_out, load_member
from pipeline.metrics import score
from pipeline.pack import Pack, Squares
from pipeline.pictures import gallery, write_picture
from pipeline.predictions import mean_shape_points
from pipeline.runs import Run, find_runs

NUM_SHOWN = 12


@dataclass(frozen=True)
class Prediction:
    """What was predicted of a contest's test photos, in the order of its table.

    points: (N, L, 2) in pixels of the photos. deviations: (N, L), how far a coordinate may be off.
    packs: one a run, all of the same photos. rows: their rows in the table; other photos are broken.
    """

    names: list[str]
    points: np.ndarray
    deviations: np.ndarray
    packs: list[Pack]
    rows: np.ndarray


@dataclass(frozen=True)
class Ensemble:
    """Runs and their weights, (R,) or (R, K); `kind` says how the weights were had. folder: where results go."""

    members: list[Member]
    weights: np.ndarray
    kind: str
    method: str
    power: float
    folder: Path

    def predict_test(
        self, data: Path | None, *, cache: Path | None, skip_bad_photos: bool, batch_size: int
    ) -> Prediction:
        """Predicts the points that the test asks for. Raises UserError with every fault of the data."""
        opened = []
        for member in self.members:
            own = member.recipe.run
            where = replace(own, data=data or own.data, cache=cache or own.cache, skip_bad_photos=skip_bad_photos)
            opened.append(load_test_data(replace(member.recipe, run=where), len(member.network.mean_shape)))
        table = opened[0][0]
        for other, _ in opened[1:]:
            if other.names != table.names or (other.values != table.values).any():
                raise UserError("the runs were trained on contests with other test photos; give one with --data")
        points = np.empty((len(opened), *table.values.shape, 2), np.float32)
        variances = np.zeros(points.shape[:-1], np.float32)
        packs = [pack for _, pack in opened]
        rows = np.flatnonzero(np.isin(table.names, packs[0].names))
        for place, (member, pack) in enumerate(zip(self.members, packs, strict=True)):
            points[place] = mean_shape_points(member.network, pack, table.values)
            points[place, rows], variances[place, rows] = member.predict(
                pack, np.arange(len(pack)), pack.values, batch_size=batch_size, description="predicting"
            )
        weights = self.weights if self.weights.ndim == 1 else self.weights[:, table.values]
        return Prediction(
            table.names,
            self._merge(points, weights),
            self._deviations(points, variances, weights),
            packs,
            rows,
        )

    def predict_all(self, packs: Sequence[Pack | Squares], samples: np.ndarray) -> np.ndarray:
        """(N, K, 2) all points of the photos at `samples` of the runs' packs."""
        found = [
            member.predict(pack, samples, batch_size=64)[0] for member, pack in zip(self.members, packs, strict=True)
        ]
        return self._merge(np.stack(found), self.weights)

    def draw(self, test: Prediction) -> list[Path]:
        """Pictures of test photos, evenly chosen, and of those that are most doubtful for their size."""
        pack = test.packs[0]
        scale = np.sqrt(np.abs(np.linalg.det(pack.fits[:, :2, :2])))
        doubt = test.deviations[test.rows].mean(axis=1) * scale
        chosen = {
            "test": np.linspace(0, len(pack) - 1, min(len(pack), NUM_SHOWN)).astype(int),
            "doubtful": np.argsort(-doubt, kind="stable")[:NUM_SHOWN],
        }
        paths = []
        for name, samples in chosen.items():
            points = self.predict_all(test.packs, samples)
            picture = gallery(pack.images[samples], pack.fits[samples], points, None, pack.names[samples].tolist())
            paths.append(Run(self.folder).picture(name))
            write_picture(paths[-1], picture)
        return paths

    def _merge(self, points, weights):
        return blend(points, weights, method=self.method, power=self.power)

    def _deviations(self, points, variances, weights):
        mean = merge(points, weights)
        around = variances[..., None] + (points - mean) ** 2
        variance = merge(around, weights).mean(axis=-1)
        calibrations = [member.calibration for member in self.members if member.calibration]
        if not calibrations:
            return np.sqrt(variance)
        return np.mean([calibration.deviation(variance) for calibration in calibrations], axis=0)


def load_ensemble(
    folders: tuple[Path, ...],
    runs: Path,
    *,
    checkpoint: str,
    views: Path | None,
    weights: str,
    method: str,
    power: float,
    device: torch.device,
    batch_size: int,
) -> Ensemble:
    """The runs in `folders`, or the newest below `runs`, ready to predict; see `load_member` and `find_runs`.

    Weights of several runs are fitted on the photos that all of them held out, where there are enough of these.
    Raises UserError for runs that cannot predict together.
    """
    found = sorted(find_runs(folders, runs), key=lambda run: str(run.folder))
    members = [
        load_member(run, checkpoint=checkpoint, views=views, weights=weights, device=device, batch_size=batch_size)
        for run in found
    ]
    counts = [len(member.network.mean_shape) for member in members]
    if len(set(counts)) > 1:
        raise UserError(f"the runs were trained on contests with {sorted(set(counts))} points; give those of one")
    shares, kind = _run_weights(members, weights, method, batch_size)
    folder = found[0].folder
    folder = folder.parent if folder.name.startswith("fold-") and len(found) > 1 else folder
    return Ensemble(members, shares, kind, method, power, folder)


def _run_weights(members, weights, method, batch_size):
    equal = np.full(len(members), 1 / len(members))
    if len(members) == 1:
        return equal, "one run"
    if method == "rank":
        errors = [min(row["validation_mse"] for row in member.run.read_metrics()) for member in members]
        ranks = len(members) - np.argsort(np.argsort(errors)).astype(float)
        return ranks / ranks.sum(), "weights by rank of the validation MSE"
    if method != "weighted" or weights == "equal":
        return equal, "equal weights" if method == "weighted" else f"{method} with equal weights"
    common = sorted(set.intersection(*(set(member.run.split.read_text().split("\n")) - {""} for member in members)))
    if len(common) < MIN_FITTED:
        return equal, f"equal weights: {len(common)} photos were held out by all of them"
    return _fitted(members, common, batch_size)


def _fitted(members, names, batch_size):
    """Weights fitted on photos that all runs held out; what they bring is said and saved."""
    found = []
    for member in members:
        data, _ = held_out(member)
        place = {name: row for row, name in enumerate(data.pack.names)}
        samples = np.array([place[name] for name in names if name in place])
        found.append(member.predict(data.pack, samples, batch_size=batch_size, description="held-out photos")[0])
        truth, groups = data.pack.values[samples], data.groups[samples]
    errors = np.stack(found) - truth
    fit = fit_weights(errors, np.ones(errors.shape[:3], bool), groups, prune=False)
    rows = [(member.run.folder.name, one) for member, one in zip(members, errors, strict=True)]
    rows += [(kind, fit.judged[kind]) for kind in ("equal weights", "a weight a part", "chosen")]
    wide = max(len(name) for name, _ in rows)
    print(f"\nmerged runs, {len(truth)} photos that all of them held out")
    for name, error in rows:
        print(f"{name:{wide}}  {score(error + truth, truth, groups)}")
    return fit.weights, fit.kind
