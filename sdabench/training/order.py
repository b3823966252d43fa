"""The order of the images of a training, and the micro-batches of its batches."""

import math

from sdabench.data.images import TrainingOrder
from sdabench.errors import DataError
from sdabench.registry.recipes import Recipe
from sdabench.training.job import AnyJob
from sdabench.training.tasks import task_of


def micro_batches(recipe: Recipe, processes: int) -> int:
    """Return the number of micro-batches per batch: at least the recipe's, and equally many per process."""
    return math.ceil(recipe.accumulate / processes) * processes


def training_order(job: AnyJob, processes: int, seed: int = 0, first_step: int = 0) -> TrainingOrder:
    """Return the remaining batches of a training; raise a DataError if they are too small for batch norm."""
    recipe: Recipe = job.spec.recipe
    order = TrainingOrder(
        images=len(job.train.items),
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        seed=seed,
        smallest=task_of(job.spec.task).smallest_micro_batch(job) * micro_batches(recipe, processes),
        first_step=first_step,
        repeats=recipe.repeats,
    )
    if not order.steps_per_epoch or recipe.batch_size < order.smallest:
        raise DataError(
            f"{job.train.root} has {order.images} images, and a batch {recipe.batch_size}: batch norms need "
            f"{order.smallest} or more; use more images, a larger --batch-size or a smaller --accumulate"
        )
    return order
