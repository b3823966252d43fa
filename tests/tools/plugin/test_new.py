import pytest

from sdabench.errors import UsageError
from sdabench.tools.plugin.new import new_plugin
from tests.helpers.program import assert_error, sdabench


def test_new_plugin_matches_its_table_and_passes_its_test(tmp_path):
    folder = tmp_path / "my-net"
    assert sdabench("plugin", "new", folder).returncode == 0
    table = sdabench("--plugin", folder, "table", "my_net", "--format", "csv")
    verdicts = [line.split(",")[-1] for line in table.stdout.splitlines()]
    assert table.returncode == 0
    assert "differs" not in table.stdout
    assert verdicts
    assert pytest.main(["-q", "-p", "no:cacheprovider", str(folder)]) == 0


def test_new_plugin_takes_a_block_file(tmp_path):
    block = tmp_path / "my block.py"
    block.write_text(
        "from sdabench.models import BlockSpec, Bottleneck, register_block\n"
        "@register_block('plain_one')\nclass One(Bottleneck):\n"
        "    def __init__(self, spec: BlockSpec): super().__init__(spec)\n"
    )
    assert sdabench("plugin", "new", tmp_path / "onenet", "--block", block).returncode == 0
    counted = sdabench("flops", "onenet50", "--plugin", tmp_path / "onenet", "--json")
    assert '"params": 25557032' in counted.stdout  # that of ResNet-50


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("resnet", None, ["resnet", "another name"]),
        ("50net", None, ["start with a letter"]),
        ("mine", "x = 1", ["registers no block", "register_block"]),
        ("mine", "def f(:", ["line 1"]),
        ("mine", "register_block('senet')", ["'senet' is a block of sdabench"]),
    ],
)
def test_names_and_blocks_that_cannot_be_used_are_refused(tmp_path, name, code, words):
    block = None if code is None else tmp_path / "block.py"
    if block:
        block.write_text(code)
    with pytest.raises(UsageError) as caught:
        new_plugin(tmp_path / name, block)
    for word in words:
        assert word in str(caught.value)


def test_existing_folder_is_kept(tmp_path):
    (tmp_path / "x.txt").write_text("")
    assert_error(sdabench("plugin", "new", tmp_path), 2, "not an empty folder")


def test_wrong_plugin_is_a_usage_error(tmp_path):
    assert_error(sdabench("list", "--plugin", tmp_path / "none"), 2, "--plugin", "no plugin at")
