"""The command line of a training: flags over recipe files, or over the recipe of a run.

Nothing here imports torch, so that `--help` appears at once.
"""

import argparse
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import TypeAdapter
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, UseAppendAction, arg

from pipeline.cli import check_arguments, flag_of
from pipeline.errors import UserError
from pipeline.old_names import rename_flags
from pipeline.precedence import LENGTH, OF_NETWORK, TIMES, WHOLE, Given, HandedOn, override, replaced_by
from pipeline.recipe import (
    CHANGEABLE_ON_RESUME,
    HAS_EFFECT_WITH,
    LossOptions,
    NetworkOptions,
    PartOfSquare,
    Recipe,
    build_recipe,
    changes,
    flatten,
    needs_distributions,
)
from pipeline.recipe_file import FOLDS, RUN_RECIPE, read_given, read_recipe
from pipeline.stages import check_stages, last_stage


@dataclass(frozen=True)
class Command:
    """The options of `hack_train.py`."""

    config: Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="FILE")] = ()
    """A recipe file, such as those in configs/, which may extend others. Repeat it to give several: later files
    override earlier ones, and flags override all."""
    resume: Annotated[Path | None, arg(metavar="RUN")] = None
    """Resume this run, or these folds or stages, from the last checkpoint. You may raise --epochs or --minutes of a
    run."""
    folds: Annotated[int | None, arg(metavar="INT")] = None
    """Train this many runs, each of which holds out a different part; predict.py merges them."""
    find_lr: bool = False
    """Train nothing, but sweep the learning rate over some steps and propose one."""
    recipe: Recipe = field(default_factory=Recipe)


def parse_command(arguments: list[str]) -> Command:
    """Flags over recipe files, the later over the earlier, or over the recipe of the run that is resumed.

    Prints what overrides what. Raises UserError for a value that is not allowed, or that contradicts the run that the
    network comes from; exits with status 2 for an unknown flag.
    """
    arguments = rename_flags(arguments)
    check_arguments(arguments)
    early = _read_early(arguments)
    length = [name for name in LENGTH if getattr(early, name) is not None]
    given, handed_on, base = _before_flags(early, length)
    try:
        command = tyro.cli(
            Command,
            args=arguments,
            default=Command(recipe=base),
            description="Trains a landmark regressor on a folder of photos and a table of points.",
            config=(OmitArgPrefixes, FlagCreatePairsOff),
        )
    except RecursionError as error:  # json's parser calls itself for each bracket
        raise UserError("--augment, --views or --stages is nested too deeply to be a list of mappings") from error
    recipe = build_recipe(flatten(command.recipe), name_of=flag_of)
    words = {argument.partition("=")[0].replace("_", "-") for argument in arguments}
    agreeing = [name for name in OF_NETWORK if handed_on and flag_of(name) in words]  # with the run, over files
    told = changes(recipe, base) | {name: flatten(recipe)[name] for name in (*length, *agreeing)}
    flags = {name: Given(value, flag_of(name)) for name, value in told.items()}
    if handed_on:
        recipe = _with_handed_on(recipe, handed_on, given | flags, folds=bool(command.folds))
    command = dataclasses.replace(command, recipe=recipe)
    _check_together(command, flags)
    override(given, flags)
    check_stages(recipe, name_of=lambda name: _source_of(name, given | flags))
    _print_without_effect(recipe, flags)
    _print_stages(recipe.run.stages, flags)
    if recipe.photos.locate and recipe.run.stages and not command.resume:
        print(f"locate       {recipe.photos.locate:g} is a share of stage 0 alone, which has to be long enough for it")
    return command


def _with_handed_on(recipe: Recipe, run: HandedOn, given: dict[str, Given], *, folds: bool) -> Recipe:
    """The recipe with what a run hands on. Raises UserError for a field that contradicts it."""
    run.check(given)
    own = run.network
    if run.looks_elsewhere(given):
        own = own | {"roi": given["roi"].value if "roi" in given else "auto"}
    if not folds and not {"data", "split", "train_share"} & given.keys():
        own = own | {"split": run.split}
    return build_recipe(flatten(recipe) | own, name_of=flag_of)


def _source_of(name: str, said: dict[str, Given]) -> str:
    """How a message names a field: by its flag, or by the file that gives it."""
    source = said[name].source if name in said else flag_of(name)
    return source if source == flag_of(name) else f"{source}: {name}"


def _read_early(arguments: list[str]) -> argparse.Namespace:
    """The flags that say where the others' defaults come from, and those of the length, which count where they say the
    same as a file does, too."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", type=Path, action="append", default=[])
    early.add_argument("--resume", type=Path)
    early.add_argument("--init", type=Path)
    for names in (["--epochs", "-e"], ["--minutes"], ["--session-minutes"]):
        early.add_argument(*names, nargs="?", const="")
    found, _ = early.parse_known_args(arguments)
    if found.config and found.resume:
        raise UserError("--config and --resume exclude each other: a run is resumed with its own recipe")
    return found


def _before_flags(early: argparse.Namespace, length: list[str]) -> tuple[dict[str, Given], HandedOn | None, Recipe]:
    """What recipe files give, what a run hands on that the network starts from, and the recipe that both make. length:
    the fields of the length that a flag gives, which replace those of files."""
    given: dict[str, Given] = {}
    for path in [early.resume / RUN_RECIPE] if early.resume else early.config:
        given = override(given, read_given(path))
    values = {name: field.value for name, field in given.items()} | dict.fromkeys(replaced_by(length))
    init = early.init or values.get("init")
    handed_on = read_handed_on(last_stage(Path(init))) if init and not early.resume else None
    if handed_on:
        values = {"data": handed_on.data, **values, **handed_on.network}
    return given, handed_on, build_recipe(values, name_of=flag_of)


def _print_without_effect(recipe: Recipe, flags: dict[str, Given]):
    """Prints which flags have no effect because of the value of another field."""
    fields = flatten(recipe)
    for name in flags.keys() & HAS_EFFECT_WITH.keys():
        other, values = HAS_EFFECT_WITH[name]
        if not any(stage.get(other, fields[other]) in values for stage in [{}, *recipe.run.stages]):
            why = f"{flag_of(other)} {fields[other]}; it is for {', '.join(values)}"
            print(f"{name:12} {flags[name]} does nothing with {why}")
    trims = [stage.keys() & {"top_perc_train", "without_top_perc_train"} for stage in recipe.run.stages]
    if not recipe.loss.trims and not any(trims):
        for name in sorted(flags.keys() & {"trim_from", "trim_by", "trim_at_random"}):
            print(f"{name:12} {flags[name]} does nothing without --top-perc-train or --without-top-perc-train")


def _print_stages(stages: list[dict[str, Any]], flags: dict[str, Given]):
    """Prints which flags do not hold in a stage because the stage has its own value."""
    for name, given in flags.items():
        also = set(LENGTH) if name in LENGTH else set()
        if own := [str(number) for number, stage in enumerate(stages) if {name, *also} & stage.keys()]:
            print(f"{name:12} {given} does not hold in stage {', '.join(own)}, which has its own")


def _check_together(command: Command, flags: dict[str, Given]):
    """Raises UserError for flags that exclude each other."""
    recipe = command.recipe
    if command.find_lr and (command.folds or command.resume):
        raise UserError("--find-lr is for a run that is to be started; leave out --folds and --resume")
    if command.folds is not None:
        _check_folds(command)
    _check_length(command, flags)
    _check_head(recipe.network, recipe.loss)
    if command.resume:
        _check_resumed(command, flags)
    else:
        _check_photos(recipe)
        _check_start(recipe)


def _check_folds(command):
    if command.folds < 2:
        raise UserError(f"--folds {command.folds}: at least 2 are needed")
    if command.resume or command.recipe.photos.split:
        raise UserError("--folds makes splits of its own, and is resumed by --resume alone; leave out the other flag")
    if command.recipe.photos.locator:
        raise UserError("--folds: --locator has seen photos that are to be held out; give --locate instead")
    if command.recipe.run.stages:
        raise UserError("--folds and stages exclude each other; leave out --folds, or the stages of the recipe")


def _check_length(command, flags):
    several = command.folds or command.recipe.run.stages or (command.resume and (command.resume / FOLDS).exists())
    if command.recipe.running.session_minutes and several:
        raise UserError(
            "--session-minutes is for one run; for folds give --minutes, the time of each of them, and for stages the "
            "session_minutes by which each of them ends"
        )
    if set(TIMES) <= flags.keys():
        raise UserError("--minutes and --session-minutes both say when the training ends; leave out one of them")


def _check_head(network: NetworkOptions, loss: LossOptions):
    if network.deepest_stride < NetworkOptions.deepest_stride and network.head == "linear":
        raise UserError(
            f"--deepest-stride {network.deepest_stride}: the linear head stands on the whole backbone; "
            "give another --head"
        )
    if needs_distributions(loss) and network.head != "simcc":
        raise UserError(
            f"--loss {loss.loss} is of --head simcc, not of {network.head}; add --head simcc, or give another --loss"
        )


def _check_resumed(command, flags):
    if fixed := sorted(flags.keys() - CHANGEABLE_ON_RESUME):
        raise UserError(f"{flag_of(fixed[0])} cannot change on --resume; start a new run with --init {command.resume}")
    if command.recipe.run.stages and (fixed := sorted(flags.keys() & {"epochs", "minutes"})):
        raise UserError(f"{flag_of(fixed[0])} cannot change on --resume of stages, of which each has its own length")


def _check_photos(recipe: Recipe):
    photos = recipe.photos
    if photos.limit_photos and photos.split:
        raise UserError(f"--limit-photos leaves out photos that --split {photos.split} names; leave out one of them")
    if sum(map(bool, (photos.boxes, photos.locate, photos.locator))) > 1:
        raise UserError("--boxes, --locate and --locator all say where to look; give one of them")


def _check_start(recipe: Recipe):
    init, weights = recipe.network.init, recipe.network.weights
    if init and recipe.photos.locate:
        raise UserError(f"--locate: --init {init} looks where it was trained to; leave out one of them")
    if init and weights not in ("imagenet", "none"):
        raise UserError(f"--init and --weights {weights} both say where to start; leave out one of them")


def read_handed_on(run: Path) -> HandedOn:
    """What a run hands on to another that starts from its weights."""
    fields = flatten(read_recipe(run / RUN_RECIPE))
    stated = {name: fields[name] for name in OF_NETWORK}
    about = run / "data.json"
    roi = stated["roi"]
    if about.exists():  # folds have none; they are refused by name when their weights are looked for
        try:
            found = TypeAdapter(dict[str, Any]).validate_json(about.read_bytes())
            found = found.get("roi", found.get("window", WHOLE))
            roi = TypeAdapter(PartOfSquare).validate_python(found)
        except ValueError as error:
            raise UserError(f"--init {run}: {about} is damaged; take another run") from error
    network = {**stated, "roi": "whole" if roi == WHOLE else roi}
    if (locator := run / "locator").exists():
        network["locator"] = str(locator)
    split = run / "validation.txt"
    on_boxes = bool(fields["boxes"] and not fields["locate"] and not fields["locator"])
    return HandedOn(run, fields["data"], split if split.exists() else None, stated, network, on_boxes)
