"""``sdabench data sort``."""

from PIL import Image

from tests.helpers.program import assert_error, sdabench


def test_flat_images_are_sorted_into_class_folders(tmp_path):
    flat, folder = tmp_path / "flat", tmp_path / "val"
    flat.mkdir()
    for number in (1, 2):
        Image.new("L", (8, 8)).save(flat / f"ILSVRC2012_val_{number:08}.JPEG")
    for counts in ("2 linked, 0 copied, 0 already there", "0 linked, 0 copied, 2 already there"):
        result = sdabench("data", "sort", flat, folder)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == f"2 images in {folder}: {counts}; use them with --data imagenet={folder}\n"
    assert (folder / "n01751748/ILSVRC2012_val_00000001.JPEG").samefile(flat / "ILSVRC2012_val_00000001.JPEG")
    assert_error(sdabench("data", "sort", flat, flat / "sorted"), 2, "is inside of")
    assert_error(sdabench("data", "sort", tmp_path / "nowhere", folder), 2, "no dataset folder at")
