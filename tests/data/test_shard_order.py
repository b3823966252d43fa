"""Shards are read sequentially: each image once, within a window, by micro-batches, resumed at any step."""

import numpy as np
import pytest

from sdabench.data import read_ahead
from sdabench.data.images import RankBatches
from sdabench.data.packing import write_shards
from sdabench.data.read_ahead import ReadAhead
from sdabench.data.shard_order import ShardOrder, images_of_shards, reading_order
from sdabench.data.source import DataSource
from sdabench.errors import DataError, UsageError
from sdabench.registry.recipes import ClassificationRecipe
from sdabench.training import prediction
from sdabench.training.evaluation import evaluate
from sdabench.training.job import training_job
from sdabench.training.loop import train
from sdabench.training.order import training_order
from sdabench.training.signals import Stopped
from sdabench.training.tasks import task_of
from tests.helpers.processes import exit_codes, fork_ranks
from tests.helpers.training import RECIPE, StopAfter, evaluation_job_for, final_weights, same_weights

webdataset = pytest.importorskip("webdataset")

SIZES = (5, 4, 7, 6)
SHARDS = [np.arange(sum(SIZES[:number]), sum(SIZES[: number + 1])) for number in range(len(SIZES))]


def order_of(window=3, micro_batches=2, **values):
    values = {"batch_size": 4, "epochs": 2, "seed": 3, "smallest": 2} | values
    return ShardOrder(SHARDS, window, micro_batches, **values)


def parts_of(order, epoch=0):
    """Return the images of each micro-batch of an epoch, one after another."""
    count, per_epoch = order.micro_batches, order.steps_per_epoch
    shares = [RankBatches(order, count, 1, rank) for rank in range(count)]
    steps = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
    return [[index for batch in [*share][steps] for _, index in batch] for share in shares]


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_parts_read_whole_shards_forward(micro_batches):
    """Without a shuffle, the parts joined are all shards, each with its images in their order."""
    order = order_of(window=1, micro_batches=micro_batches, smallest=1)
    joined = [index for part in parts_of(order) for index in part]
    whole = {int(shard[0]): [int(index) for index in shard] for shard in SHARDS}
    while joined:
        shard = whole.pop(joined[0])
        assert joined[: len(shard)] == shard
        del joined[: len(shard)]
    assert not whole


def test_images_move_within_the_window_and_epochs_differ():
    plain, shuffled = (parts_of(order_of(window=window, smallest=1)) for window in (1, 3))
    for own, moved in zip(plain, shuffled, strict=True):
        assert sorted(own) == sorted(moved)
        assert own != moved
        assert max(abs(own.index(index) - place) for place, index in enumerate(moved)) < 3
    order = order_of()
    assert parts_of(order, 0) != parts_of(order, 1)
    assert parts_of(order_of(seed=4)) != parts_of(order)


def test_last_batch_is_divided_or_dropped_and_ranks_have_equal_numbers():
    """22 images: five batches of four, and a last one of two, which is too small for batch norm in parts."""
    assert [len(part) for part in parts_of(order_of(smallest=1))] == [11, 11]
    assert [len(part) for part in parts_of(order_of(smallest=4))] == [10, 10]
    assert [len(batch) for batch in order_of(smallest=1, epochs=1)] == [4, 4, 4, 4, 4, 2]


def test_order_resumes_at_any_step_and_does_not_depend_on_ranks():
    whole = list(order_of(micro_batches=4))
    for step in range(len(whole)):
        assert list(order_of(micro_batches=4, first_step=step)) == whole[step:]
    of_two = [list(RankBatches(order_of(micro_batches=4), 4, 2, rank)) for rank in range(2)]
    assert [first + second for first, second in zip(*of_two, strict=True)] == whole


@pytest.fixture
def shards(textures, tmp_path):
    """Pack the generated dataset into shards of at most three images."""
    source = DataSource("synthetic", textures)
    write_shards({name: source.read(name) for name in ("train", "val")}, tmp_path / "shards", 3)
    return DataSource("webdataset", tmp_path / "shards")


@pytest.fixture
def job_on(tiny, shards):
    def job(**changes):
        recipe = ClassificationRecipe.model_validate(
            RECIPE | {"batch_size": 4, "shuffle_window": 4} | changes
        )
        return training_job(tiny, shards, recipe)

    return job


def test_images_of_shards_are_in_the_order_of_the_file(shards):
    split = shards.read("train")
    of_shards = images_of_shards(split)
    assert sorted(np.concatenate(of_shards)) == list(range(len(split.items)))
    for shard in of_shards:
        members = [split.file(split.items[index]) for index in shard]
        assert len({member.archive for member in members}) == 1
        assert [member.place for member in members] == sorted(member.place for member in members)


def test_order_of_links_is_that_of_their_names(shards, tmp_path):
    """A cache links to files with other names, so that two machines of a training would read other images."""
    folder = tmp_path / "links"
    folder.mkdir()
    for number, shard in enumerate(sorted((tmp_path / "shards").iterdir(), reverse=True)):
        target = tmp_path / f"{number}-{shard.name}"
        target.write_bytes(shard.read_bytes())
        (folder / shard.name).symlink_to(target)
    files, links = shards.read("train"), DataSource("webdataset", folder).read("train")
    assert links.listing_sha256 == files.listing_sha256
    assert [*reading_order(links)] == [*reading_order(files)]
    assert (
        np.concatenate(images_of_shards(links)).tolist() == np.concatenate(images_of_shards(files)).tolist()
    )


def test_folders_and_shards_sorted_by_class_are_refused(textures, tmp_path):
    with pytest.raises(UsageError, match="shuffle_window is for classifiers and --data webdataset=PATH"):
        images_of_shards(DataSource("synthetic", textures).read("train"))
    for number in range(4):
        with webdataset.TarWriter(str(tmp_path / f"val-{number}.tar")) as shard:
            for key in range(8):
                shard.write({"__key__": str(key), "jpg": b"content", "cls": str(number).encode()})
    with pytest.raises(UsageError, match="sorted by class"):
        images_of_shards(DataSource("webdataset", tmp_path).read("val"))


def test_training_is_the_same_on_two_processes_and_after_a_resume(job_on, tmp_path):
    folder = train(job_on(accumulate=2), tmp_path / "one")
    assert exit_codes(fork_ranks(lambda: train(job_on(), tmp_path / "two"), 2)) == [0, 0]
    [two] = (tmp_path / "two/training").iterdir()
    assert same_weights(final_weights(folder), final_weights(two))
    with pytest.raises(Stopped):
        train(job_on(accumulate=2), tmp_path / "parts", StopAfter(8))
    assert same_weights(final_weights(train(job_on(accumulate=2), tmp_path / "parts")), final_weights(folder))
    other = train(job_on(accumulate=2, shuffle_window=None), tmp_path / "random")
    assert not same_weights(final_weights(other), final_weights(folder))


def test_evaluation_reads_forward_and_has_the_predictions_of_any_order(job_on, tmp_path, monkeypatch):
    job = evaluation_job_for(job_on(), batch_size=3)
    order = [*reading_order(job.split)]
    members = [job.split.file(job.split.items[index]) for index in order]
    assert order != sorted(order) == list(range(len(job.split.items)))
    assert members == sorted(members, key=lambda member: (member.archive, member.place))
    [record] = evaluate(job, tmp_path / "forward")
    monkeypatch.setattr(prediction, "reading_order", sorted_indices)
    [other] = evaluate(job, tmp_path / "sorted")
    assert record.metrics == other.metrics
    assert record.predictions_sha256 == other.predictions_sha256


def test_each_extent_is_read_once_an_epoch_before_its_images(job_on, monkeypatch):
    """Extents of 1,000 bytes, smaller than an image and larger than the gap between two."""
    monkeypatch.setattr(read_ahead, "EXTENT", 1000)
    reads = []
    monkeypatch.setattr(ReadAhead, "read", lambda self, archive, extent: reads.append((archive, extent)))
    job = job_on()
    images, order = task_of("classification").training_images(job, 0), training_order(job, 1)
    for batch in [*order][: order.steps_per_epoch]:
        for key in batch:
            assert not isinstance(images[key], DataError)
            place = (member := job.train.file(job.train.items[key[1]])).place
            last = place.offset + place.size - 1
            assert {(member.archive, each // 1000) for each in (place.offset, last)} <= set(reads)
    assert len(set(reads)) == len(reads) > len(job.train.items)
    images[1, 0]
    assert len(reads) > len(set(reads))  # again in the next epoch
    assert images.ahead.epochs.is_shared()
    random = task_of("classification").training_images(job_on(shuffle_window=None), 0)
    assert random.ahead is None


def sorted_indices(split):
    return range(len(split.items))
