"""Load studies: experiments whose networks, data, tests and decision rule are fixed before they run."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from sdabench.errors import RegistryError, SdabenchError, UsageError
from sdabench.hashing import sha256_of_lines
from sdabench.registry import Registry, load_registry, unknown
from sdabench.registry.recipes import WORDS, Recipe, load_recipe
from sdabench.registry.schema import DataTask, Name, Strict
from sdabench.registry.yaml_files import read_mapping, validated

Measure = Literal[
    "octave_top1_pct", "top1_pct", "swap_drop_pct", "depth_slope",
    "ap_pct", "ap50_pct", "ap75_pct", "ap_s_pct", "ap_m_pct", "ap_l_pct",
]  # fmt: skip
Direction = Literal["positive", "negative", "either"]
Quantifier = Literal["all", "any"]
Words = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
MEASURES: dict[DataTask, tuple[Measure, ...]] = {
    "classification": ("octave_top1_pct", "top1_pct", "swap_drop_pct", "depth_slope"),
    "detection": ("ap_pct", "ap50_pct", "ap75_pct", "ap_s_pct", "ap_m_pct", "ap_l_pct"),
}
OF_DEPTH_WEIGHTS: tuple[Measure, ...] = ("swap_drop_pct", "depth_slope")
NETWORKS: dict[DataTask, str] = {"classification": "classifier", "detection": "detector"}


class Arm(Strict):
    """One network of a study, which is trained with each seed."""

    model: str
    title: Words


class StudyData(Strict):
    """The generated dataset of a study; see :class:`sdabench.data.synthetic.ClassificationPlan`.

    ``octaves`` are the sizes of objects in powers of two of the short side: -1 is from 1/2 to 1.
    """

    task: ClassVar[DataTask] = "classification"

    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    octaves: Annotated[tuple[int, ...], Field(min_length=2)]
    train_per_class: PositiveInt
    val_per_class: PositiveInt
    image_size: PositiveInt
    seed: Seed = 0

    @model_validator(mode="after")
    def octaves_can_be_swapped(self) -> Self:
        for name, values in (("classes", self.classes), ("octaves", self.octaves)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: a value is given twice; remove one")
        if min(self.train_per_class, self.val_per_class) < len(self.octaves):
            raise ValueError(
                f"train_per_class and val_per_class: there are {len(self.octaves)} octaves, so use that many "
                "images or more"
            )
        return self


class DetectionData(Strict):
    """The generated dataset of a study of detectors.

    ``train`` and ``val`` are numbers of images; see :class:`sdabench.data.synthetic.detection.DetectionPlan`.
    """

    task: ClassVar[DataTask] = "detection"

    categories: PositiveInt
    train: PositiveInt
    val: PositiveInt
    image_size: PositiveInt
    seed: Seed = 0


def _kind_of_data(data: Any) -> str:
    is_detection = "categories" in data if isinstance(data, Mapping) else isinstance(data, DetectionData)
    return DetectionData.__name__ if is_detection else StudyData.__name__


AnyData = Annotated[
    Annotated[StudyData, Tag(StudyData.__name__)] | Annotated[DetectionData, Tag(DetectionData.__name__)],
    Discriminator(_kind_of_data),
]


class StudyTest(Strict):
    """A two-sided t-test of one measure over the seeds, at zero.

    ``measure`` of ``arm`` is tested, or minus that of ``against`` with the same seed. ``octave`` is that of
    ``top1_pct``. The hypothesis predicts a value in ``direction``; ``smallest_effect`` is the smallest that
    matters, in the unit of the measure. ``reading`` says what the test is about.
    """

    measure: Measure
    octave: int | None = None
    arm: str
    against: str | None = None
    reading: Words
    smallest_effect: PositiveFloat
    direction: Direction

    @model_validator(mode="after")
    def only_accuracies_have_an_octave(self) -> Self:
        if (self.octave is None) == (self.measure == "top1_pct"):
            raise ValueError("octave is for measure: top1_pct, which needs it")
        if self.against == self.arm:
            raise ValueError("against is the arm itself; name another arm, or leave it out")
        return self

    @property
    def key(self) -> str:
        """The name of the measured value."""
        return self.measure if self.octave is None else of_octave(self.measure, self.octave)

    @property
    def arms(self) -> list[str]:
        return [self.arm, self.against] if self.against else [self.arm]

    @property
    def unit(self) -> str:
        return "depth per octave" if self.measure == "depth_slope" else "points"


class Decision(Strict):
    """The rule that decides the hypothesis from the verdicts of the primary tests.

    It is supported if ``all`` or ``any`` of them are, contradicted if ``all`` or ``any`` of them are, and
    open otherwise, or if both rules hold. ``words`` say the same.
    """

    supported: Quantifier
    contradicted: Quantifier
    words: Words


class Pilot(Strict):
    """What was tried before the study was fixed, on ``seeds`` that it does not use.

    ``sd`` is the standard deviation between seeds of the value of a test, from which ``study plan`` computes
    the power.
    """

    text: Words
    seeds: tuple[Seed, ...] = ()
    sd: dict[str, PositiveFloat] = Field(default={})


class Study(Strict):
    """One file of ``registry/studies``, with classifiers or with detectors.

    ``tests`` are the primary ones, whose p-values are corrected together; ``secondary`` ones have no
    verdict. ``other_measurements`` describe what the study states and no command computes. ``permutations``
    is the number of random assignments of depth weights to images from which ``swap_drop_pct`` is computed.
    """

    name: Name
    title: Words
    hypothesis: Words
    source: Words
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]
    data: AnyData
    recipe: str
    seeds: Annotated[tuple[Seed, ...], Field(min_length=3)]
    tests: Annotated[dict[Name, StudyTest], Field(min_length=1)]
    secondary: dict[Name, StudyTest] = Field(default={})
    other_measurements: tuple[Words, ...] = ()
    permutations: PositiveInt = 4
    correction: Literal["holm"] = "holm"
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    decision: Decision
    pilot: Pilot | None = None

    @model_validator(mode="after")
    def parts_fit_together(self) -> Self:
        models = [arm.model for arm in self.arms.values()]
        if len(set(models)) < len(models):
            raise ValueError("two arms have the same model; each arm is another network")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed is given twice; remove one")
        if both := self.tests.keys() & self.secondary.keys():
            raise ValueError(f"'{min(both)}' is a primary and a secondary test; rename one")
        for name, test in self.all_tests.items():
            for arm in test.arms:
                if arm not in self.arms:
                    listing = f"choose from {', '.join(self.arms)}"
                    raise ValueError(f"{name}: {unknown('arm', arm, self.arms, listing)}")
            if test.measure not in (measures := MEASURES[self.task]):
                raise ValueError(
                    f"{name}: {test.measure} is not a measure of {NETWORKS[self.task]}s; choose from "
                    f"{', '.join(measures)}"
                )
            if isinstance(self.data, StudyData) and test.octave not in (None, *self.data.octaves):
                raise ValueError(f"{name}: the data have no octave {test.octave}")
        if self.pilot is not None:
            if used := set(self.pilot.seeds) & set(self.seeds):
                raise ValueError(f"pilot: seed {min(used)} is also a seed of the study; use another one")
            if strange := self.pilot.sd.keys() - self.all_tests.keys():
                raise ValueError(f"pilot: sd: {unknown('test', min(strange), self.all_tests)}")
        return self

    @property
    def task(self) -> DataTask:
        """The task of the arms, which is that of the data."""
        return self.data.task

    @property
    def all_tests(self) -> dict[str, StudyTest]:
        return {**self.tests, **self.secondary}

    @property
    def decisive(self) -> dict[str, Any]:
        """The values that the digest covers: all but names, titles, source and the text of the pilot.

        A field that is added later must be left out while it has its default, so that the digests of studies
        without it stay the same.
        """
        left_out: Any = {
            "name": True,
            "title": True,
            "source": True,
            "arms": {"__all__": {"title"}},
            "pilot": {"text"},
        }
        return self.model_dump(mode="json", exclude=left_out)


class FrozenStudy(Strict):
    """A study with the definitions of its recipe and networks, and the digest of all of them."""

    study: Study
    recipe: dict[str, Any]
    networks: dict[str, str]  # the digest of the network of each arm

    @property
    def sha256(self) -> str:
        """The identity of the study; with another digest, it is another study."""
        recipe = {key: value for key, value in self.recipe.items() if key not in WORDS | {"name"}}
        parts: list[Any] = [self.study.decisive, recipe, self.networks]
        return sha256_of_lines(json.dumps(part, sort_keys=True) for part in parts)


def of_octave(measure: str, octave: int) -> str:
    """Return the name of a value of one octave, such as ``top1_pct/-1``."""
    return f"{measure}/{octave}"


def study_files(registry: Registry | None = None) -> dict[str, Path]:
    """Map the names of studies, also of plugins, to their files; raise a RegistryError for a duplicate."""
    files: dict[str, Path] = {}
    for path in (registry or load_registry()).files("studies"):
        if (other := files.setdefault(path.stem, path)) != path:
            raise RegistryError(
                f"study '{path.stem}' is defined twice: by {other} and by {path}; rename one of them"
            )
    return files


def study_names() -> list[str]:
    return list(study_files())


def load_study(name: str) -> Study:
    """Load a study of the registry or of a plugin, or a file.

    Raises:
        UsageError: there is no such study.
        RegistryError: its file is invalid, or names a model or recipe that is unknown.
    """
    known = study_files()
    path = known.get(name, Path(name))
    if name not in known and not (name.endswith((".yaml", ".yml")) and os.path.exists(path)):
        listing = f"choose from {', '.join(known)}" if known else "no study is defined"
        raise UsageError(unknown("study", name, known, listing))
    study = validated({"name": path.stem} | read_mapping(path), Study, path)
    _check_models(study, path)
    try:
        recipe_of(study)
    except UsageError as error:
        raise RegistryError(f"{path}: recipe: {error}") from None
    return study


def _check_models(study: Study, path: Path) -> None:
    registry = load_registry()
    for name, arm in study.arms.items():
        if arm.model not in registry.models:
            raise RegistryError(f"{path}: arms.{name}: {unknown('model', arm.model, registry.models)}")
        if (task := registry.models[arm.model].task) != study.task:
            raise RegistryError(
                f"{path}: arms.{name}: '{arm.model}' is a {NETWORKS[task]}, the data are for {study.task}; "
                f"name a {NETWORKS[study.task]}"
            )
    for name, test in study.all_tests.items():
        for each in test.arms:
            fused = registry.models[study.arms[each].model].depth_attention
            if test.measure in OF_DEPTH_WEIGHTS and not fused:
                raise RegistryError(
                    f"{path}: {name}: {test.measure} needs depth attention, '{each}' has none"
                )


def recipe_of(study: Study) -> Recipe:
    return load_recipe(study.recipe, study.task)


def frozen(study: Study, networks: Mapping[str, str] | None = None) -> FrozenStudy:
    """Return a study with the present definitions of its recipe and networks."""
    models = load_registry().models
    return FrozenStudy(
        study=study,
        recipe=recipe_of(study).model_dump(mode="json"),
        networks=dict(
            networks or {name: models[arm.model].network_sha256 for name, arm in study.arms.items()}
        ),
    )


def registry_state(declaration: FrozenStudy) -> str:
    """State whether the registry still has this version of a study."""
    name = declaration.study.name
    if name not in study_files():
        return "The registry has no study of this name."
    try:
        now = frozen(load_study(name)).sha256
    except SdabenchError as error:  # results can be read without it
        return f"The file in the registry is invalid now ({error})."
    if now == declaration.sha256:
        return "The file in the registry is still the same."
    return f"The registry has another version now ({now[:8]})."
