"""Recipes: training hyper-parameters as data, from ``registry/recipes/TASK/*.yaml`` or a user's own file."""

from math import cos, floor, pi
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from sdabench.errors import RegistryError, UsageError
from sdabench.paths import registry_dir
from sdabench.registry import unknown
from sdabench.registry.files import in_words, read_yaml, validated
from sdabench.registry.schema import DataTask, Strict

Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["fp32", "bf16", "fp16"]
Crop = Annotated[int, Field(ge=32)]


class Optimizer(Strict):
    """``momentum`` and ``nesterov`` are SGD's. Weight decay is on every parameter, unless said otherwise."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: PositiveFloat
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 1e-4
    decay_norms_and_biases: bool = True


class Schedule(Strict):
    """Of the learning rate: times ``factor`` after each of ``milestones`` (epochs), or half a cosine to 0.

    It first rises linearly, for ``warmup_epochs`` or ``warmup_steps``, from ``warmup_factor`` of itself.
    """

    kind: Literal["step", "cosine"] = "step"
    milestones: list[PositiveInt] = Field(default=[])
    factor: PositiveFloat = 0.1
    warmup_epochs: NonNegativeFloat = 0
    warmup_steps: NonNegativeInt = 0
    warmup_factor: Fraction = 0

    @model_validator(mode="after")
    def one_warmup(self) -> "Schedule":
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError("a warm-up is of epochs or of steps, not of both")
        return self


class Augmentation(Strict):
    """RandomResizedCrop to ``crop`` pixels (of that share of the area and that aspect), and a flip."""

    crop: Crop = 224
    area: tuple[Fraction, Fraction] = (0.08, 1.0)
    aspect: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)
    flip: Fraction = 0.5


class Validation(Strict):
    """The usual protocol after every so many epochs; 0 is at the end alone."""

    every_epochs: NonNegativeInt = 1


class CropValidation(Validation):
    """At ``crop`` pixels."""

    crop: Crop = 224


class Quirks(Strict):
    """What the paper's code does and a reader would not expect; each can change a result."""

    new_optimizer_each_epoch: bool = False  # the momentum starts from zero in every epoch
    best_epoch_by_validation: bool = False  # the weights of the best epoch, for top-1 and top-5 apart
    no_seed: bool = False  # random numbers from the operating system, at each start
    resume_without_optimizer: bool = False  # a resumed run has the weights alone


class Recipe(Strict):
    """Everything that decides a training besides the network, the data and the seed, whatever the task.

    ``accumulate`` splits a batch into so many parts, each with batch norms of its own.
    ``linear_rule`` says for how many images a step the learning rate is: it is scaled to the batch.
    ``fit_below`` asks whether the network fits its training images: the mean loss of the last epoch has
    to fall below that share of the loss of chance, ln(number of classes), or of a detector's first step.
    ``reproduction`` says that its results on the real dataset may stand beside the paper's.
    """

    name: str
    title: str
    source: str = ""
    reproduction: bool = False
    train_images: PositiveInt | None = None
    val_images: PositiveInt | None = None
    epochs: PositiveInt
    batch_size: PositiveInt
    accumulate: PositiveInt = 1
    precision: Precision = "fp32"
    channels_last: bool = False
    optimizer: Optimizer
    linear_rule: PositiveInt | None = None
    schedule: Schedule = Schedule()
    validation: Validation = Validation()
    quirks: Quirks = Quirks()
    fit_below: PositiveFloat | None = None

    @model_validator(mode="after")
    def the_best_epoch_needs_validation(self) -> Self:
        if self.quirks.best_epoch_by_validation and not self.validation.every_epochs:
            raise ValueError("best_epoch_by_validation needs validation.every_epochs of 1 or more")
        return self

    @property
    def base_learning_rate(self) -> float:
        """The learning rate of this batch, before any schedule."""
        scale = self.batch_size / self.linear_rule if self.linear_rule else 1
        return self.optimizer.learning_rate * scale

    @property
    def resolution(self) -> int:
        """Pixels of the side that validation sees."""
        raise NotImplementedError

    def resized(self, resolution: int) -> dict[str, Any]:
        """The fields that change with the resolution."""
        raise NotImplementedError

    def override(self, **changes: Any) -> Self:
        """With other values, where they are not None; ``resolution`` is that of training and validation.

        Another length, batch or resolution is no reproduction any more.

        Raises:
            UsageError: the values do not go together.
        """
        own = self.model_dump() | {"resolution": self.resolution}
        changes = {key: value for key, value in changes.items() if value is not None and value != own[key]}
        if changes.keys() & {"epochs", "batch_size", "resolution", "train_images", "val_images"}:
            changes["reproduction"] = False
        if (resolution := changes.pop("resolution", None)) is not None:
            changes |= self.resized(resolution)
        data = self.model_dump() | changes
        try:
            return type(self).model_validate(data)
        except ValidationError as error:
            raise UsageError(in_words(error, data)) from None

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, counted from 0."""
        schedule, base = self.schedule, self.base_learning_rate
        warmup = schedule.warmup_epochs * steps_per_epoch
        if step < warmup:
            return base * (schedule.warmup_factor + (1 - schedule.warmup_factor) * (step + 1) / warmup)
        if step < schedule.warmup_steps:  # as mmdetection: the first step has the factor itself
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
    def parts_of_a_batch_hold_two_images(self) -> Self:
        if self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"a batch of {self.batch_size} in {self.accumulate} parts leaves fewer than two images for a "
                "batch norm; accumulate less, or take a larger batch"
            )
        return self


class DetectionRecipe(Recipe):
    """``short_side`` is that of the images in pixels; ``flip`` the share of mirrored ones.

    ``freeze`` keeps stem, first stage and the batch norms' statistics as the weights of the backbone have
    them; without such weights nothing is frozen. So many anchors and boxes of an image are sampled for its
    losses, out of so many ``proposals``.
    """

    short_side: Crop = 800
    flip: Fraction = 0.5
    freeze: bool = True
    anchor_samples: PositiveInt = 256
    box_samples: PositiveInt = 512
    proposals: PositiveInt = 1000

    @property
    def resolution(self) -> int:
        return self.short_side

    def resized(self, resolution: int) -> dict[str, Any]:
        return {"short_side": resolution}

    @model_validator(mode="after")
    def there_is_no_best_epoch(self) -> Self:
        if self.quirks.best_epoch_by_validation:
            raise ValueError(
                "best_epoch_by_validation is for classification; boxes and masks differ in theirs"
            )
        return self

    @model_validator(mode="after")
    def parts_of_a_batch_hold_an_image(self) -> Self:
        if self.batch_size < self.accumulate:
            raise ValueError(
                f"a batch of {self.batch_size} cannot be computed in {self.accumulate} parts; accumulate less"
            )
        return self


RECIPES: dict[DataTask, type[Recipe]] = {
    "classification": ClassificationRecipe,
    "detection": DetectionRecipe,
}


def recipe_names(task: DataTask) -> list[str]:
    return sorted(path.stem for path in _folder(task).glob("*.yaml"))


def load_recipe(name: str, task: DataTask = "classification") -> Recipe:
    """A recipe of the registry, or of a file (whatever ends in .yaml); ``extends`` names one it changes.

    Raises:
        UsageError: there is no such recipe or file.
        RegistryError: the file says what a recipe cannot; the message names the field.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else _folder(task) / f"{name}.yaml"
    if not path.is_file():
        if path.suffix and name.endswith(path.suffix):
            raise UsageError(f"no recipe file at {path}")
        known = recipe_names(task)
        listing = f"for {task} there are {', '.join(known)}, or name a .yaml file"
        raise UsageError(unknown("recipe", name, known, listing))
    data = _extended(path, [path], task)
    return validated({"name": path.stem} | data, RECIPES[task], path)


def _folder(task: DataTask) -> Path:
    return registry_dir() / "recipes" / task


def _extended(path: Path, seen: list[Path], task: DataTask) -> dict[str, Any]:
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise RegistryError(f"{path}: a recipe is a mapping of fields")
    if (base := data.pop("extends", None)) is None:
        return data
    candidates = [path.parent / f"{base}.yaml", _folder(task) / f"{base}.yaml"]
    under = next((file for file in candidates if file.is_file() and file not in seen), None)
    if under is None:
        raise RegistryError(
            f"{path}: extends: no recipe '{base}' beside it, and none of {', '.join(recipe_names(task))}"
        )
    return _merged(_extended(under, [*seen, under], task), data)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
