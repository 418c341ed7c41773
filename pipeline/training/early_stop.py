"""Early stopping: ends the training when the validation has not improved for long enough."""

from typing import Any


def out_of_patience(history: list[dict[str, Any]], *, patience: int | None, size: int) -> bool:
    """Whether the last `patience` epochs have brought no better validation MSE than those before.

    history: a row per epoch. It is in the checkpoint, so that a resumed run ends where an uninterrupted one does.
    Only epochs with images of `size` pixels count: while images grow, the epochs that matter are still to come.
    """
    errors = [row["validation_mse"] for row in history if row.get("image_size", size) == size]
    if not patience or not errors:
        return False
    return len(errors) - 1 - errors.index(min(errors)) >= patience
