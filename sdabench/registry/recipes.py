"""Load recipes (training hyper-parameters) from ``registry/recipes/TASK/*.yaml`` or a user's file."""

import os
from collections.abc import Set
from functools import cache
from itertools import pairwise
from math import cos, floor, isfinite, pi
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from sdabench.errors import RegistryError, UsageError
from sdabench.nested import flattened
from sdabench.paths import registry_dir
from sdabench.registry import unknown
from sdabench.registry.plugins import active_plugins
from sdabench.registry.schema import DataTask, Strict
from sdabench.registry.yaml_files import describe_error, read_mapping, validated

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Precision = Literal["fp32", "bf16", "fp16"]
OF_STEPS = ("milestones", "factor")  # fields of a schedule that cosine does not use
SCALED = "schedule scaled from"
Crop = Annotated[int, Field(ge=32, le=2**14)]
DESCRIPTIONS = {"name", "title", "source", "reproduction", "fit_below", "check_network", "channels_last"}
# What a reproduction may change, for the reasons in docs/recipes.md; a record checks ``accumulate``.
FREE_IN_REPRODUCTION = DESCRIPTIONS | {"accumulate", "precision", "quirks"}
MIN_BATCH_NORM_IMAGES = 32


class Settings(Strict):
    """Base class of recipes and their parts; true and false are not taken for 1 and 0."""

    @field_validator("*", mode="wrap")
    @classmethod
    def booleans_are_no_numbers(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        valid = validate(value)
        pairs = zip(value, valid, strict=True) if isinstance(value, list | tuple) else [(value, valid)]
        if any(isinstance(given, bool) and not isinstance(number, bool) for given, number in pairs):
            raise ValueError("Input should be a valid number")
        return valid


class Optimizer(Settings):
    """Optimizer; ``momentum`` and ``nesterov`` are for SGD. All parameters have weight decay by default."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: PositiveFloat
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 1e-4
    decay_norms_and_biases: bool = True

    @model_validator(mode="after")
    def nesterov_needs_momentum(self) -> Self:
        if self.name == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0; set it, or leave out nesterov")
        return self


class Schedule(Settings):
    """Learning-rate schedule: multiply by ``factor`` at each of ``milestones`` (epochs), or cosine to 0.

    The warm-up is linear, starts at ``warmup_factor`` and lasts ``warmup_epochs`` or ``warmup_steps``.
    """

    kind: Literal["step", "cosine"] = "step"
    milestones: list[Count] = Field(default=[])
    factor: PositiveFloat = 0.1
    warmup_epochs: NonNegativeFloat = 0
    warmup_steps: NonNegativeInt = 0
    warmup_factor: Fraction = 0

    @model_validator(mode="after")
    def one_warmup(self) -> Self:
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError("set either warmup_epochs or warmup_steps, not both")
        return self

    def check(self, epochs: int) -> None:
        """Raise a ValueError unless the milestones and the end of the warm-up are in order and in time."""
        milestones = self.milestones if self.kind == "step" else []
        if any(first >= second for first, second in pairwise(milestones)):
            raise ValueError(f"schedule: milestones {_listed(milestones)} must be in ascending order")
        for what, last in (("milestone", max(milestones, default=0)), ("warmup_epochs", self.warmup_epochs)):
            if last >= epochs:
                raise ValueError(
                    f"schedule: {what} {last:g} must be below the number of epochs, {epochs}; reduce it, or "
                    "raise epochs"
                )

    def scaled(self, before: int, epochs: int) -> tuple["Schedule", str]:
        """Scale milestones in proportion to another number of epochs, and a warm-up if it would be too long.

        Returns:
            The schedule, and a description of the changes, empty if there are none.

        Raises:
            UsageError: there are too few epochs for the milestones.
        """
        changes: dict[str, Any] = {}
        words = []
        if self.kind == "step" and self.milestones:
            rounded = [(2 * milestone * epochs + before) // (2 * before) for milestone in self.milestones]
            milestones = [min(milestone, epochs - 1) for milestone in rounded]
            if 0 in milestones or len(set(milestones)) < len(milestones):
                raise UsageError(
                    f"the milestones {_listed(self.milestones)} of {before} epochs cannot be scaled to "
                    f"{epochs}; use more epochs, or a recipe file with its own schedule"
                )
            if milestones != self.milestones:
                changes["milestones"] = milestones
                words = [f"milestones {_listed(self.milestones)} -> {_listed(milestones)}"]
        if self.warmup_epochs >= epochs:
            changes["warmup_epochs"] = self.warmup_epochs * epochs / before
            words.append(f"warmup_epochs {self.warmup_epochs:g} -> {changes['warmup_epochs']:.3g}")
        how = f"{SCALED} {before} epochs to {epochs}: {', '.join(words)}" if words else ""
        return self.model_copy(update=changes), how


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"the range {pair[0]:g} to {pair[1]:g} is reversed; put the smaller number first")
    return pair


class Augmentation(Settings):
    """RandomResizedCrop to ``crop`` pixels in ranges of ``area`` and ``aspect``; probability of a flip."""

    crop: Crop = 224
    area: Annotated[tuple[Share, Share], AfterValidator(_ascending)] = (0.08, 1.0)
    aspect: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ascending)] = (3 / 4, 4 / 3)
    flip: Fraction = 0.5


class Validation(Settings):
    """Epochs between validations; 0 for one validation after the last epoch."""

    every_epochs: NonNegativeInt = 1


class CropValidation(Validation):
    """Validation on center crops of ``crop`` pixels."""

    crop: Crop = 224


class Quirks(Settings):
    """Unexpected behavior of the paper's code that can change a result."""

    new_optimizer_each_epoch: bool = False  # momentum restarts from zero in every epoch
    best_epoch_by_validation: bool = False  # report the best epoch, separately for top-1 and top-5
    no_seed: bool = False  # draw the seed from the operating system at each start
    resume_without_optimizer: bool = False  # resume from the weights only
    resume_without_best: bool = False  # forget on resume how good the best epochs were
    first_replica_statistics: bool = False  # keep the batch-norm statistics of the first micro-batch

    @property
    def lost_by_resume(self) -> list[str]:
        """The quirks by which a resumed training differs from an uninterrupted one."""
        names = ("no_seed", "resume_without_optimizer", "resume_without_best")
        return [name for name in names if getattr(self, name)]


class Recipe(Settings):
    """Hyper-parameters of a training run: everything but the model, the data and the seed.

    The model fits its training images if the mean loss of the last epoch is below ``fit_below`` times the
    loss at chance, ln(number of classes), or a detector's loss in the first step. ``check_network`` checks
    the network before the first step; see :mod:`sdabench.training.soundness`.
    """

    name: str
    title: str
    source: str = ""
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
    def resolution(self) -> int:
        """Side of validation images in pixels."""
        raise NotImplementedError

    def resized(self, resolution: int) -> dict[str, Any]:
        """Return the fields that depend on the resolution."""
        raise NotImplementedError

    def override(self, **changes: Any) -> Self:
        """Replace values that are not None; ``resolution`` applies to training and validation.

        The schedule is scaled to a changed number of epochs, and ``source`` says how. The values determine
        ``reproduction``.

        Raises:
            UsageError: the values do not fit together.
        """
        own = self.model_dump() | {"resolution": self.resolution}
        changes = {key: value for key, value in changes.items() if value is not None and value != own[key]}
        if "epochs" in changes:
            changes["schedule"], how = self.schedule.scaled(self.epochs, changes["epochs"])
            changes["source"] = "; ".join(filter(None, [self.source, how]))
        if (resolution := changes.pop("resolution", None)) is not None:
            changes |= self.resized(resolution)
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

        def distance(paper: Recipe) -> tuple[int, int]:
            theirs = paper.decisive()
            different = {key for key, value in everything.items() if value != theirs[key]}
            return len(different & own.keys()), len(different)

        nearest = min(papers, key=distance).decisive(FREE_IN_REPRODUCTION)
        quirks = {name for paper in papers for name, on in paper.quirks if on} | {"no_seed"}
        return [
            *(f"{key} {own[key]} instead of {value}" for key, value in nearest.items() if own[key] != value),
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
    batch_size: Annotated[int, Field(ge=2)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentation: Augmentation = Augmentation()
    validation: CropValidation = CropValidation()

    @property
    def resolution(self) -> int:
        return self.validation.crop

    def resized(self, resolution: int) -> dict[str, Any]:
        crop = {"crop": resolution}
        return {key: getattr(self, key).model_copy(update=crop) for key in ("augmentation", "validation")}

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
