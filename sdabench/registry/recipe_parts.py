"""Parts of a recipe: optimizer, schedule, augmentation, validation, average of the weights, quirks."""

import re
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from sdabench.errors import UsageError
from sdabench.registry.schema import Strict

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Inner = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Crop = Annotated[int, Field(ge=32, le=2**14)]
OF_STEPS = ("milestones", "factor")  # fields of a schedule that cosine does not use
SCALED = "schedule scaled from"


class Settings(Strict):
    """Base class of recipes and their parts; true and false are not taken for 1 and 0.

    ``OPTIONS`` are fields that are left out of files and digests while they have their default, so that
    recipes without them keep their digests.
    """

    OPTIONS: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def leave_out_unused_options(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unused = {name for name in self.OPTIONS if getattr(self, name) == fields[name].default}
        return {name: value for name, value in serialize(self).items() if name not in unused}

    @field_validator("*", mode="wrap")
    @classmethod
    def booleans_are_no_numbers(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        valid = validate(value)
        pairs = zip(value, valid, strict=True) if isinstance(value, list | tuple) else [(value, valid)]
        if any(isinstance(given, bool) and not isinstance(number, bool) for given, number in pairs):
            raise ValueError("Input should be a valid number")
        return valid


class Optimizer(Settings):
    """Optimizer; ``momentum`` and ``nesterov`` are for SGD. All parameters have weight decay by default.

    ``lamb`` is timm's. ``layer_decay`` multiplies the learning rate once for each layer between a parameter
    and the output: the head has the full rate, the last stage ``layer_decay`` times that, and so on.
    """

    OPTIONS = frozenset({"layer_decay"})

    name: Literal["sgd", "adamw", "lamb"] = "sgd"
    learning_rate: PositiveFloat
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 1e-4
    decay_norms_and_biases: bool = True
    layer_decay: Inner | None = None

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


POLICIES = ("trivialaugment", "autoaugment", "augmix", "randaugment")  # of torchvision
RAND_AUGMENT = re.compile(r"randaugment(?:-n(?P<operations>[1-9]))?(?:-m(?P<magnitude>[12]?\d|30))?")
TIMM = "timm:"
TIMM_POLICY = re.compile(
    TIMM + r"(rand(-(m\d+(\.\d+)?|n\d+|w\d+|p\d+(\.\d+)?|mstd(\d+(\.\d+)?|inf)|mmax\d+|inc[01]?|t))*"
    r"|(original|originalr|v0|v0r|3a)(-mstd\d+(\.\d+)?)?)"
)


def _policy(name: str) -> str:
    if name not in POLICIES and not RAND_AUGMENT.fullmatch(name) and not TIMM_POLICY.fullmatch(name):
        raise ValueError(
            f"unknown policy '{name}'; choose from {', '.join(POLICIES)}, randaugment-n2-m9 (operations and "
            "magnitude), or one of timm's, such as timm:rand-m7-mstd0.5-inc1"
        )
    return name


class Augmentation(Settings):
    """RandomResizedCrop to ``crop`` pixels in ranges of ``area`` and ``aspect``; probability of a flip.

    ``policy`` names further operations of torchvision or timm, and ``erasing`` is the probability that a
    rectangle is erased. An epoch has ``repeats`` differently augmented copies of an image, and accordingly
    fewer images. With ``padding``, images are resized to ``crop``, padded by black pixels on all sides, and
    cropped at random, instead of RandomResizedCrop.
    """

    OPTIONS = frozenset({"policy", "erasing", "repeats", "padding"})

    crop: Crop = 224
    area: Annotated[tuple[Share, Share], AfterValidator(_ascending)] = (0.08, 1.0)
    aspect: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ascending)] = (3 / 4, 4 / 3)
    flip: Fraction = 0.5
    policy: Annotated[str, AfterValidator(_policy)] | None = None
    erasing: Fraction = 0.0
    repeats: Count = 1
    padding: NonNegativeInt = 0

    @model_validator(mode="after")
    def the_padding_is_smaller_than_the_crop(self) -> Self:
        if self.padding >= self.crop:
            raise ValueError(f"padding {self.padding} must be smaller than the crop of {self.crop} pixels")
        return self


class Validation(Settings):
    """Epochs between validations; 0 for one validation after the last epoch.

    With ``every_steps``, there are further validations between, whose metrics are logged.
    """

    OPTIONS = frozenset({"every_steps"})

    every_epochs: NonNegativeInt = 1
    every_steps: Count | None = None


class CropValidation(Validation):
    """Validation on center crops of ``crop`` pixels.

    ``resize`` is the short side before the crop [default: 8/7 of it], ``interpolation`` a filter of Pillow
    [default: bilinear].
    """

    OPTIONS = Validation.OPTIONS | {"resize", "interpolation"}

    crop: Crop = 224
    resize: Crop | None = None
    interpolation: Literal["bicubic", "lanczos"] | None = None

    @model_validator(mode="after")
    def the_crop_fits(self) -> Self:
        if self.resize is not None and self.resize < self.crop:
            raise ValueError(f"resize {self.resize} is smaller than the crop of {self.crop} pixels; raise it")
        return self

    def resized(self, crop: int) -> "CropValidation":
        """Return the validation at another crop size; the short side stays in proportion."""
        resize = self.resize and round(crop * self.resize / self.crop)
        return self.model_copy(update={"crop": crop, "resize": resize})


class Ema(Settings):
    """Exponential moving average of the weights, which is validated and saved instead of the weights.

    Every ``every_steps`` steps, the average becomes ``decay`` times itself plus ``1 - decay`` times the
    weights, which include the statistics of batch norms. With ``after_warmup``, it equals the weights until
    the warm-up ends.
    """

    decay: Inner
    every_steps: Count = 1
    after_warmup: bool = False


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
