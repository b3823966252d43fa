"""Train on real JPEG files: steps computed by hand, interruptions, quirks, errors."""

import copy
import math
from itertools import product

import numpy as np
import pytest
import torch
from filelock import FileLock
from torchvision import transforms

from sdabench import create_model
from sdabench.data.images import TrainingImages, TrainingOrder, decode
from sdabench.data.source import DataSource
from sdabench.errors import DataError, SdabenchError, UsageError, WeightsError
from sdabench.registry import load_registry
from sdabench.registry.recipes import ClassificationRecipe
from sdabench.training.checkpoints import Checkpoints
from sdabench.training.evaluation import evaluate_training
from sdabench.training.job import Machine, training_job
from sdabench.training.loop import train
from sdabench.training.progress import DivergedError
from sdabench.training.run_folder import MetricsLog, find_run, read_run
from sdabench.training.trainer import Trainer, load_training_batches
from sdabench.weights.local import LocalWeights
from tests.helpers.datasets import SAMPLE
from tests.helpers.training import (
    RECIPE,
    StopAfter,
    classifier_job,
    copy_with_broken_image,
    final_weights,
    read_log,
    same_weights,
)


def inputs_of(batch):
    return batch.to(torch.device("cpu"), torch.contiguous_format).images


def sgd_by_hand(network, batches, rate, momentum, decay, smoothing, parts=1, reset_after=None):
    """Run SGD with momentum, weight decay on all parameters and label smoothing; return the losses."""
    velocity = [torch.zeros_like(parameter) for parameter in network.parameters()]
    losses = []
    for number, (images, labels) in enumerate(batches):
        if number == reset_after:
            velocity = [torch.zeros_like(v) for v in velocity]
        loss = 0.0
        for part, part_labels in zip(images.chunk(parts), labels.chunk(parts), strict=True):
            log_probability = network(part).log_softmax(dim=1)
            target = torch.full_like(log_probability, smoothing / log_probability.shape[1])
            target[torch.arange(len(part_labels)), part_labels] += 1 - smoothing
            loss = loss - (target * log_probability).sum() / len(labels)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient, v in zip(network.parameters(), gradients, velocity, strict=True):
                v.mul_(momentum).add_(gradient + decay * parameter)
                parameter.sub_(rate * v)
    return losses


@pytest.mark.parametrize(
    ("changes", "by_hand"),
    [
        ({"label_smoothing": 0.1}, {}),
        ({"label_smoothing": 0.1, "batch_size": 4, "accumulate": 2}, {"parts": 2}),
        (
            {"label_smoothing": 0.1, "quirks": {"new_optimizer_each_epoch": True}, "batch_size": 10},
            {"reset_after": 1},
        ),
    ],
)
def test_steps_match_sgd_by_hand(textures, changes, by_hand):
    trainer = Trainer(
        classifier_job(textures, optimizer={"learning_rate": 0.01, "weight_decay": 0.1}, **changes)
    )
    peer = create_model("resnet50", num_classes=2)
    peer.load_state_dict(trainer.network.state_dict())
    start = torch.nn.utils.parameters_to_vector(peer.train().parameters()).clone()
    batches = [batch for batch, _ in zip(load_training_batches(trainer), range(2), strict=False)]
    pairs = [(inputs_of(batch), batch.labels) for batch in batches]
    losses = sgd_by_hand(peer, pairs, 0.01, 0.9, 0.1, 0.1, **by_hand)
    for batch, loss in zip(batches, losses, strict=True):
        before = trainer.progress.epoch_losses.get("loss", 0.0)
        trainer.take_step(batch)
        step_loss = trainer.progress.epoch_losses["loss"] - before
        assert step_loss / len(batch.labels) == pytest.approx(loss, rel=1e-4)
    own_weights, peer_weights = (
        torch.nn.utils.parameters_to_vector(network.parameters()) for network in (trainer.network, peer)
    )
    assert (own_weights - peer_weights).norm() < 1e-2 * (peer_weights - start).norm()


def test_unequal_micro_batches_weight_images_equally(textures):
    trainer = Trainer(classifier_job(textures, batch_size=5, accumulate=2))
    peer = create_model("resnet50", num_classes=2).train()
    peer.load_state_dict(trainer.network.state_dict())
    batch = next(load_training_batches(trainer))
    [loss] = sgd_by_hand(peer, [(inputs_of(batch), batch.labels)], 0.1, 0.9, 0.0, 0.0, parts=2)
    trainer.take_step(batch)
    assert trainer.progress.first_loss == pytest.approx(loss, rel=1e-5)


def test_weight_decay_of_norms_and_biases_is_optional(textures):
    optimizer = {"learning_rate": 0.05, "decay_norms_and_biases": False}
    groups = Trainer(classifier_job(textures, optimizer=optimizer)).optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [1e-4, 0.0]
    # ResNet-50: 53 convolutions and the classifier; 53 norms of two vectors, and the bias of the classifier.
    assert [len(group["params"]) for group in groups] == [54, 107]


def test_each_epoch_has_each_image_once_with_any_workers(textures):
    in_process, in_workers = (
        list(load_training_batches(Trainer(classifier_job(textures, workers=workers)))) for workers in (0, 2)
    )
    assert [len(batch.labels) for batch in in_process] == [5, 5, 5, 5]
    epochs = [in_process[0].indices + in_process[1].indices, in_process[2].indices + in_process[3].indices]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]
    assert all(
        torch.equal(one.images, other.images) for one, other in zip(in_process, in_workers, strict=True)
    )


def test_training_order_depends_on_seed_and_resumes_at_any_step():
    reference = list(TrainingOrder(10, 4, epochs=3, seed=5))
    assert [len(batch) for batch in reference] == [4, 4, 2] * 3
    for step in range(10):
        order = TrainingOrder(10, 4, epochs=3, seed=5, first_step=step)
        assert list(order) == reference[step:]
        assert len(order) == 9 - step
    assert list(TrainingOrder(10, 4, epochs=3, seed=6)) != reference
    assert [len(batch) for batch in TrainingOrder(9, 4, epochs=1, seed=0)] == [4, 4]


def test_augmentation_depends_on_seed_epoch_and_image(textures):
    job = classifier_job(textures)
    images = TrainingImages(job.train, job.spec.recipe.augmentation, seed=1)
    state = torch.get_rng_state()
    first = images[0, 3].image
    assert torch.equal(first, images[0, 3].image)
    assert torch.equal(torch.get_rng_state(), state)
    for other in (
        images[1, 3],
        images[0, 4],
        TrainingImages(job.train, job.spec.recipe.augmentation, seed=2)[0, 3],
    ):
        assert not torch.equal(first, other.image)


def test_augmentation_matches_torchvision(textures):
    """The same random numbers give the same image as torchvision's transforms, up to a pixel value of one."""
    job = classifier_job(textures)
    images = TrainingImages(job.train, job.spec.recipe.augmentation, seed=1)
    torchvision_transforms = transforms.Compose(
        [transforms.RandomResizedCrop(32), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    )
    differences = []
    for epoch, index in product(range(4), range(len(job.train.items))):
        image, _ = decode(job.train.root / job.train.items[index].path)
        entropy = np.random.SeedSequence([1, epoch, index]).generate_state(1, np.uint64)
        with torch.random.fork_rng():
            torch.manual_seed(int(entropy[0]))
            expected = torchvision_transforms(image)
        differences.append((images[epoch, index].image.int() - expected.int()).abs().float())
    assert torch.stack(differences).max() <= 1
    assert torch.stack(differences).mean() < 0.05


def test_training_writes_weights_log_and_record(textures, tmp_path):
    job = classifier_job(textures, validation={"crop": 32, "every_epochs": 1}, fit_below=100.0)
    folder = train(job, tmp_path)
    assert folder.name.startswith("resnet50-")
    lines = read_log(folder)
    assert [(line["step"], line["epoch"]) for line in lines] == [(2, 1.0), (4, 2.0)]
    assert all(line["learning_rate"] == 0.05 and 0 <= line["top1_pct"] <= 100 for line in lines)
    [record] = evaluate_training(job, folder, tmp_path)
    assert record.metrics["top1_pct"] == lines[-1]["top1_pct"]
    assert record.recipe["optimizer"]["momentum"] == 0.9
    assert record.train_dataset.samples == 10
    assert (record.training.steps, record.training.epochs, record.training.seeds) == (4, 2, [0])
    assert record.training.last_loss == pytest.approx(lines[-1]["loss"])
    assert record.training.fits is True
    assert record.spec_digest == job.spec.spec_digest
    assert record.weights.source == "training"
    assert not record.comparable
    assert list(folder.glob("*.pt")) == []


def test_fit_is_decided_by_last_loss(textures, tmp_path):
    job = classifier_job(textures, optimizer={"learning_rate": 1e-9}, fit_below=0.5)
    training = read_run(train(job, tmp_path)).training
    assert training.last_loss > 0.5 * math.log(2)
    assert training.fits is False
    assert read_run(train(classifier_job(textures, epochs=1), tmp_path)).training.fits is None


def test_training_is_reproducible_from_its_seed(textures, tmp_path):
    folders = [
        train(classifier_job(textures, seed=seed), tmp_path / str(n)) for n, seed in enumerate((0, 0, 1))
    ]
    first, again, other = map(final_weights, folders)
    assert same_weights(first, again)
    assert not same_weights(first, other)


@pytest.mark.parametrize("changes", [{}, {"optimizer": {"name": "adamw", "learning_rate": 1e-3}}])
@pytest.mark.parametrize("images", [5, 10, 15])
def test_interrupted_training_resumes_bit_identically(textures, tmp_path, images, changes):
    reference = train(classifier_job(textures, **changes), tmp_path / "whole")
    job = classifier_job(textures, **changes)
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "parts", StopAfter(images))
    folder = train(job, tmp_path / "parts")
    assert same_weights(final_weights(reference), final_weights(folder))
    run, expected = read_run(folder).training, read_run(reference).training
    assert (run.resumed, run.first_loss, run.last_loss) == (1, expected.first_loss, expected.last_loss)
    assert [(line["step"], line["loss"]) for line in read_log(folder)] == [
        (line["step"], line["loss"]) for line in read_log(reference)
    ]


def test_finished_training_is_skipped(textures, tmp_path):
    progress = []
    folder = train(classifier_job(textures), tmp_path, lambda images, note="": progress.append(images))
    assert sum(progress) == 20
    train(classifier_job(textures), tmp_path, lambda images, note="": progress.append(images))
    assert sum(progress) == 20
    (folder / "model.safetensors").unlink()
    train(classifier_job(textures), tmp_path)
    assert (folder / "model.safetensors").is_file()


def test_leftovers_of_a_killed_process_are_deleted(textures, tmp_path):
    job = classifier_job(textures, model="tiny")
    folder = train(job, tmp_path)
    Checkpoints(folder).save(4, {})
    (folder / "checkpoints/.step-000000003.pt.part").write_bytes(b"half")
    (folder / "best-top1_pct-epoch1.safetensors").touch()
    train(job, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock", "metrics.jsonl", "model.safetensors", "run.json",
    ]  # fmt: skip


def test_quirk_best_epoch_keeps_best_weights(textures, tmp_path):
    quirks = {"best_epoch_by_validation": True}
    job = classifier_job(textures, epochs=3, validation={"crop": 32, "every_epochs": 1}, quirks=quirks)
    folder = train(job, tmp_path)
    run, lines = read_run(folder), read_log(folder)
    [record] = evaluate_training(job, folder, tmp_path)
    for metric in ("top1_pct", "top5_pct"):
        values = [line[metric] for line in lines]
        assert run.training.best_epochs[metric] == values.index(max(values)) + 1
        assert run.weights[metric] == f"best-{metric}-epoch{run.training.best_epochs[metric]}.safetensors"
        assert record.metrics[metric] == max(values)


def test_best_weights_of_previous_checkpoint_are_kept(textures, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "validate", lambda self: {"top1_pct": float(self.epoch)})
    changes = {"epochs": 6, "validation": {"crop": 32, "every_epochs": 1}, "model": "tiny"}
    job = classifier_job(textures, quirks={"best_epoch_by_validation": True}, **changes)
    with pytest.raises(KeyboardInterrupt):
        train(job.on(Machine(checkpoint_seconds=0)), tmp_path, StopAfter(40))
    [folder] = (tmp_path / "training").iterdir()
    assert sorted(path.name[-13] for path in folder.glob("best-*")) == ["3", "4"]
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path, StopAfter(50))
    assert sorted(path.name[-13] for path in folder.glob("best-*")) == ["3", "4", "5"]


def test_best_weights_of_a_checkpoint_within_a_validation_are_kept(textures, tmp_path, monkeypatch):
    """The resumed training improves in that validation, but its own checkpoint is damaged."""
    validate = Trainer.validate
    monkeypatch.setattr(Trainer, "validate", lambda self: {**validate(self), "top1_pct": float(self.epoch)})
    changes = {"epochs": 4, "validation": {"crop": 32, "every_epochs": 1}, "model": "tiny"}
    job = classifier_job(textures, quirks={"best_epoch_by_validation": True}, **changes)
    job = job.on(Machine(batch_size=1, checkpoint_seconds=0))
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path, StopAfter(20))  # at the start of the second validation
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path, StopAfter(25))
    [folder] = (tmp_path / "training").iterdir()
    (folder / "checkpoints/step-000000005.pt").write_bytes(b"")
    assert read_run(train(job, tmp_path)).training.best_epochs["top1_pct"] == 4


def test_log_states_the_rate_of_the_last_step_after_a_resume_without_optimizer(textures, tmp_path):
    changes = {"epochs": 3, "validation": {"crop": 32, "every_epochs": 1}, "model": "tiny"}
    quirks = {"resume_without_optimizer": True}
    job = classifier_job(textures, quirks=quirks, schedule={"kind": "cosine"}, **changes)
    job = job.on(Machine(batch_size=1))
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path, StopAfter(20))  # at the start of the second validation
    rates = [line["learning_rate"] for line in read_log(train(job, tmp_path))]
    assert rates == [job.spec.recipe.learning_rate(step, 2) for step in (1, 3, 5)]


def test_quirk_no_seed_draws_a_seed_at_each_start(textures, tmp_path):
    job = classifier_job(textures, quirks={"no_seed": True, "resume_without_optimizer": True})
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path, StopAfter(10))
    seeds = read_run(train(job, tmp_path)).training.seeds
    assert len(seeds) == 2
    assert seeds[0] != seeds[1]


def test_quirk_resume_without_optimizer_drops_momentum(textures):
    for forget in (False, True):
        job = classifier_job(textures, quirks={"resume_without_optimizer": forget})
        trainer = Trainer(job)
        trainer.take_step(next(load_training_batches(trainer)))
        resumed = Trainer(job)
        resumed.restore(trainer.state())
        assert same_weights(resumed.network.state_dict(), trainer.network.state_dict())
        assert bool(resumed.optimizer.state) is not forget


def test_quirk_resume_without_best_forgets_how_good_the_best_epochs_were(textures):
    for forget in (False, True):
        job = classifier_job(textures, quirks={"resume_without_best": forget}, model="tiny")
        trainer = Trainer(job)
        trainer.progress.best, trainer.progress.best_epochs = {"top1_pct": 70.0}, {"top1_pct": 3}
        resumed = Trainer(job)
        resumed.restore(trainer.state())
        assert resumed.progress.best == ({} if forget else {"top1_pct": 70.0})
        assert resumed.progress.best_epochs == {"top1_pct": 3}


@pytest.mark.parametrize("first_only", [True, False])
def test_running_statistics_are_those_of_the_first_replica_or_of_all(textures, first_only):
    """The replicas of DataParallel are computed one by one; only the first shares the module's buffers."""
    quirks = {"first_replica_statistics": first_only}
    trainer = Trainer(classifier_job(textures, batch_size=6, accumulate=3, quirks=quirks))
    batch = next(load_training_batches(trainer))
    replicas = []
    for images in inputs_of(batch).chunk(3):
        replicas.append(copy.deepcopy(trainer.network).train())
        replicas[-1](images)
    kept = [dict(replica.named_buffers()) for replica in (replicas[:1] if first_only else replicas)]
    trainer.take_step(batch)
    for name, buffer in trainer.network.named_buffers():
        expected = torch.stack([buffers[name].double() for buffers in kept]).mean(0)
        assert torch.allclose(buffer.double(), expected, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"channels_last": True},
        {"batch_size": 8, "accumulate": 2, "precision": "bf16", "channels_last": True},
    ],
)
def test_precision_and_memory_format_barely_change_first_loss(textures, tmp_path, changes):
    exact = {key: value for key, value in changes.items() if key in ("batch_size", "accumulate")}
    larger = {"epochs": 1, "augmentation": {"crop": 64}}
    losses = [
        read_run(train(classifier_job(textures, **larger | options), tmp_path / str(n))).training.first_loss
        for n, options in enumerate((exact, changes))
    ]
    assert losses[0] == pytest.approx(losses[1], abs=0.1)


def test_non_finite_loss_reports_step_rate_and_checkpoint(textures, tmp_path):
    job = classifier_job(textures, epochs=20, optimizer={"learning_rate": 1e18})
    with pytest.raises(
        DivergedError, match=r"step \d+ of 40, learning rate 1e\+18;.*no checkpoint yet"
    ) as caught:
        train(job, tmp_path)
    assert "\n" not in str(caught.value)
    trainer = Trainer(job)
    [folder] = (tmp_path / "training").iterdir()
    Checkpoints(folder).save(0, trainer.state())
    with pytest.raises(DivergedError, match=f"last good checkpoint is in {folder}/checkpoints"):
        train(job, tmp_path)
    with torch.no_grad():
        trainer.network.fc.bias[0] = math.nan
    with pytest.raises(DivergedError, match="the weights are not finite"):
        trainer.state()


@pytest.mark.parametrize("every_epochs", [0, 1])
def test_weights_that_are_not_finite_are_neither_validated_nor_saved(
    textures, tmp_path, monkeypatch, every_epochs
):
    """The gradients of the last step are not finite, although its loss is."""
    changes = {"validation": {"crop": 32, "every_epochs": every_epochs}, "schedule": {"kind": "cosine"}}
    job = classifier_job(textures, model="tiny", **changes)
    update = Trainer._update_weights

    def poisoned(trainer, pending):
        if pending.step == 3:
            trainer.network.fc.bias.grad[0] = math.nan
        update(trainer, pending)

    monkeypatch.setattr(Trainer, "_update_weights", poisoned)
    rate = job.spec.recipe.learning_rate(3, 2)
    with pytest.raises(DivergedError, match=f"not finite at step 4 of 4, learning rate {rate:.3g}; try"):
        train(job, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
    [folder] = (tmp_path / "training").iterdir()
    assert [line["step"] for line in read_log(folder)] == ([2] if every_epochs else [2, 4])


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_image_stops_training_or_is_skipped(textures, tmp_path, workers):
    folder, path = copy_with_broken_image(textures, tmp_path)
    with pytest.raises(DataError, match=path.name):
        train(classifier_job(folder, workers), tmp_path / "a")
    run = train(classifier_job(folder, workers, skip_broken=True), tmp_path / "b")
    assert read_run(run).training.skipped_images == 2
    with pytest.raises(DataError, match="a batch has only 1 image without an error: "):
        train(classifier_job(folder, workers, skip_broken=True, batch_size=2), tmp_path / "c")


@pytest.mark.parametrize("workers", [0, 2])
def test_training_never_ends_before_its_last_step(textures, tmp_path, monkeypatch, workers):
    job, decoded = classifier_job(textures, workers=workers, model="tiny"), TrainingImages.__getitem__

    def ends(images, key):
        if key[0] == 1:
            raise StopIteration
        return decoded(images, key)

    with monkeypatch.context() as changed:
        changed.setattr(TrainingImages, "__getitem__", ends)
        with pytest.raises(SdabenchError, match="tiny: no more batches after step 2 of 4; check"):
            train(job, tmp_path / "ended")
    resumed, uninterrupted = (train(job, tmp_path / name) for name in ("ended", "one"))
    assert same_weights(final_weights(resumed), final_weights(uninterrupted))


def test_locked_folder_is_an_error(textures, tmp_path, monkeypatch):
    monkeypatch.setattr("sdabench.files.LOCK_TIMEOUT", 0.1)
    folder = train(classifier_job(textures, epochs=1), tmp_path)
    with FileLock(folder / ".lock"), pytest.raises(SdabenchError, match="another training is writing to"):
        train(classifier_job(textures, epochs=1), tmp_path)


def test_too_few_images_is_an_error(textures, tmp_path):
    with pytest.raises(DataError, match="has 1 images, .* batch norms need 2 or more"):
        train(classifier_job(textures, train_images=1), tmp_path)


def test_training_whose_initial_weights_are_unusable_leaves_no_run(textures, tmp_path):
    torch.save(create_model("tiny", num_classes=3).state_dict(), tmp_path / "w.pth")
    recipe = ClassificationRecipe.model_validate(RECIPE)
    weights = LocalWeights.of_file(tmp_path / "w.pth")
    job = training_job("tiny", DataSource("synthetic", textures), recipe, initial=weights)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError):
        train(job, tmp_path)
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize("is_new", [False, True])
def test_initial_weights_start_a_training(textures, tmp_path, is_new):
    torch.manual_seed(5)
    classes = classifier_job(textures).train.num_classes + is_new
    given = create_model("tiny", num_classes=classes).state_dict()
    torch.save(given, tmp_path / "w.pth")
    source, weights = DataSource("synthetic", textures), LocalWeights.of_file(tmp_path / "w.pth")
    recipe = ClassificationRecipe.model_validate(
        RECIPE | {"optimizer": {"learning_rate": 1e-12}, "epochs": 1}
    )
    job = training_job("tiny", source, recipe, initial=weights)
    plain = training_job("tiny", source, recipe)
    assert job.spec.spec_digest != plain.spec.spec_digest
    lines = []
    folder = train(job, tmp_path, log=lines.append)
    trained, run = final_weights(folder), read_run(folder)
    assert torch.allclose(trained["conv1.weight"], given["conv1.weight"], atol=1e-6)
    assert (trained["fc.weight"].shape == given["fc.weight"].shape) is not is_new
    assert run.training.new_classifier is is_new
    assert any("starts from random weights" in line for line in lines) is is_new
    [record] = evaluate_training(job, folder, tmp_path)
    assert record.initial.sha256 == job.spec.initial.sha256
    assert run.provenance["initial"] == job.spec.initial


def test_run_is_found_by_its_folder_or_the_one_above(textures, tmp_path, monkeypatch):
    folder = train(classifier_job(textures), tmp_path)
    assert find_run(folder, "resnet50") == find_run(tmp_path, "resnet50") == folder
    with pytest.raises(UsageError, match="no training of 'senet50' in .*, which has resnet50-"):
        find_run(tmp_path, "senet50")
    with pytest.raises(UsageError, match="no training of 'senet50' in .*, which has resnet50"):
        find_run(folder, "senet50")
    train(classifier_job(textures, epochs=1), tmp_path)
    with pytest.raises(UsageError, match="holds several trainings of 'resnet50'; name one"):
        find_run(tmp_path, "resnet50")
    with monkeypatch.context() as changes:
        declared = load_registry().model("resnet50")
        network = declared.network.model_copy(update={"strides": [1, 2, 2, 1]})  # the weights still fit
        changes.setitem(load_registry().models, "resnet50", declared.model_copy(update={"network": network}))
        with pytest.raises(DataError, match="was trained with another definition of 'resnet50'"):
            find_run(folder, "resnet50")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="were deleted"):
        find_run(folder, "resnet50")


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the real sample is not here")
def test_training_on_real_images(tmp_path):
    """Train on original ImageNet files, including gray and CMYK ones, with a thousand classes."""
    for split in ("train", "val"):
        (tmp_path / split).symlink_to(SAMPLE / "val")
    recipe = ClassificationRecipe.model_validate(RECIPE | {"epochs": 1, "batch_size": 50})
    job = training_job("resnet50", DataSource("imagenet", tmp_path), recipe, machine=Machine(workers=2))
    [record] = evaluate_training(job, train(job, tmp_path), tmp_path)
    assert record.training.steps == 4
    assert record.training.first_loss == pytest.approx(math.log(1000), abs=0.7)
    assert (record.samples, record.train_dataset.samples) == (200, 200)


def test_log_states_the_trained_epochs(tmp_path):
    log = MetricsLog(tmp_path)
    assert log.last_epoch() == 0
    for step in range(1, 101):
        log.write({"step": step, "epoch": step / 8, "loss": 1.0})
    assert log.last_epoch() == 12.5
