"""Load recipes (training hyper-parameters) from ``registry/recipes/TASK/*.yaml`` or a user's file."""

import os
from collections.abc import Mapping, Set
from functools import cache
from math import cos, floor, isfinite, pi
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    PositiveFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from sdabench.errors import RegistryError, UsageError
from sdabench.nested import flattened
from sdabench.paths import registry_dir
from sdabench.registry import unknown
from sdabench.registry.plugins import active_plugins
from sdabench.registry.recipe_parts import (
    OF_STEPS,
    SCALED,
    TIMM,
    Augmentation,
    Count,
    Crop,
    CropValidation,
    Ema,
    Fraction,
    Inner,
    Optimizer,
    Quirks,
    Schedule,
    Settings,
    Validation,
)
from sdabench.registry.schema import DataTask
from sdabench.registry.yaml_files import describe_error, read_mapping, validated

Precision = Literal["fp32", "bf16", "fp16"]
WORDS = {"title", "source", "differences"}  # fields that are no part of a digest
DESCRIPTIONS = WORDS | {"name", "reproduction", "fit_below", "check_network", "channels_last"}
# What a reproduction may change, for the reasons in docs/recipes.md; a record checks ``accumulate``.
FREE_IN_REPRODUCTION = DESCRIPTIONS | {"accumulate", "precision", "quirks"}
MIN_BATCH_NORM_IMAGES = 32


class Recipe(Settings):
    """Hyper-parameters of a training run: everything but the model, the data and the seed.

    The model fits its training images if the mean loss of the last epoch is below ``fit_below`` times the
    loss at chance, ln(number of classes), or a detector's loss in the first step. ``check_network`` checks
    the network before the first step; see :mod:`sdabench.training.soundness`. ``differences`` describe what
    differs from the training that a recipe follows. ``clip_norm`` is the largest norm of all gradients
    together; larger ones are scaled down to it. With ``shuffle_window``, shards are read
    sequentially, and an image moves by less than this many places; see :mod:`sdabench.data.shard_order`.
    """

    OPTIONS = frozenset({"differences", "ema", "clip_norm", "shuffle_window"})

    name: str
    title: str
    source: str = ""
    differences: list[str] = Field(default=[])
    reproduction: bool = False  # of a registered recipe; that of others follows from their values
    train_images: Count | None = None
    val_images: Count | None = None
    epochs: Count
    batch_size: Count
    accumulate: Count = 1  # micro-batches per batch, each with its own batch-norm statistics
    precision: Precision = "fp32"
    channels_last: bool = False
    optimizer: Optimizer
    linear_rule: Count | None = None  # batch size that the learning rate refers to
    schedule: Schedule = Schedule()
    validation: Validation = Validation()
    quirks: Quirks = Quirks()
    ema: Ema | None = None
    clip_norm: PositiveFloat | None = None
    shuffle_window: Count | None = None
    fit_below: PositiveFloat | None = None
    check_network: bool = False

    @model_validator(mode="after")
    def the_schedule_fits(self) -> Self:
        self.schedule.check(self.epochs)
        drops = len(self.schedule.milestones) if self.schedule.kind == "step" else 0
        try:
            rates = [self.base_learning_rate * self.schedule.factor**drop for drop in (0, drops)]
        except OverflowError:
            rates = []
        if not rates or not all(map(isfinite, rates)):
            raise ValueError("the learning rate becomes infinite; reduce learning_rate or schedule.factor")
        return self

    @model_validator(mode="after")
    def the_best_epoch_needs_validation(self) -> Self:
        if self.quirks.best_epoch_by_validation and not self.validation.every_epochs:
            raise ValueError("best_epoch_by_validation needs validation.every_epochs of 1 or more")
        return self

    @property
    def base_learning_rate(self) -> float:
        """Learning rate for this batch size, before the schedule."""
        scale = self.batch_size / self.linear_rule if self.linear_rule else 1
        return self.optimizer.learning_rate * scale

    @property
    def needs_timm(self) -> str:
        """Name what timm is needed for; empty if it is not."""
        return "the optimizer lamb" if self.optimizer.name == "lamb" else ""

    @property
    def repeats(self) -> int:
        """Differently augmented copies of an image in a batch."""
        return 1

    def warmup_steps(self, steps_per_epoch: int) -> float:
        """Return the length of the warm-up in steps, possibly with a fraction."""
        return self.schedule.warmup_epochs * steps_per_epoch or self.schedule.warmup_steps

    @property
    def resolution(self) -> int:
        """Side of validation images in pixels."""
        raise NotImplementedError

    def resized(self, resolution: int) -> dict[str, Any]:
        """Return the fields that depend on the resolution."""
        raise NotImplementedError

    def override(self, **changes: Any) -> Self:
        """Replace values that are not None; ``resolution`` applies to training and validation.

        ``eval_every`` is the number of steps between further validations.
        The schedule is scaled to a changed number of epochs, and ``source`` says how. The values determine
        ``reproduction``.

        Raises:
            UsageError: the values do not fit together.
        """
        own = self.model_dump() | {"resolution": self.resolution, "eval_every": self.validation.every_steps}
        changes = {
            key: value for key, value in changes.items() if value is not None and value != own.get(key)
        }
        if "epochs" in changes:
            changes["schedule"], how = self.schedule.scaled(self.epochs, changes["epochs"])
            changes["source"] = "; ".join(filter(None, [self.source, how]))
        if (resolution := changes.pop("resolution", None)) is not None:
            changes |= self.resized(resolution)
        if (steps := changes.pop("eval_every", None)) is not None:
            validation = changes.get("validation", self.validation)
            changes["validation"] = validation.model_copy(update={"every_steps": steps})
        data = self.model_dump() | changes
        try:
            changed = type(self).model_validate(data)
        except ValidationError as error:
            raise UsageError(describe_error(error, data, type(self))) from None
        return changed.model_copy(update={"reproduction": not changed.deviations()})

    def decisive(self, free: Set[str] = DESCRIPTIONS) -> dict[str, Any]:
        """Return the values that a result depends on, flattened, except those of ``free`` fields.

        Recipes with the same learning rate for their batch size have equal values.
        """
        values = self.model_dump(mode="json", exclude={*free, "linear_rule"})
        values["optimizer"]["learning_rate"] = float(f"{self.base_learning_rate:.12g}")  # 0.3 * (1 / 3)
        if not self.quirks.best_epoch_by_validation:
            values["validation"]["every_epochs"] = 1  # validations between do not change the result
        values["validation"].pop("every_steps", None)
        return flattened(values)

    def deviations(self) -> list[str]:
        """Describe the differences from the nearest registered recipe that reproduces the paper.

        The list is empty if only values of ``FREE_IN_REPRODUCTION`` differ, and each quirk is as in one of
        these recipes, or off.
        """
        [task] = [task for task, schema in RECIPES.items() if isinstance(self, schema)]
        papers = _reproductions(_folder(task), task)
        if not papers:
            return ["no recipe of the registry reproduces it"]
        own, everything = self.decisive(FREE_IN_REPRODUCTION), self.decisive()
        free = everything.keys() - own.keys()

        def distance(paper: Recipe) -> tuple[int, int]:
            theirs = paper.decisive()
            either = everything.keys() | theirs.keys()
            different = {key for key in either if everything.get(key) != theirs.get(key)}
            return len(different - free), len(different)

        nearest = min(papers, key=distance).decisive(FREE_IN_REPRODUCTION)
        quirks = {name for paper in papers for name, on in paper.quirks if on} | {"no_seed"}
        return [
            *(
                f"{key} {own.get(key, 'default')} instead of {nearest.get(key, 'the default')}"
                for key in nearest | own
                if own.get(key) != nearest.get(key)
            ),
            *(
                f"quirks.{name} {on} instead of False"
                for name, on in self.quirks
                if on and name not in quirks
            ),
        ]

    @property
    def scalings(self) -> list[str]:
        """Descriptions in ``source`` of how the schedule was scaled to other numbers of epochs."""
        return [text for text in self.source.split("; ") if text.startswith(SCALED)]

    def warnings(self, steps: int, micro_batches: int) -> list[str]:
        """Describe what is probably unwanted in a training of ``steps`` with these micro-batches."""
        found = []
        if self.schedule.warmup_steps >= steps:
            found.append(
                f"the warm-up of {self.schedule.warmup_steps:,} steps does not end within the {steps:,} "
                f"steps of this training, so the learning rate stays below {self.base_learning_rate:g}"
            )
        if self.ema is not None and (length := self.ema.every_steps / (1 - self.ema.decay)) > steps:
            found.append(
                f"the average of the weights reaches back about {length:,.0f} steps, but this training has "
                f"{steps:,}, so that it stays near its start; reduce ema.decay or ema.every_steps"
            )
        images = self.batch_norm_images(micro_batches)
        if self.reproduction and images is not None and images < MIN_BATCH_NORM_IMAGES:
            found.append(
                f"each batch norm sees {images} images, fewer than {MIN_BATCH_NORM_IMAGES}, so that the "
                "result cannot be compared with the paper; use a smaller --accumulate, or fewer processes"
            )
        return found

    def batch_norm_images(self, micro_batches: int) -> int | None:
        """Return how many images each batch norm normalizes together; None if its statistics are frozen."""
        return self.batch_size // micro_batches

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        schedule, base = self.schedule, self.base_learning_rate
        warmup = schedule.warmup_epochs * steps_per_epoch
        if step < warmup:
            share = min((step + 1) / warmup, 1.0)  # a warm-up can end within a step
            return base * (schedule.warmup_factor + (1 - schedule.warmup_factor) * share)
        if step < schedule.warmup_steps:  # as in mmdetection: the first step uses the factor itself
            rising = schedule.warmup_factor + (1 - schedule.warmup_factor) * step / schedule.warmup_steps
        else:
            rising = 1.0
        if schedule.kind == "cosine":
            warmup = warmup or schedule.warmup_steps
            share = max(step - warmup, 0) / max(self.epochs * steps_per_epoch - warmup, 1)
            return rising * base * (1 + cos(pi * share)) / 2
        passed = sum(milestone <= floor(step / steps_per_epoch) for milestone in schedule.milestones)
        return rising * base * schedule.factor**passed


class ClassificationRecipe(Recipe):
    """Hyper-parameters of classifiers.

    ``mixup`` and ``cutmix`` are the parameters of their beta distributions; with both, each micro-batch draws
    one of them. ``loss: bce`` is the mean binary cross-entropy over the classes; ``bce_threshold`` is the
    share above which a class of a mixed image counts as present. ``stochastic_depth`` is the probability of
    leaving out the last block for an image; it rises linearly from zero at the first block.
    """

    OPTIONS = Recipe.OPTIONS | {"loss", "bce_threshold", "mixup", "cutmix", "stochastic_depth"}

    batch_size: Annotated[int, Field(ge=2)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    bce_threshold: Inner | None = None
    mixup: PositiveFloat | None = None
    cutmix: PositiveFloat | None = None
    stochastic_depth: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentation: Augmentation = Augmentation()
    validation: CropValidation = CropValidation()

    @property
    def repeats(self) -> int:
        return self.augmentation.repeats

    @property
    def needs_timm(self) -> str:
        policy = self.augmentation.policy or ""
        return super().needs_timm or (f"the policy {policy}" if policy.startswith(TIMM) else "")

    @property
    def resolution(self) -> int:
        return self.validation.crop

    def resized(self, resolution: int) -> dict[str, Any]:
        augmentation = self.augmentation.model_copy(update={"crop": resolution})
        return {"augmentation": augmentation, "validation": self.validation.resized(resolution)}

    @model_validator(mode="after")
    def options_fit(self) -> Self:
        if self.bce_threshold is not None and self.loss != "bce":
            raise ValueError("bce_threshold is for loss: bce; leave it out")
        if self.bce_threshold is not None and not (self.mixup or self.cutmix):
            raise ValueError("bce_threshold is for mixed labels; add mixup or cutmix, or leave it out")
        if self.fit_below is not None and (self.mixup or self.cutmix):
            raise ValueError(
                "fit_below is a limit for the loss of unmixed images; leave it out, or mixup and cutmix"
            )
        if self.augmentation.repeats > 1 and self.shuffle_window is not None:
            raise ValueError("shuffle_window cannot be combined with augmentation.repeats; leave out one")
        if self.augmentation.repeats > self.batch_size:
            raise ValueError(
                f"augmentation.repeats {self.augmentation.repeats} is more than a batch of {self.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def micro_batches_have_two_images(self) -> Self:
        if self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"a batch of {self.batch_size} in {self.accumulate} micro-batches leaves fewer than two "
                "images for batch norm; reduce accumulate or raise batch_size"
            )
        return self


class DetectionRecipe(Recipe):
    """Hyper-parameters of detectors.

    ``freeze`` applies to the stem, the first stage and all batch-norm statistics of a pretrained backbone;
    without pretrained weights, nothing is frozen. In each image, ``anchor_samples`` anchors are sampled for
    the loss of the proposal network, and ``box_samples`` of ``proposals`` boxes for the loss of the heads.
    """

    short_side: Crop = 800  # of resized images, in pixels
    flip: Fraction = 0.5
    freeze: bool = True
    anchor_samples: Count = 256
    box_samples: Count = 512
    proposals: Count = 1000

    @model_validator(mode="before")
    @classmethod
    def options_are_for_detectors(cls, data: Any) -> Any:
        own = ClassificationRecipe.model_fields.keys() - cls.model_fields.keys()
        if isinstance(data, dict) and (found := sorted(own & data.keys())):
            raise ValueError(f"{found[0]} is for classification; leave it out of a recipe for detectors")
        return data

    @field_validator("optimizer")
    @classmethod
    def layers_are_those_of_classifiers(cls, optimizer: Optimizer) -> Optimizer:
        if optimizer.layer_decay is not None:
            raise ValueError("layer_decay is for classification; leave it out of a recipe for detectors")
        return optimizer

    @property
    def resolution(self) -> int:
        return self.short_side

    def batch_norm_images(self, micro_batches: int) -> int | None:
        return None if self.freeze else super().batch_norm_images(micro_batches)

    def resized(self, resolution: int) -> dict[str, Any]:
        return {"short_side": resolution}

    @model_validator(mode="after")
    def no_best_epoch_and_no_empty_micro_batches(self) -> Self:
        if self.quirks.best_epoch_by_validation:
            raise ValueError(
                "best_epoch_by_validation is for classification: the best epochs of boxes and masks differ"
            )
        if self.batch_size < self.accumulate:
            raise ValueError(
                f"a batch of {self.batch_size} cannot be split into {self.accumulate} micro-batches; "
                "reduce accumulate or raise batch_size"
            )
        return self


def used_options(recipe: Mapping[str, Any]) -> list[str]:
    """Name the training options that a recipe uses, from its values as a record stores them."""
    keys = {part for key in flattened(recipe) for part in key.split(".")}
    options = ClassificationRecipe.OPTIONS | Augmentation.OPTIONS | Optimizer.OPTIONS
    return sorted(keys & options - {"differences"})


RECIPES: dict[DataTask, type[Recipe]] = {"classification": ClassificationRecipe, "detection": DetectionRecipe}


def recipe_names(task: DataTask) -> list[str]:
    """List the recipes for a task: of the registry and of plugins."""
    return sorted(_paths(task))


def _paths(task: DataTask) -> dict[str, Path]:
    """Map the names of recipes to their files; a RegistryError if two files define one."""
    paths: dict[str, Path] = {}
    for folder in (registry_dir(), *(plugin.folder for plugin in active_plugins())):
        for path in sorted((folder / "recipes" / task).glob("*.yaml")):
            if (other := paths.setdefault(path.stem, path)) != path:
                raise RegistryError(
                    f"recipe '{path.stem}' is defined twice: by {other} and by {path}; rename one of them"
                )
    return paths


def load_recipe(name: str, task: DataTask = "classification") -> Recipe:
    """Load a recipe of the registry, or a file; ``extends`` names its base.

    Raises:
        UsageError: there is no such recipe, or the file is invalid.
        RegistryError: a file of the registry is invalid.
    """
    known, path = _paths(task), Path(name)
    if name in known:
        return _load(known[name], task)
    if not os.path.exists(path):
        if name.endswith((".yaml", ".yml")):
            raise UsageError(f"no recipe file at {path}; check the path")
        listing = f"choose from {', '.join(sorted(known))} for {task}, or pass a .yaml file"
        if others := [other for other in RECIPES if name in _paths(other)]:
            raise UsageError(f"the recipe '{name}' is for {others[0]}; {listing}")
        raise UsageError(unknown("recipe", name, known, listing))
    try:
        return _load(path, task)
    except RegistryError as error:
        raise UsageError(str(error)) from None


def _load(path: Path, task: DataTask) -> Recipe:
    data = {"name": path.stem} | _extended(path, [path], task)
    schedule: Any = data.get("schedule")
    is_cosine = isinstance(schedule, dict) and schedule.get("kind") == "cosine"
    if unused := [field for field in OF_STEPS if is_cosine and field in schedule]:
        raise RegistryError(f"{path}: schedule: {unused[0]} is for kind: step; leave it out")
    recipe = validated(data, RECIPES[task], path)
    if path.parent == _folder(task):
        return recipe
    different = recipe.deviations()
    if recipe.reproduction and different:
        raise RegistryError(
            f"{path}: reproduction: true needs the values of a registered recipe, but this has "
            f"{', '.join(different)}; remove 'reproduction', or restore the values"
        )
    return recipe.model_copy(update={"reproduction": not different})


@cache
def _reproductions(folder: Path, task: DataTask) -> list[Recipe]:
    """Return the recipes in the registry that reproduce the paper."""
    recipes = [_load(path, task) for path in sorted(folder.glob("*.yaml"))]
    return [recipe for recipe in recipes if recipe.reproduction]


def _folder(task: DataTask) -> Path:
    return registry_dir() / "recipes" / task


def _extended(path: Path, seen: list[Path], task: DataTask) -> dict[str, Any]:
    """Read a file and the recipes that it extends.

    A schedule is scaled to another number of epochs, except the values that the file itself states. Outside
    the registry, ``reproduction`` is not inherited.
    """
    data = read_mapping(path)
    if (base := data.pop("extends", None)) is None:
        return data
    known = _paths(task)
    candidates = [path.parent / f"{base}.yaml", *(known[name] for name in [base] if name in known)]
    extended = next((file for file in candidates if os.path.isfile(file) and file not in seen), None)
    if extended is None:
        listing = f"put its file in the same folder, or choose from {', '.join(sorted(known))}"
        raise RegistryError(f"{path}: extends: {unknown('recipe', str(base), known, listing)}")
    below = _extended(extended, [*seen, extended], task)
    if path.parent != _folder(task):
        below.pop("reproduction", None)
    merged = _merged(below, data)
    try:
        _fit_schedule(merged, below, data)
    except UsageError as error:
        raise RegistryError(f"{path}: {error}") from None
    return merged


def _fit_schedule(merged: dict[str, Any], below: dict[str, Any], own: dict[str, Any]) -> None:
    """Fit the schedule that a file inherits to the file's number of epochs and kind of schedule."""
    before, epochs = below.get("epochs"), merged.get("epochs")
    schedules = [each.get("schedule", {}) for each in (merged, below, own)]
    if not all(isinstance(each, dict) for each in schedules):
        return  # reported by the validation, as other errors
    schedule, inherited, stated = schedules
    inherited = {key: value for key, value in inherited.items() if key not in stated}
    if schedule.get("kind") == "cosine":
        inherited = {key: value for key, value in inherited.items() if key not in OF_STEPS}
    if type(before) is type(epochs) is int and before != epochs and epochs > 0:
        try:
            valid = Schedule.model_validate(inherited)
        except ValidationError:
            return
        scaled, how = valid.scaled(before, epochs)
        inherited = scaled.model_dump(include=set(inherited))
        merged["source"] = "; ".join(filter(None, [merged.get("source"), how]))
    if inherited or stated:
        merged["schedule"] = inherited | stated


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
