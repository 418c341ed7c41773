"""The steps of the walkthrough: the commands of each, and which parts of their output the page quotes.

Commands run in a shell in the project folder, as a reader would type them: `*` stands for the time and the size in the
name of a run's folder. A name in braces is a figure found by an earlier step.
"""

from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path("walkthrough")
W = str(FOLDER)
TRAIN = "python hack_train.py --config configs/walkthrough.yaml"
PRETRAINED = f"--weights {W}/other/runs/*_other_*/best.pt"
RUN = {name: f"{W}/runs/*_{name}_*px" for name in ("rate-find-lr", "head", "full", "low", "eye")}
FOLDS = f"{W}/runs/*_cv-folds-3_*"
ENSEMBLE = f"{W}/runs/ensemble_*"
BLEND = f"{W}/blend.csv"
TRUTH = f"{W}/contest/test_truth.csv"

EPOCHS = r"^(epoch  minutes| +\d+ +\d+\.\d\d )"
BEST = {"mse": r"^best .*validation MSE ([\d.]+)"}
VIEWS = r"^(on held-out photos|as it is +\d.*…|equal weights|chosen)"
SUBMITTED = r"^(merged|submission) "


@dataclass(frozen=True)
class Step:
    """A step: its name, its commands, and

    makes: globs of what it makes, relative to the project folder; this is removed before the step is run again.
    quotes: a regular expression for the lines of its output that the page shows.
    figures: for each figure in its output, a regular expression with one group; the last match counts.
    """

    name: str
    commands: tuple[str, ...]
    makes: tuple[str, ...] = ()
    quotes: str = r"."
    figures: dict[str, str] = field(default_factory=dict)


def _scored(name: str, submission: str) -> Step:
    """The step that submits: here the contest's own answers play the leaderboard."""
    said = {
        "mse": r"MSE ([\d.]+)",
        "worst": r"^the worst 1 % .* (\d+ %) of",
        "middle": r"in the middle has ([\d.]+)",
    }
    return Step(f"score_{name}", (f"python -m tools.score {submission} {TRUTH}",), figures=said)


SUBMISSIONS = {
    "low": f"{RUN['low']}/submission.csv",
    "ensemble": f"{ENSEMBLE}/submission.csv",
    "folds": f"{FOLDS}/submission.csv",
    "blend": BLEND,
}

STEPS = (
    Step("contest", (f"python -m demo {W}/contest --train 1000 --test 200",), makes=(f"{W}/contest",)),
    Step(
        "inspect",
        (f"python -m tools.inspect --data {W}/contest --out {W} --cache {W}/cache --size 64",),
        makes=(f"{W}/data.html", f"{W}/data_sheets"),
    ),
    Step(
        "suspects",
        (f"python -m tools.suspects --data {W}/contest --out {W}/suspects --cache {W}/cache",),
        makes=(f"{W}/suspects",),
    ),
    Step(
        "pretrain",
        (
            f"python -m demo {W}/other --train 600 --test 1 --seed 1",
            f"{TRAIN} --name other --data {W}/other --runs {W}/other/runs \\\n"
            "    --weights none --head linear --deepest-stride 64 --epochs 6",
        ),
        makes=(f"{W}/other",),
        quotes=r"^(mean shape|best) ",
        figures=BEST | {"floor": r"^mean shape +MSE ([\d.]+)"},
    ),
    Step(
        "rate",
        (f"{TRAIN} --name rate --find-lr \\\n    {PRETRAINED}",),
        makes=(RUN["rate-find-lr"],),
        quotes=r"^(sweep|  +\d+ steps|steepest|lowest|proposed)",
        figures={"proposed": r"^proposed +--learning-rate ([\d.e-]+)", "lowest": r"^lowest +([\d.e-]+),"},
    ),
    Step(
        "head",
        (f"{TRAIN} --name head --freeze-epochs 3 --epochs 3 --learning-rate 1e-3 \\\n    {PRETRAINED}",),
        makes=(RUN["head"],),
        quotes=rf"^(photos|left/right|weights +loaded|mean shape|best) |{EPOCHS}",
        figures=BEST | {"floor": r"^mean shape +MSE ([\d.]+)"},
    ),
    Step(
        "full",
        (f"{TRAIN} --name full --init {RUN['head']} \\\n    --epochs 8 --learning-rate 1e-3",),
        makes=(RUN["full"],),
        quotes=rf"^best |{EPOCHS}",
        figures=BEST,
    ),
    Step(
        "low",
        (f"{TRAIN} --name low --init {RUN['full']} \\\n    --epochs 4 --learning-rate 1e-4 --keep-best 3",),
        makes=(RUN["low"],),
        quotes=rf"^best |{EPOCHS}",
        figures=BEST,
    ),
    Step(
        "sheet",
        (
            f"python -m tools.augment_sheet --config configs/walkthrough_by_eye.yaml \\\n"
            f"    --data {W}/contest --out {W}/sheets --cache {W}/cache",
        ),
        makes=(f"{W}/sheets",),
    ),
    Step(
        "eye",
        (
            f"python hack_train.py --config configs/walkthrough_by_eye.yaml --name eye \\\n"
            f"    --init {RUN['head']} --epochs 8 --learning-rate 1e-3",
        ),
        makes=(RUN["eye"],),
        quotes=r"^best ",
        figures=BEST,
    ),
    Step(
        "paired",
        (f"python -m tools.compare {RUN['full']} {RUN['eye']} --runs {W}/runs",),
        makes=(f"{W}/runs/index.html",),
        quotes=r"better than|told apart",
    ),
    Step(
        "folds",
        (f"{TRAIN} --name cv --folds 3 --epochs 14 --learning-rate 1e-3 \\\n    {PRETRAINED}",),
        makes=(FOLDS,),
        quotes=r"^(held out  |fold \d|all )",
    ),
    Step(
        "views",
        (f"python predict.py --runs {W}/runs --run {RUN['low']}",),
        makes=(SUBMISSIONS["low"], f"{RUN['low']}/views.json"),  # kept weights are not printed again
        quotes=rf"{VIEWS}|{SUBMITTED}",
        figures={"plain": r"^as it is +([\d.]+) .*…", "mse": r"^chosen +([\d.]+) "},
    ),
    Step(
        "average",
        (f"python -m tools.average {RUN['low']}",),
        makes=(f"{RUN['low']}-average",),
        quotes=r"^(best epoch|average of|written)",
    ),
    Step(
        "ensemble",
        (f"python predict.py --runs {W}/runs --run {RUN['low']} {RUN['eye']}",),
        makes=(ENSEMBLE, f"{RUN['eye']}/views.json"),
        quotes=rf"^\d{{8}}-\d{{6}}_|{VIEWS}|{SUBMITTED}",
        figures={"mse": r"^chosen +([\d.]+) "},
    ),
    Step("merge_folds", (f"python predict.py --runs {W}/runs --run {FOLDS}",), quotes=SUBMITTED),
    Step(
        "blend",
        (f"python -m tools.blend {SUBMISSIONS['ensemble']} \\\n    {SUBMISSIONS['folds']} --output {BLEND}",),
        makes=(BLEND, f"{BLEND}.json"),
    ),
    *(_scored(name, path) for name, path in SUBMISSIONS.items()),
    Step(
        "ledger",
        (
            *(f"python -m tools.ledger score {path} {{score_{name}_mse}}" for name, path in SUBMISSIONS.items()),
            f"python -m tools.ledger {BLEND} --runs {W}/runs",
        ),
        quotes=r"^(?!noted).*\S",
        figures={"differs": r"^\d+ of both: the leaderboard is ([+-][\d.]+) "},
    ),
    Step(
        "compare",
        (f"python -m tools.compare --runs {W}/runs",),
        makes=(f"{W}/runs/index.html",),
        quotes=r"^(?!.*fold-[12]).*\S",
    ),
)
