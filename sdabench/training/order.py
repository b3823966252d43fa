"""The order of the images of a training, and the micro-batches of its batches."""

import math

from sdabench.data.images import TrainingOrder
from sdabench.data.shard_order import ShardOrder, images_of_shards
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
    parts = micro_batches(recipe, processes)
    values = {
        "batch_size": recipe.batch_size,
        "epochs": recipe.epochs,
        "seed": seed,
        "smallest": task_of(job.spec.task).smallest_micro_batch(job) * parts,
        "first_step": first_step,
    }
    if recipe.shuffle_window is not None:
        order: TrainingOrder = ShardOrder(images_of_shards(job.train), recipe.shuffle_window, parts, **values)
    else:
        order = TrainingOrder(images=len(job.train.items), repeats=recipe.repeats, **values)
    if not order.steps_per_epoch or recipe.batch_size < order.smallest:
        raise DataError(
            f"{job.train.root} has {order.images} images, and a batch {recipe.batch_size}: batch norms need "
            f"{order.smallest} or more; use more images, a larger --batch-size or a smaller --accumulate"
        )
    return order
