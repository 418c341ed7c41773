"""The options of `predict.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval
from tyro.conf import arg

from pipeline.errors import UserError
from pipeline.files import check_outputs


@dataclass(frozen=True)
class PredictOptions:
    """Flags of the command line."""

    run: Annotated[tuple[Path, ...], arg(metavar="RUN …")] = ()
    """Folders of runs, of stages or of folds; several are merged. By default the newest one with weights."""
    data: Annotated[Path | None, arg(aliases=["-d"], metavar="PATH")] = None
    """The contest's folder; by default the one that the run was trained on."""
    photo: Annotated[Path | None, arg(metavar="PATH")] = None
    """Predict this photo, or all photos in this folder, instead of a contest; writes pictures and points.csv."""
    boxes: Annotated[Path | None, arg(metavar="FILE")] = None
    """Show the network the square around a box in each photo: a table of file_name, left, top, right and bottom. A run
    that was trained with --boxes needs it; with --photo, a photo may have several boxes."""
    box: Annotated[tuple[float, float, float, float] | None, arg(metavar="LEFT TOP RIGHT BOTTOM")] = None
    """With --photo FILE, the box around what is to be found, in pixels of the photo."""
    gpu: bool = False
    """Predict on the GPU."""
    backend: Literal["torch", "onnx"] = "torch"
    """What runs the networks on the CPU: onnx is ONNX Runtime in float32, which must be installed; it is faster than
    torch in float32, and slower than torch in bf16 (see docs/predict.md)."""
    checkpoint: Literal["best", "last"] = "best"
    """The weights with the best validation, or those of the last epoch."""
    views: Annotated[Path | None, arg(metavar="FILE")] = None
    """A JSON file with views to use instead of those in the run's recipe."""
    weights: Literal["auto", "fit", "equal"] = "auto"
    """Weights of views and runs: auto fits them on held-out photos unless that was done before; fit always fits
    them again; equal uses equal weights, or those in the file of --views."""
    merge: Literal["weighted", "median", "power", "rank"] = "weighted"
    """How several runs are merged; rank weights them by the rank of their validation MSE."""
    power: Annotated[float, Gt(0)] = 2.0
    """The power of the power mean; 1 is the weighted mean."""
    batch_size: Annotated[int, arg(aliases=["-b"]), Ge(1)] = 128
    """How many photos to predict at a time."""
    decimals: Annotated[int, Interval(ge=0, le=6)] = 2
    """Decimals of the submission's values; 0 gives integers."""
    output: Annotated[Path | None, arg(metavar="FILE")] = None
    """Where the submission goes, or with --photo the folder of its results; by default into the run's folder."""
    uncertainty: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write a standard deviation for each point to this file too, in pixels of the photo (see docs/predict.md)."""
    runs: Path = Path("runs")
    """Where run folders are."""
    cache: Annotated[Path | None, arg(metavar="PATH")] = None
    """Where decoded photos are kept; by default where the run keeps them."""
    skip_bad_photos: bool = False
    """Give photos that are missing, broken or without a box the mean shape, and say how many."""
    check_photos: bool = False
    """Check the size and time of every photo, and all numbers in the cache, before relying on them. By default only
    folders and a few files are checked, which misses a photo that was edited in place."""

    def check(self):
        """Raises UserError, before anything is computed, for what cannot be written or makes no sense."""
        if not self.photo:
            check_outputs({"--output": self.output, "--uncertainty": self.uncertainty})
        elif self.output and self.output.is_file():
            raise UserError(f"--output {self.output} is a file; with --photo it is a folder")
        if self.merge == "rank" and self.checkpoint == "last":
            raise UserError("--merge rank goes by the validation of the best weights; leave out --checkpoint last")
        if self.photo and not self.photo.exists():
            raise UserError(f"--photo {self.photo} is not there; give a photo, or a folder of them")
        if self.box and (not self.photo or self.photo.is_dir() or self.boxes):
            raise UserError("--box is of the one photo of --photo FILE; several photos have --boxes FILE")
        if self.box and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise UserError(f"--box {' '.join(f'{edge:g}' for edge in self.box)} is not left < right and top < bottom")
        if self.gpu and self.backend != "torch":
            raise UserError(f"--backend {self.backend} computes on the CPU; leave out --gpu or --backend")
        if self.photo and self.uncertainty:
            raise UserError("--uncertainty is of a contest's test photos; leave it out with --photo")
