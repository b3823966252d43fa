"""The networks of an inspection: each with the weights of trainings, and untrained beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdabench.analysis.inspection import NOISE, State
from sdabench.data.source import FORMS, DataSource
from sdabench.errors import UsageError
from sdabench.records.spec import RANDOM, Weights
from sdabench.registry import load_registry
from sdabench.registry.sources import identity
from sdabench.training.job import AnyJob, Machine, evaluation_job, standard_protocol
from sdabench.training.run_folder import TRAININGS, TrainingRun, find_run, read_run, training_folders
from sdabench.weights.local import LocalWeights
from sdabench.weights.weights_source import WeightsSource, check_timm_network, parse, resolve

Fetch = Callable[[WeightsSource, str], LocalWeights]


def fetch(source: WeightsSource, model: str) -> LocalWeights:
    """Return the weights of a source for a network, after downloading them if needed."""
    check_timm_network(source, model)
    return resolve(source, model=model)


@dataclass(frozen=True)
class GivenWeights:
    """Weights of a network, and the training run that they are of, if they are."""

    model: str
    weights: LocalWeights
    run: TrainingRun | None = None

    @property
    def seed(self) -> int | None:
        return None if self.run is None else self.run.spec.seed


@dataclass(frozen=True)
class Subject:
    """A network to inspect: with the weights of a job, or untrained with those of its seed.

    Without a job, the images are noise. ``run`` numbers the weights of the network from 1.
    """

    model: str
    state: State
    run: int
    seed: int | None
    weights: str
    job: AnyJob | None = None

    @property
    def data(self) -> str:
        return NOISE if self.job is None else self.job.spec.data


def find_weights(text: str, models: Sequence[str], fetch: Fetch = fetch) -> list[GivenWeights]:
    """Find the weights that a value of ``--weights`` names.

    Args:
        text: a source of weights, ``NAME=SOURCE``, or a folder. A folder gives the trainings of all these
            networks in it.

    Raises:
        UsageError: a source fits several networks, or a folder has no training of any.
        SdabenchError: the weights cannot be fetched.
    """
    name, _, named = text.partition("=")
    if named and name in models:
        text, models = named, [name]
    path = Path(text).expanduser()
    if path.is_dir():
        return _trainings(path, models)
    if len(models) > 1:
        raise UsageError(
            f"--weights {text} could be of any of {len(models)} networks; use {models[0]}={text}"
        )
    return [GivenWeights(models[0], fetch(parse(text), models[0]))]


def _trainings(path: Path, models: Sequence[str]) -> list[GivenWeights]:
    """List the trainings of networks in a folder, in the order of their seeds."""
    folders = [path]
    if not (path / "run.json").is_file():
        every = (folder for model in models for folder in training_folders(path / TRAININGS, model))
        folders = [folder for folder in every if (folder / "run.json").is_file()] or [path]
    found = []
    for folder in folders:
        model = models[0]
        if (folder / "run.json").is_file():
            own = identity(read_run(folder).spec.model)
            model = next((each for each in models if identity(each) == own), model)
        run = read_run(find_run(folder, model))  # or the error that there is none
        weights = LocalWeights.of_file(folder / next(iter(run.weights.values())))
        found.append(GivenWeights(model, weights, run))
    return sorted(found, key=lambda each: (models.index(each.model), each.seed or 0))


def make_subjects(
    models: Sequence[str],
    given: Sequence[GivenWeights] = (),
    data: DataSource | None = None,
    *,
    images: int,
    resolution: int | None = None,
    untrained: bool = True,
    seed: int = 0,
    machine: Machine = Machine(),  # noqa: B008  # frozen
) -> list[Subject]:
    """List the networks to inspect: each with its weights, after the untrained network with the same seed.

    Args:
        data: the validation images [default: of each network's training run, or else of the first training
            run; noise without any weights].
        images: the number of images of a dataset.
        untrained: inspect the untrained networks beside those with weights.
        seed: of the initial weights of networks without a training run; several have consecutive seeds.

    Raises:
        UsageError: an unknown network, or weights without a dataset.
        SdabenchError: the dataset cannot be read.
    """
    subjects = []
    first_run = next((each.run for each in given if each.run), None)
    for model in models:
        own = [each for each in given if each.model == model]
        for number, weights in enumerate(own, start=1):
            job = _job(model, weights, weights.run, data, images, resolution, seed, machine)
            source = weights.weights.source
            if untrained:
                initial = weights.seed if weights.seed is not None else seed + number - 1
                subjects.append(
                    Subject(model, "untrained", number, initial, RANDOM, _untrained(job, initial))
                )
            subjects.append(Subject(model, "trained", number, weights.seed, source, job))
        if not own:
            load_registry().model(model)
            own_job = None
            if data or first_run:
                own_job = _job(model, None, first_run, data, images, resolution, seed, machine)
                own_job = _untrained(own_job, seed)
            subjects.append(Subject(model, "untrained", 1, seed, RANDOM, own_job))
    return subjects


def _job(
    model: str,
    given: GivenWeights | None,
    run: TrainingRun | None,
    data: DataSource | None,
    images: int,
    resolution: int | None,
    seed: int,
    machine: Machine,
) -> AnyJob:
    """Make the evaluation of a network, by default with the dataset and the protocol of a training run."""
    task = load_registry().model(model).task
    if data is None:
        if run is None:
            raise UsageError(f"name the images to inspect trained weights with: --data {FORMS}")
        data = DataSource.parse(run.spec.data)
    data = data.ensure_generated(task=task)
    split = data.read("val", task).subset(images)
    same = run is not None and run.spec.task == task
    protocol = run.spec.protocol if run and same else standard_protocol(data, task)
    if resolution is not None:
        update = {"preprocessing": protocol.preprocessing.resized(resolution)}
        protocol = protocol.model_copy(update=update)
    return evaluation_job(
        model,
        data,
        split,
        given.weights if given else None,
        machine=machine,
        protocol=protocol,
        seed=seed if run is None else run.spec.seed,
        **(run.provenance if run and given else {}),
    )


def _untrained(job: AnyJob, seed: int) -> AnyJob:
    """Return the job of the same network with the random weights of a seed, on the same images."""
    spec = job.spec.with_values(
        weights=Weights(source=RANDOM),
        seed=seed,
        recipe=None,
        train_dataset=None,
        backbone=None,
        initial=None,
    )
    return replace(job, spec=spec, weights=None)
