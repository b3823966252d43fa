"""A mistake in a registry file gives a one-line error with file, row and field."""

import shutil

import pytest

from sdabench.errors import RegistryError, UsageError
from sdabench.paths import registry_dir
from sdabench.registry import Registry, load_registry
from sdabench.registry.yaml_files import read_mapping


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(registry_dir(), tmp_path / "registry")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("tables/detection.yaml", "[41.53, 207.07,", "[41.53, '207,07',", ["row 'Faster-RCNN ResNet-50'", "reported", "item 2"]),
        ("tables/detection.yaml", "41.53, 207.07, 36.4,", "41.53, 207.07,", ["row 'Faster-RCNN ResNet-50'", "7 numbers for 8"]),
        ("tables/detection.yaml", "36.4,", "36.45,", ["Faster-RCNN ResNet-50", "ap_pct", "36.45"]),
        ("tables/detection.yaml", "bold: [ap50_pct, ap_s_pct]", "bold: [ap60_pct]", ["Faster-RCNN FcaNet", "ap60_pct"]),
        ("tables/detection.yaml", "model: faster_rcnn_senet50\n", "model: faster_rcnn_senett50\n", ["Faster-RCNN SENet", "faster_rcnn_senet50"]),
        ("tables/detection.yaml", "kind: fitted", "kind: guessed", ["Faster-RCNN FcaNet", "kind"]),
        ("tables/detection.yaml", "{fitted}", "{fited}", ["Faster-RCNN FcaNet", "fited"]),
        ("tables/segmentation.yaml", "claims_in: detection", "claims_in: detections", ["claims_in", "detections"]),
        ("tables/classification-multiscale.yaml", "        reported: [26.69", "        reportd: [26.69", ["row 'bL-ResNet'", "report"]),
        ("models/senet.yaml", "depths: [3, 4, 6, 3]", "depths: [3, 4, 6]", ["senet50", "depths"]),
        ("models/senet.yaml", "baseline: senet86", "baseline: senet68", ["sda_senet86", "baseline", "senet86"]),
        ("models/senet.yaml", "  senet86:", "  senet50:", ["duplicate key", "senet50"]),
        ("models/senet.yaml", "  senet86:", "  resnet50:", ["resnet50", "resnet.yaml"]),
        ("models/senet.yaml", "models:", "models: [", ["senet.yaml"]),
        ("models/senet.yaml", "family: senet", "family: cbam", ["family", "'cbam' must be 'senet'"]),
        ("models/senet.yaml", "family: senet", "{[1, 2]: 3}: senet", ["a key must be a string"]),
        ("models/senet.yaml", "'^(layer", "'^((layer", ["layouts", "is not a regular expression"]),
        ("models/senet.yaml", "depths: [3, 4, 6, 3]", "depths: [3, 0, 6, 3]", ["senet50", "depths"]),
        ("tables/detection.yaml", "[41.53,", "[.inf,", ["line 22", "finite"]),
        ("tables/detection.yaml", "{own}", "{own.x}", ["Faster-RCNN FcaNet", "because"]),
        ("tables/detection.yaml", 'unit: "%"', 'unit: "percent"', ["columns", "unit"]),
        ("tables/classification-multiscale.yaml", "model: pyconv101", "model: pyconv1O1", ["PyConv-101", "pyconv101"]),
    ],
)  # fmt: skip
def test_mistake_in_a_file_is_named(folder, file, old, new, words):
    edit(folder / file, old, new)
    with pytest.raises(RegistryError) as caught:
        Registry(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in [file.rpartition("/")[2].removesuffix(".yaml"), *words]:
        assert word in message


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("senet50", "block: senet}", "block: senett}", "unknown block 'senett'; did you mean senet"),
        ("bam50", "stage: bam}", "stage: bma}", "unknown stage 'bma'; did you mean bam"),
        ("gcnet50", "{block", "{stem_pool: min, block", "unknown stem pool 'min'; choose from big_little, max"),
        (
            "senet50", "{block: senet}", "{block: senet, options: {redction: 8}}",
            "unknown option of the block 'senet' 'redction'; did you mean reduction",
        ),
        ("gcnet50", "{block: gcnet}", "{block: gcnet, options: {ratio: 8}}", "'ratio'; it has none"),
        ("ecanet50", ", options: {kernel_sizes: [3, 5, 5, 7]}", "", "needs the option kernel_sizes"),
        ("ecanet50", "[3, 5, 5, 7]", "[3, 5, 7]", "kernel_sizes has 3 entries, but there are four stages"),
        ("ecanet50", "[3, 5, 5, 7]", "[3, 4, 5, 7]", "a kernel of 4 channels has no center"),
        ("scalenet50", "[3, 4, 6, 3]", "[3, 4, 7, 3]", "allocation: 6 blocks, but stage 3 has 7"),
        ("scalenet50", "[62, 9, 5, 12]", "[62, 9, 5]", r"\[62, 9, 5\] must be the channels of 4 scales"),
        ("bl_resnet50", "[3, 4, 6, 3]", "[1, 4, 6, 3]", "stage 1 needs at least two blocks"),
        ("bl_resnet50", "{block", "{strides: [2, 2, 2, 2], block", "its stride must be 1"),
        ("gsop50", "[2, 3, 4]", "[0, 3]", r"stages \[0, 3\] must be within 1 to 4"),
        ("sanet50", "{block", "{widths: [16, 128, 256, 512], block", "64 channels cannot be split into 64 groups"),
        ("fcanet50", "{block", "{widths: [6, 128, 256, 512], block", "24 channels are not a multiple of 16"),
    ],
)  # fmt: skip
def test_network_that_cannot_be_built_is_named(folder, monkeypatch, name, old, new, message):
    from sdabench import create_model

    path = folder / "models" / f"{load_registry().model(name).family}.yaml"
    edit(path, old, new)
    monkeypatch.setenv("SDABENCH_REGISTRY", str(folder))
    prefix = rf"{path.name}: models\.{name}\.network cannot be built: .*"
    with pytest.raises(RegistryError, match=prefix + message):
        create_model(name)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("[true, true]", "needs at least 4 entries, not 2"),
        (
            "learned",
            "expected true, false, a mapping with kind and min_hidden, or a list of four, not 'learned'",
        ),
        ("{kind: nope}", "kind: Input should be 'learned', 'static', 'uniform' or 'random', not 'nope'"),
        ("{hidden: 8}", "unknown field 'hidden'; did you mean min_hidden?"),
        ("[true, false, {min_hidden: 0}, true]", "item 3: min_hidden: Input should be greater than 0, not 0"),
        ("{kind: static, min_hidden: 8}", "static depth attention has no hidden channels; omit min_hidden"),
    ],
)
def test_wrong_depth_attention_is_refused_in_plain_words(folder, monkeypatch, declared, message):
    path = folder / "models" / "gcnet.yaml"
    edit(path, "{block", f"{{depth_attention: {declared}, block")
    monkeypatch.setenv("SDABENCH_REGISTRY", str(folder))
    with pytest.raises(RegistryError) as caught:
        load_registry()
    assert str(caught.value).endswith(f"network: depth_attention: {message}")


def levels(count):
    return "a: " + "[" * count + "]" * count


def laughs(first, more):
    """Nine lines, each with ten aliases of the line before: a billion values."""
    return f"a0: &a0 {first}\n" + "".join(f"a{n}: &a{n} {more(f'*a{n - 1}')}\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; it must be a mapping"),
        ("# nothing\n", "is empty; it must be a mapping"),
        ("text\n", "has no fields; it must be a mapping"),
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3: while parsing a flow sequence, did not find expected"),
        ("a: 1\n---\nb: 2\n", "line 2: expected a single document"),
        ("a: 1\nb: {c: 1, c: 2}\n", "line 2: duplicate key 'c'"),
        ("a: 1\n1: 2\n", "line 2: a key must be a string"),
        ("a: !!int ''\n", "line 1: '' is not an integer"),
        ("a: " + "9" * 5000, "line 1: '9{40}…' is not an integer of at most 64 bits"),
        ("a: 9223372036854775808\n", "is not an integer of at most 64 bits"),
        ("a: !!float x\n", "line 1: 'x' is not a finite number"),
        ("a: -.inf\n", "line 1: '-.inf' is not a finite number"),
        ("a: 1e999\n", "line 1: '1e999' is not a finite number"),
        ("a: !odd 1\n", "line 1: unknown tag '!odd'"),
        ("a: !!python/name:os.system ''\n", "line 1: unknown tag"),
        ("a: !!timestamp 2001-01-01\n", "line 1: unknown tag"),
        ("a: *missing\n", "line 1: found undefined alias"),
        ("a: &o {<<: *o, b: 1}\n", "line 1: an alias inside the value that it stands for"),
        ("a: &o [*o]\n", "line 1: an alias inside the value that it stands for"),
        (levels(70), "line 1: more than 64 levels"),
        (levels(200_000), "line 1: "),
        (laughs("[x]", lambda alias: f"[{', '.join([alias] * 10)}]"), "line 6: more than 100,000 values"),
        (laughs("{x: 1}", lambda alias: f"{{<<: [{', '.join([alias] * 10)}]}}"), "more than 100,000 values"),
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 9999)), "64 levels, counting"),
        ("a: 1\nb: x\0y\n", "line 2: the character U\\+0000"),
        (b"a: 1\nb: \xff\n", "line 2: not UTF-8"),
        (b"a: 1\n" + b"# \n" * 400_000, "is larger than 1 MiB"),
    ],
)  # fmt: skip
def test_file_that_is_no_mapping_in_yaml_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "odd.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RegistryError, match=message) as caught:
        read_mapping(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 200


def test_scalars_are_those_of_yaml_1_2(tmp_path):
    path = tmp_path / "scalars.yaml"
    path.write_text(
        "int: 1\noctal: 0100\nfloat: 1e-4\nnone: ~\ndate: 2001-13-45\nsixty: 1:30\nyes: yes\n"
        "true_: true\nempty:\nmerged: {<<: {a: 1, b: 2}, b: 3}\n"
    )
    assert read_mapping(path) == {
        "int": 1, "octal": 100, "float": 1e-4, "none": None, "date": "2001-13-45",
        "sixty": "1:30", "yes": "yes", "true_": True, "empty": None, "merged": {"a": 1, "b": 3},
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_mark_selects_the_encoding(tmp_path, encoding):
    (tmp_path / "a.yaml").write_text("title: naïve\n", encoding=encoding)
    assert read_mapping(tmp_path / "a.yaml") == {"title": "naïve"}


def test_folder_without_registry_is_refused(tmp_path):
    for path in (tmp_path / "none", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(RegistryError, match="no registry at"):
            Registry(path)


def test_unknown_names_get_suggestions():
    registry = load_registry()
    with pytest.raises(UsageError, match="unknown model 'sda_pyconv68'; did you mean sda_pyconv86"):
        registry.model("sda_pyconv68")
    with pytest.raises(UsageError, match="unknown model 'sda_q"):
        registry.select(["resnet*", "sda_q*"])


def test_wildcards_select_in_registry_order_without_duplicates():
    assert load_registry().select(["resnet86*", "resnet*"]) == [
        "resnet86", "resnet86_g8", "resnet50", "resnet101", "resnet_narrow", "resnet_narrow_matched",
    ]  # fmt: skip
