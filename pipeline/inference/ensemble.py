"""One run or several that predict together, merged as floats in pixels of the photos."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from augment.geometry import scale_of
from pipeline.blocks import blocks
from pipeline.data.boxes import Boxes
from pipeline.data.dataset import load_test_data
from pipeline.data.drawing import gallery, write_picture
from pipeline.data.pack import Pack, Squares
from pipeline.errors import UserError
from pipeline.files import digest, may_write
from pipeline.inference.fitted_weights import (
    Parts,
    SavedWeights,
    fit_and_judge,
    load_weights,
    print_scores,
    save_weights,
)
from pipeline.inference.held_out import held_out_by_all
from pipeline.inference.member import Member, load_member
from pipeline.inference.merge import blend, merge
from pipeline.inference.options import PredictOptions
from pipeline.inference.predict import mean_shape_points
from pipeline.inference.record import expected_of_mean
from pipeline.inference.uncertainty import Calibration, calibration_of_merge, mean_calibration
from pipeline.inference.weights import EQUAL
from pipeline.metrics import Scores
from pipeline.ranks import current_ranks
from pipeline.runs import Run, folder_of

NUM_SHOWN = 12
WITHOUT_VIEWS = "the run's validation, without views"
EACH_ALONE = "each run alone, on what it held out: the mean"


@dataclass(frozen=True)
class TestPrediction:
    """What was predicted of a contest's test photos, in the order of its table.

    points: (N, L, 2) in pixels of the photos. deviations: (N, L), how far a coordinate may be off.
    rows: in the table, of the photos that all runs see; the others are broken, or have no box. packs: one per run.
    samples: (R, M) indices in each of them of the photos of the rows.
    """

    names: list[str]
    points: np.ndarray
    deviations: np.ndarray
    rows: np.ndarray
    packs: list[Pack]
    samples: np.ndarray


@dataclass(frozen=True)
class Ensemble:
    """Runs and their weights, (R,) or (R, K); `kind` says where the weights come from. folder: where results go.

    calibration: of the variance over views and runs; without one, deviations are not calibrated. fitted_score: of what
    is merged, out of fold, if weights of several runs were fitted.
    """

    members: list[Member]
    weights: np.ndarray
    kind: str
    calibration: Calibration | None
    method: str
    power: float
    folder: Path
    fitted_score: Scores | None = None

    def predict_test(self, *, batch_size: int, boxes: Boxes | None = None) -> TestPrediction:
        """Predicts the points that the test asks for, each rank for a part of the photos; to be called by all ranks.

        Raises UserError with every fault of the data."""
        num_points = len(self.members[0].network.mean_shape)
        looked_at = [self._boxes_of(one, boxes) for one in self.members]
        opened = current_ranks().in_turn(
            lambda: [
                load_test_data(member.recipe, num_points, boxes=shown)
                for member, shown in zip(self.members, looked_at, strict=True)
            ]
        )
        table = opened[0][0]
        for other, _ in opened[1:]:
            if other.names != table.names or not np.array_equal(other.values, table.values):
                raise UserError("the runs were trained on contests with other test photos; give one with --data")
        points = np.empty((len(opened), *table.values.shape, 2), np.float32)
        variances = np.zeros(points.shape[:-1], np.float32)
        packs = [pack for _, pack in opened]
        there = np.logical_and.reduce([np.isin(table.names, pack.names) for pack in packs])
        rows = np.flatnonzero(there)
        if not len(rows):
            raise UserError("no test photo can be seen by all runs; name fewer runs with --run")
        samples = np.stack([np.flatnonzero(np.isin(pack.names, np.array(table.names)[rows])) for pack in packs])
        for i, (member, pack) in enumerate(zip(self.members, packs, strict=True)):
            points[i, ~there] = mean_shape_points(member.network, pack, table.values[~there])
            points[i, rows], variances[i, rows] = member.predict_together(
                pack, samples[i], pack.values[samples[i]], batch_size=batch_size, description="predicting"
            )
        merged, variance = np.empty(points.shape[1:]), np.empty(points.shape[1:-1], np.float32)
        means = np.zeros(2)
        for block in blocks(len(table.names)):
            weights = self.weights if self.weights.ndim == 1 else self.weights[:, table.values[block]]
            merged[block] = self._merge(points[:, block], weights)
            within, between = variances_of(points[:, block], variances[:, block], weights)
            variance[block] = within + between
            means += [part[there[block]].sum() / (variance.shape[1] * len(rows)) for part in (within, between)]
        variance[~there] = np.nan
        return TestPrediction(table.names, merged, self._deviations(variance, *means.tolist()), rows, packs, samples)

    def predict_all(self, packs: Sequence[Pack | Squares], samples: np.ndarray) -> np.ndarray:
        """(N, K, 2) all points of the photos at (R, N) `samples` of the runs' packs."""
        found = [
            member.predict(pack, own, batch_size=64)[0]
            for member, pack, own in zip(self.members, packs, samples, strict=True)
        ]
        return self._merge(np.stack(found), self.weights)

    def record(self, boxes: Boxes | None) -> dict[str, Any]:
        """What its predictions are made of, as plain data. boxes: those that were given."""
        runs = [
            {
                "run": str(member.run.folder.resolve()),
                "checkpoint": member.digest,
                "views": [view.plain for view in member.views],
                "weights": member.weights.tolist(),
                "data": str(member.recipe.run.data),
            }
            | ({"boxes": boxes.key} if boxes and self._takes(member, boxes) else {})
            | ({"locator": member.locator.digest} if member.locator and not self._takes(member, boxes) else {})
            for member in self.members
        ]
        return {"runs": runs, "weights": self.weights.tolist(), "merge": self.method, "power": self.power}

    def _boxes_of(self, member: Member, given: Boxes | None) -> Boxes | None:
        """The boxes of the test's photos for a member: those that are given, or, if these are for others that were
        trained on boxes, those that its locator finds, if it has one."""
        if self._takes(member, given):
            return given
        return member.locator.in_test(len(member.network.mean_shape)) if member.locator else None

    def looks_otherwise(self, boxes: Boxes | None) -> bool:
        """Whether boxes are shown to a run that was trained without: then what its held-out photos tell, which it has
        seen otherwise, is neither expected nor calibrates."""
        return any(self._takes(member, boxes) and not member.recipe.photos.on_boxes for member in self.members)

    def _takes(self, member, given):
        for_others = any(one.recipe.photos.on_boxes for one in self.members) and not member.recipe.photos.on_boxes
        return given is not None and not for_others

    def expected(self) -> dict[str, Any] | None:
        """The MSE to expect on the leaderboard, as far as held-out photos tell, with the ends of its 95 % interval if
        views were judged, and in words what it is of. None if nothing was judged and these are not the best weights,
        whose validation is known, or if runs are not merged by a mean."""
        score = self.members[0].expected if len(self.members) == 1 else self.fitted_score
        if score:
            return {"mse": score.mse, "low": score.low, "high": score.high, "of": "what is merged, on held-out photos"}
        if any(not one.expected and one.checkpoint != "best" for one in self.members):
            return None
        if len(self.members) > 1 and self.method not in ("weighted", "rank"):  # which may be worse than their mean
            return None
        alone = [vars(one.expected) if one.expected else {"mse": one.run.best_mse} for one in self.members]
        if len(alone) == 1:
            return {"mse": round(alone[0]["mse"], 4), "low": None, "high": None, "of": WITHOUT_VIEWS}
        return expected_of_mean(alone, self.weights.reshape(len(alone), -1).mean(axis=1).tolist(), of=EACH_ALONE)

    def draw(self, test: TestPrediction) -> list[Path]:
        """Pictures of test photos: of evenly chosen ones, and of those that are most doubtful for their size."""
        pack, own = test.packs[0], test.samples[0]
        deviations = test.deviations[test.rows].mean(axis=1)
        shares = deviations * scale_of(pack.photo_to_image[own]) / pack.roi.size
        kind = "error expected of a coordinate" if self.calibration else "spread of views and runs, not calibrated"
        chosen = {
            "test": ("Test photos", np.linspace(0, len(own) - 1, min(len(own), NUM_SHOWN)).astype(int)),
            "doubtful": ("Most doubtful test photos", np.argsort(-shares, kind="stable")[:NUM_SHOWN]),
        }
        paths = []
        for name, (title, photos) in chosen.items():
            points = self.predict_all(test.packs, test.samples[:, photos])
            title = f"{title}; ± {kind}, as a share of the picture's side and in pixels of the photo"
            captions = [f"±{shares[i]:.2%} of the side, {deviations[i]:.2f} px" for i in photos]
            picture = gallery(pack, own[photos], points, None, title=title, captions=captions)
            paths.append(Run(self.folder).picture(name))
            write_picture(paths[-1], picture)
        return paths

    def _merge(self, points, weights):
        return blend(points, weights, method=self.method, power=self.power)

    def _deviations(self, variance, within, between):
        """(N, L) from the variance over views and runs, given its means within runs and between them."""
        calibration = self.calibration
        if calibration and not calibration.table:
            calibration = calibration_of_merge(calibration, within, between)
        return calibration.deviation(variance) if calibration else np.sqrt(variance)


def variances_of(points: np.ndarray, variances: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, L) variances of a coordinate within runs and between them, from (R, N, L, 2) points and their (R, N, L)
    variances over views.
    """
    around = np.stack((variances, ((points - merge(points, weights)) ** 2).mean(axis=-1)), axis=-1)
    within, between = np.moveaxis(merge(around, weights), -1, 0)
    return within, between


def load_members(runs: list[Run], options: PredictOptions, device: torch.device) -> list[Member]:
    """The runs in a fixed order, so that the order in which they are given changes nothing.

    Raises UserError for runs that cannot predict together.
    """
    members = [load_member(run, options, device) for run in sorted(runs, key=lambda run: str(run.folder))]
    counts = {len(member.network.mean_shape) for member in members}
    if len(counts) > 1:
        raise UserError(f"the runs were trained on contests with {sorted(counts)} points; give those of one")
    return members


def weigh_runs(members: list[Member], options: PredictOptions) -> Ensemble:
    """The members as one. Their weights are fitted on the photos that all of them held out, if there are enough of
    these; "auto" takes those that were fitted before for the same members.
    """
    method, weights = options.merge, options.weights
    key = _key(members)
    home = _results_folder(members, key, options.runs)
    calibration = mean_calibration([member.calibration for member in members])
    shares = np.full(len(members), 1 / len(members))
    equal = Ensemble(members, shares, EQUAL, calibration, method, options.power, home)
    if len(members) == 1:
        return replace(equal, kind="one run", folder=members[0].run.folder)
    home.mkdir(parents=True, exist_ok=True)
    if method == "rank":
        errors = [member.run.best_mse for member in members]
        ranks = len(members) - np.argsort(np.argsort(errors)).astype(float)
        return replace(equal, weights=ranks / ranks.sum(), kind="weights by rank of the validation MSE")
    if method != "weighted" or weights == "equal":
        return replace(equal, kind=EQUAL if method == "weighted" else f"{method}, {EQUAL}")
    path, of, num_points = home / "ensemble.json", {"key": key}, len(members[0].network.mean_shape)
    fitted = None
    if weights == "auto":
        fitted = load_weights(path, SavedMerge, of=of, num_parts=len(members), num_points=num_points)
    if not fitted:
        try:
            packs, samples, groups = current_ranks().in_turn(
                lambda: held_out_by_all([(member.run, member.recipe) for member in members])
            )
        except UserError as error:
            print(f"weights     of the runs equal, since none can be fitted: {error}")
            return equal
        fitted, scores = _fitted(members, packs, samples, groups, batch_size=options.batch_size)
        about = {
            "runs": [str(member.run.folder) for member in members],
            "checkpoints": [member.digest for member in members],
            "scores": scores,
        }
        if current_ranks().is_main:
            save_weights(path, fitted, of=of, about=about)
        print_scores(f"merged runs, {len(groups):,} photos held out by all", scores)
    return replace(
        equal,
        weights=fitted.weights,
        kind=fitted.kind,
        calibration=fitted.calibration,
        fitted_score=fitted.expected,
    )


def _results_folder(members, key, runs):
    """The folder of the folds or stages if all are of one; otherwise a new one beside the runs, or in `runs`."""
    homes = {folder_of(member.run) for member in members}
    if len(homes) == 1:
        return homes.pop()
    parents = {home.resolve().parent for home in homes}
    beside = folder_of(members[0].run).parent if len(parents) == 1 else runs
    return (beside if may_write(beside) else runs) / f"ensemble_{key[:8]}"


@dataclass(frozen=True)
class SavedMerge(SavedWeights):
    """What is read from the ensemble.json of several runs."""

    key: str


def _key(members):
    """What the weights of these members belong to."""
    about = [[member.digest, [view.plain for view in member.views], member.weights.tolist()] for member in members]
    return digest(json.dumps(about).encode())


def _fitted(members, packs, samples, groups, *, batch_size):
    """Weights fitted on photos that all runs held out, and their scores.

    The runs' own weights of views may have been fitted on the same photos, so each run alone looks a little too good,
    but no run better than another.
    """
    found, seconds = [], []
    for member, pack, rows in zip(members, packs, samples, strict=True):
        begun = time.perf_counter()
        found.append(member.predict_together(pack, rows, batch_size=batch_size, description="held-out photos"))
        seconds.append((time.perf_counter() - begun) / len(rows))
    points, variances = (np.stack(arrays) for arrays in zip(*found, strict=True))
    parts = Parts(
        names=[member.run.folder.name for member in members],
        points=points,
        counts=np.ones(points.shape[:3], bool),
        seconds=np.array(seconds),
        truth=packs[0].values[samples[0]].astype(np.float64),
        groups=groups,
    )
    return fit_and_judge(
        parts, prune=False, spread_of=lambda weights: np.sqrt(np.add(*variances_of(points, variances, weights)))
    )
