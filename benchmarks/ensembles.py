"""What views, fitted weights and folds bring on people that nobody trained on.

    python -m benchmarks.ensembles --data PATH --out FOLDER [flags of hack_train.py]

One person in ten is held out as the test of a smaller contest; five folds are trained on the others. Every row of the
table is scored on all points of the test photos; a row's change is against the mean of the single networks, with a
95 % interval from resampling people. Beside it what the views bring on the photos that the folds held out, which are
many more, and what any number of such networks would bring.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.results import write_result
from pipeline.inference.submission import read_submission
from pipeline.metrics import mse_of_photos, normalised_mean_error

ROOT = Path(__file__).parents[1]
FOLDS = 5
EVERY = 10


def write_smaller_contest(data: Path, out: Path) -> tuple[np.ndarray, np.ndarray]:
    """A contest whose test are the people with group ≡ 0 (mod EVERY). Returns its truth and groups, in its order."""
    table = pd.read_csv(data / "train/landmarks.csv", sep="\t", index_col=0)
    groups = pd.read_csv(data / "train/groups.csv", sep="\t", index_col=0).group.loc[table.index]
    test = (groups % EVERY == 0).to_numpy()
    for part in ("train", "test"):
        (out / part).mkdir(parents=True, exist_ok=True)
        if not (out / part / "images").exists():
            (out / part / "images").symlink_to((data / "train/images").resolve())
    table[~test].to_csv(out / "train/landmarks.csv", sep="\t")
    groups[~test].to_csv(out / "train/groups.csv", sep="\t")
    asked = json.dumps(list(range(table.shape[1] // 2)))
    pd.DataFrame({"file_name": table.index[test], "point_index_list": asked}).to_csv(
        out / "test/test_points.csv", sep="\t", index=False
    )
    return table[test].to_numpy(float).reshape(test.sum(), -1, 2), groups[test].to_numpy()


def run(script: str, *arguments):
    subprocess.run([sys.executable, str(ROOT / script), *map(str, arguments)], check=True)


def interval(error: np.ndarray, base: np.ndarray, groups: np.ndarray) -> list[float]:
    """95 % interval of the relative change of the mean error, people resampled."""
    rng = np.random.default_rng(0)
    index = np.unique(groups, return_inverse=True)[1]
    sums = np.stack([np.bincount(index, values) for values in (error, base)])
    drawn = rng.integers(0, sums.shape[1], (2000, sums.shape[1]))
    one, other = sums[:, drawn].sum(axis=2)
    return [round(float(value), 4) for value in np.quantile(one / other - 1, (0.025, 0.975))]


def compare(rows: dict[str, tuple[np.ndarray, float]], groups: np.ndarray) -> dict[str, dict]:
    """What each row scores, from its photos' errors and its NME, and how its error differs from the first row's."""
    (base, _), *_ = rows.values()
    return {
        name: {
            "mse": round(float(errors.mean()), 3),
            "median photo": round(float(np.median(errors)), 3),
            "nme %": round(float(nme), 3),
            "change of mse": round(float(errors.mean() / base.mean() - 1), 4),
            "95 %": interval(errors, base, groups),
        }
        for name, (errors, nme) in rows.items()
    }


def without_end(change: float) -> float:
    """The change that any number of networks would bring at most, where FOLDS of them bring `change`.

    The error of a mean of n networks is the mean of their errors less the variance among the n (Krogh and Vedelsby
    1995), which on average is (n - 1) / n of that among all.
    """
    return change * FOLDS / (FOLDS - 1)


def on_held_out(folds: list[Path]) -> dict[str, dict]:
    """What the views brought on the photos that each fold held out: mean of the folds, and each fold's change."""
    found = [json.loads((fold / "views.json").read_text())["scores"] for fold in folds]
    errors = np.array([[row["mse"] for row in rows] for rows in found])
    means, changes = errors.mean(axis=0), errors / errors[:, :1] - 1
    return {
        row["part"]: {
            "mse": round(float(means[part]), 3),
            "change of mse": round(float(means[part] / means[0] - 1), 4),
            "by fold": changes[:, part].round(4).tolist(),
        }
        for part, row in enumerate(found[0])
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options, flags = parser.parse_known_args()
    contest, runs, cache = options.out / "contest", options.out / "runs", options.out / "cache"
    truth, groups = write_smaller_contest(options.data, contest)
    if not list(runs.glob("*/held_out.csv")):
        paths = ["--data", contest, "--runs", runs, "--cache", cache, "--name", "folds", "--folds", FOLDS]
        run("hack_train.py", *paths, *flags)
    folder = next(runs.glob("*/held_out.csv")).parent
    folds = [folder / f"fold-{fold}" for fold in range(FOLDS)]
    (options.out / "single.json").write_text("[[]]")

    def predicted(folders, *how):
        output = options.out / "submission.csv"
        run("predict.py", "--run", *folders, "--output", output, "--decimals", 4, *how)
        return read_submission(output)[1]

    ways = {
        "one view": ("--views", options.out / "single.json", "--weights", "equal"),
        "views, equal weights": ("--weights", "equal"),
        "views, fitted weights": (),
    }
    rows = {}
    for way, how in ways.items():
        single = [predicted([fold], *how) for fold in folds]
        rows[f"{way}, mean of single networks"] = (
            np.mean([mse_of_photos(points, truth) for points in single], axis=0),
            float(np.mean([normalised_mean_error(points, truth) for points in single])),
        )
        together = predicted([folder], *how)
        rows[f"{way}, {FOLDS} folds"] = (mse_of_photos(together, truth), normalised_mean_error(together, truth))
    table = compare(rows, groups)
    print(f"\n{'':46}{'MSE':>9}{'median':>9}{'NME %':>8}{'change':>9}   95 %")
    for name, row in table.items():
        print("{:46}{:9.3f}{:9.3f}{:8.3f}{:9.1%}   {}".format(name, *row.values()))
    views = on_held_out(folds)
    print(f"\n{'on what the folds held out':46}{'MSE':>9}{'change':>17}")
    for name, row in views.items():
        print(f"{name:46}{row['mse']:9.3f}{row['change of mse']:17.1%}")
    bound = without_end(table[f"one view, {FOLDS} folds"]["change of mse"])
    print(f"\n{'any number of such networks would bring':46}{bound:26.1%}")
    write_result(
        "ensembles",
        {
            "test photos": len(truth),
            "people": len(np.unique(groups)),
            "rows": table,
            "any number of such networks": round(bound, 4),
            "on held-out photos": views,
        },
    )


if __name__ == "__main__":
    main()
