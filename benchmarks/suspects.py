"""Does the list of suspects find labels that are wrong, and does it help to leave them out?

    python -m benchmarks.suspects --data PATH --out FOLDER
    python -m benchmarks.suspects --data PATH --out FOLDER --clean

A copy of a contest whose photos are links; one group in five keeps its labels and is held out. Of each kind of fault
one in a hundred of the other labels is made wrong. The list is made from labels alone, from a run, and from folds; for
each, how many of each kind are among the suspects, and how many suspects are wrong. Then the same recipe is trained
with nothing left out, without the suspects of the run, and without the labels that were made wrong. With --clean none
is made wrong: the same recipe is trained with nothing left out, without the suspects of the run, and without as many
photos at random.
"""

import argparse
import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.ensembles import interval
from benchmarks.results import write_result
from pipeline.data.suspects import LEAST
from pipeline.data.symmetry import find_flip_indices
from pipeline.inference.measured import load_measured

ROOT = Path(__file__).parents[1]
SHARE = 0.01  # of the labels, for each kind
EVERY = 5
FLAGS = (
    "--weights", "none", "--model", "resnet18", "--head", "integral", "--map-stride", "8", "--deepest-stride", "16",
    "--size", "64", "-b", "16", "--precision", "fp32",
)  # fmt: skip
REASONS = {  # that name what was done
    "shifted": "shifted",
    "sides exchanged": "exchanged",
    "few points off": "few points",
    "of another photo": "",
    "scaled": "scaled",
    "copy with another label": "duplicate",
}


def size_of(shape: np.ndarray) -> float:
    """Root mean square distance of (K, 2) points from their centre."""
    return float(np.sqrt(((shape - shape.mean(axis=0)) ** 2).sum(axis=1).mean()))


def shifted(shape, rng):
    angle = rng.uniform(0, 2 * np.pi)
    return shape + rng.uniform(0.2, 0.5) * size_of(shape) * np.array((np.cos(angle), np.sin(angle)))


def scaled(shape, rng):
    centre = shape.mean(axis=0)
    return centre + (shape - centre) * rng.choice((0.7, 0.8, 1.25, 1.4))


def few_off(shape, rng):
    moved, few = shape.copy(), rng.permutation(len(shape))[: max(1, len(shape) // 20)]
    moved[few] += rng.normal(size=(len(few), 2)) * size_of(shape)
    return moved


def corrupted(points: np.ndarray, usable: np.ndarray, groups: np.ndarray, *, share: float):
    """(N, K, 2) points with wrong labels, and for each wrong row its kind; and rows whose photos are there once more,
    with their wrong labels."""
    rng = np.random.default_rng(1)
    partners = find_flip_indices(points, np.arange(len(points)))
    count = round(share * len(usable))
    rows = iter(np.split(rng.permutation(usable)[: len(REASONS) * count], len(REASONS)))
    wrong, kind_of = points.copy(), {}
    changes = {
        "shifted": shifted,
        "sides exchanged": lambda shape, rng: shape[partners],
        "few points off": few_off,
        "scaled": scaled,
    }
    for kind, change in changes.items():
        for row in next(rows):
            wrong[row] = change(points[row], rng)
            kind_of[row] = kind
    for row in next(rows):
        wrong[row] = points[rng.choice(np.flatnonzero(groups != groups[row]))]
        kind_of[row] = "of another photo"
    copies = next(rows)
    labels = [shifted(points[row], rng) for row in copies]
    return wrong, kind_of, copies, np.reshape(labels, (-1, *points.shape[1:]))


def write_contest(data: Path, out: Path, *, share: float) -> dict[str, str]:
    """Writes the contest of wrong labels and the names that are held out. Returns the kind of each wrong one."""
    table = pd.read_csv(data / "train/landmarks.csv", sep="\t", index_col=0)
    groups = pd.read_csv(data / "train/groups.csv", sep="\t", index_col=0).group.loc[table.index]
    points = table.to_numpy(float).reshape(len(table), -1, 2)
    held_out = (groups % EVERY == 0).to_numpy()
    usable = np.flatnonzero(~held_out)
    wrong, kind_of, copies, labels = corrupted(points, usable, groups.to_numpy(), share=share)
    images = out / "train/images"
    names = table.index.tolist()
    for name in names:
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).symlink_to((data / "train/images" / name).resolve())
    twice = [str(Path(names[row]).with_name(f"again_{Path(names[row]).name}")) for row in copies]
    for name, row in zip(twice, copies, strict=True):
        (images / name).symlink_to((data / "train/images" / names[row]).resolve())
    whole = np.concatenate((wrong, labels)).reshape(len(points) + len(copies), -1).round()
    pd.DataFrame(whole, [*names, *twice], table.columns).to_csv(
        out / "train/landmarks.csv", sep="\t", index_label="file_name"
    )
    group = pd.Series([*groups, *groups.iloc[copies]], [*names, *twice], name="group")
    group.to_csv(out / "train/groups.csv", sep="\t", index_label="file_name")
    (out / "held_out.txt").write_text("".join(f"{names[row]}\n" for row in np.flatnonzero(held_out)))
    return {names[row]: kind for row, kind in kind_of.items()} | dict.fromkeys(twice, "copy with another label")


def run(*arguments) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE
    )
    return done.stdout


def train(out: Path, name: str, *flags) -> Path:
    """The folder of a run that is trained, unless it was before."""
    runs = out / name
    if not (runs / "done").exists():
        shutil.rmtree(runs, ignore_errors=True)
        run("hack_train.py", "-n", name, "-d", out, "--cache", out / "cache", "--runs", runs, *FLAGS, *flags)
        (runs / "done").touch()
    return next(path for path in runs.iterdir() if path.is_dir())


def list_of(out: Path, name: str, *arguments) -> list[dict[str, str]]:
    folder = out / f"suspects {name}"
    print(
        run("-m", "tools.suspects", *arguments, "-d", out, "--cache", out / "cache", "--out", folder, "--count", "24")
    )
    return [row for row in csv.DictReader((folder / "suspects.csv").open()) if float(row["score"] or 0) >= LEAST]


def judge(rows: list[dict[str, str]], kind_of: dict[str, str]) -> dict[str, object]:
    """Precision, and the share of each kind that is found; of those how many have a reason that names it. A photo whose
    copy has the wrong label is no mistake in a list: which of the two is wrong cannot be known, so it is left out."""
    rows = [row for row in rows if row["file_name"] in kind_of or not kind_of.keys() & set(row["duplicate_of"].split())]
    found = [row for row in rows if row["file_name"] in kind_of]
    first = [row["file_name"] in kind_of for row in rows[: len(kind_of)]]
    kinds = {}
    for kind, word in REASONS.items():
        own = [row for row in found if kind_of[row["file_name"]] == kind]
        total = sum(each == kind for each in kind_of.values())
        named = sum(word in row["reason"] for row in own) if word else None
        kinds[kind] = {"made": total, "found": len(own), "named": named}
    return {
        "suspects": len(rows),
        "precision": round(len(found) / max(len(rows), 1), 3),
        "recall": round(len(found) / len(kind_of), 3),
        "found in a list as long as what was made": round(sum(first) / len(kind_of), 3),
        "kinds": kinds,
    }


def errors_of(folder: Path) -> dict[str, float]:
    """Of the last epoch, on labels that were left as they are."""
    *_, last = csv.DictReader((folder / "metrics.csv").open(encoding="utf-8"))
    names = ("validation_mse", "validation_low", "validation_high", "validation_nme")
    return {name.removeprefix("validation_"): round(float(last[name]), 3) for name in names}


def change_of(folder: Path, base: Path) -> dict[str, object]:
    """The relative change of the best weights' MSE on the same photos, with a 95 % interval from resampling groups."""
    one, other = load_measured(folder), load_measured(base)
    assert one
    assert other
    assert (one.names == other.names).all()
    whole = float(one.sums.sum() / other.sums.sum() - 1)
    return {"change": round(whole, 4), "interval": interval(one.sums, other.sums, one.groups)}


def write_left_out(path: Path, names) -> Path:
    path.write_text("file_name,weight\n" + "".join(f"{name},0\n" for name in names))
    return path


def trained_without(out: Path, plain: Path, left_out: dict[str, list[str]], split) -> dict[str, dict[str, object]]:
    """The errors of a training with all photos and of those without some, and how these change the first."""
    trainings: dict[str, dict[str, object]] = {"with all": dict(errors_of(plain))}
    for name, names in left_out.items():
        weights = write_left_out(out / f"{name}.csv", names)
        folder = train(out, name, *split, "--sample-weights", weights)
        trainings[name] = {"left out": len(names)} | errors_of(folder) | change_of(folder, plain)
    return trainings


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", default="6")
    parser.add_argument("--fold-epochs", type=int, default=5, help="0 leaves folds out")
    parser.add_argument("--clean", action="store_true", help="make no label wrong")
    options = parser.parse_args()
    out = options.out.resolve()
    shutil.rmtree(out / "train", ignore_errors=True)
    kind_of = write_contest(options.data.resolve(), out, share=0 if options.clean else SHARE)
    split = ("--split", out / "held_out.txt", "-e", options.epochs)
    held_out = set((out / "held_out.txt").read_text().split())
    names = pd.read_csv(out / "train/landmarks.csv", sep="\t", usecols=[0]).iloc[:, 0].tolist()
    plain = train(out, "all", *split)
    lists = {"labels alone": list_of(out, "labels alone"), "a run": list_of(out, "a run", plain)}
    suspects = [row["file_name"] for row in lists["a run"] if row["file_name"] not in held_out]
    if options.clean:
        others = np.random.default_rng(0).permutation([name for name in names if name not in held_out])
        left_out = {"without the suspects": suspects, "without as many": others[: len(suspects)].tolist()}
        trainings = trained_without(out, plain, left_out, split)
        write_result("suspects_clean", {"photos": len(names), "trainings": trainings})
        return
    if options.fold_epochs:
        folds = train(out, "folds", "-e", options.fold_epochs, "--folds", "2")
        lists["folds"] = list_of(out, "folds", folds)
    left_out = {"without the suspects": suspects, "without what was made wrong": list(kind_of)}
    judged = {name: judge(rows, kind_of) for name, rows in lists.items()}
    trainings = trained_without(out, plain, left_out, split)
    write_result("suspects", {"photos": len(names), "lists": judged, "trainings": trainings})


if __name__ == "__main__":
    main()
