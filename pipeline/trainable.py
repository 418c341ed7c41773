"""Fields of a recipe that contradict each other. They are refused when a training is to begin, not when a recipe is
read: earlier versions have trained such recipes."""

from pipeline.errors import UserError
from pipeline.recipe import LossOptions, OptimiserOptions, PhotoOptions, Recipe

MOST_SHARES = 0.999  # of a training that may be on smaller images; more than this is 1, up to rounding
MANY_EPOCHS = 1000  # more than a training limited by the clock has


def check_trainable(recipe: Recipe, *, where: str = ""):
    """Raises UserError for fields that contradict each other; `where` says which recipe they are in, if there are
    more."""
    try:
        _check_sizes(recipe.photos)
        _check_optimiser(recipe.optimiser)
        _check_schedule(recipe)
        _check_frozen(recipe)
        _check_trimming(recipe.loss)
    except UserError as error:
        raise UserError(f"{where}{error}") from error


def _check_sizes(photos: PhotoOptions):
    if photos.progressive and sum(share for share, _ in photos.progressive) > MOST_SHARES:
        raise UserError(
            f"--progressive: its shares add up to 1 and leave none for --size {photos.size}; give smaller shares"
        )
    if (largest := max((size for _, size in photos.progressive), default=0)) > photos.size:
        raise UserError(
            f"--progressive: its size {largest} is above --size {photos.size}, the last and largest; give a smaller one"
        )


def _check_optimiser(options: OptimiserOptions):
    if options.optimiser != "schedule_free":
        return
    if options.schedule != "constant":
        raise UserError(
            f"--optimiser schedule_free takes the place of --schedule {options.schedule}; add --schedule constant"
        )
    if options.momentum == 0:
        raise UserError("--optimiser schedule_free: --momentum 0 keeps no average; leave it out, or give 0.9")


def _check_schedule(recipe: Recipe):
    options, loss = recipe.optimiser, recipe.loss
    flag = f"--final-rate {options.final_rate:g}"
    if options.final_rate > options.learning_rate:
        raise UserError(f"{flag} is above --learning-rate {options.learning_rate:g}, the highest; give a lower one")
    if options.schedule == "exponential" and options.final_rate == 0:
        raise UserError(f"{flag}: --schedule exponential never falls to 0; give one above it, such as 1e-5")
    if options.schedule == "plateau" and loss.trims and loss.trim_from:
        raise UserError(
            f"--schedule plateau follows the training loss, which is another from --trim-from {loss.trim_from:g} on; "
            "give --schedule plateau_validation, or --trim-from 0"
        )


def check_longer(recipe: Recipe, before: Recipe):
    """Raises UserError for a run that cannot go on with another length. before: its recipe until now."""
    if _unfreezes_too_late(recipe) and not _unfreezes_too_late(before):  # earlier versions have trained such recipes
        raise UserError(
            f"--freeze-epochs {recipe.network.freeze_epochs}: a longer training would unfreeze the backbone, which "
            "--optimiser schedule_free cannot do; start a new run from this one (--init RUN)"
        )


def _check_frozen(recipe: Recipe):
    if _unfreezes_too_late(recipe):
        frozen = recipe.network.freeze_epochs
        raise UserError(
            f"--freeze-epochs {frozen}: --optimiser schedule_free counts its steps from the first, which the backbone "
            f"has not taken then; give two stages, of which the first has freeze_epochs {frozen} and as many epochs"
        )


def _unfreezes_too_late(recipe):
    frozen = recipe.network.freeze_epochs
    return recipe.optimiser.optimiser == "schedule_free" and frozen > 0 and not stays_frozen(recipe)


def stays_frozen(recipe: Recipe) -> bool:
    """Whether the backbone is frozen to the end, as far as the length is known."""
    by_clock = recipe.optimiser.minutes or recipe.running.session_minutes
    return recipe.network.freeze_epochs >= (MANY_EPOCHS if by_clock else recipe.optimiser.epochs)


def _check_trimming(loss: LossOptions):
    top, without = loss.top_perc_train, loss.without_top_perc_train
    if without >= top and without:
        raise UserError(
            f"--without-top-perc-train {without:g} leaves out all photos that --top-perc-train {top:g} keeps; give a "
            "smaller one"
        )
