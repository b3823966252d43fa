"""Weights sources are parsed and resolved to local files, with a real HTTP server."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet50_Weights

from sdabench.data.description import Preprocessing
from sdabench.errors import OutputError, SdabenchError, UsageError, WeightsError
from sdabench.offline import OFFLINE
from sdabench.terminal import redacted
from sdabench.training.run_folder import find_run
from sdabench.weights.fetch import weights_cache
from sdabench.weights.fetch.weights_cache import FetchDisplay
from sdabench.weights.weights_source import WeightsSource, locate, parse, resolve
from tests.helpers.serving import serving

BYTES = bytes(range(256)) * 4096  # one megabyte, which is read in several chunks
DIGEST = sha256(BYTES).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(OFFLINE, raising=False)
    with serving() as server:
        server.files["w.pth"] = BYTES
        yield server


def cached(tmp_path):
    """List the files in the cache, without locks."""
    return sorted(path.name for path in (tmp_path / "cache/weights").glob("*") if path.suffix != ".lock")


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("w.pth", "file", "w.pth"),
        ("~/w.pth", "file", str(Path.home() / "w.pth")),
        ("a/torchvision:x.pth", "file", "a/torchvision:x.pth"),
        ("torchvision:ResNet50_Weights.IMAGENET1K_V1", "torchvision", "ResNet50_Weights.IMAGENET1K_V1"),
        ("timm:resnet50.tv_in1k", "timm", "resnet50.tv_in1k"),
        (f"HTTPS://h.org/a b.pth#sha256={'AB' * 32}", "url", "HTTPS://h.org/a%20b.pth"),
    ],
)
def test_sources_are_parsed(text, kind, name):
    source = parse(text)
    assert (source.kind, source.name) == (kind, name)
    assert source.sha256 == ("ab" * 32 if kind == "url" else None)


def test_file_name_may_contain_a_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("epoch:3.pth").touch()
    assert parse("epoch:3.pth") == WeightsSource("file", "epoch:3.pth")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no weights given; use a file"),
        ("https://h.org/w.pth", "h.org/w.pth#sha256=DIGEST, with the 64 hexadecimal digits"),
        (f"https://h.org/w.pth#sha256={'a' * 63}", "64 hexadecimal digits"),
        (f"https://h.org/w.pth#md5={'a' * 64}", "64 hexadecimal digits"),
        (f"https:///w.pth#sha256={DIGEST}", "is not a URL"),
        (f"https://h.org:port/w.pth#sha256={DIGEST}", "is not a URL"),
        ("C:\\weights\\w.pth", "is a Windows path"),
        ("file:///data/w.pth", "use the path alone, /data/w.pth"),
        ("s3://bucket/w.pth", "'s3:' cannot be fetched; use a file"),
        ("torch-vision:ResNet50_Weights.DEFAULT", "did you mean torchvision:ResNet50_Weights.DEFAULT?"),
        ("Timm:resnet50", "did you mean timm:resnet50?"),
        ("torchvision:", "names no weights"),
        ("~nobody-has-this-name/w.pth", "~nobody-has-this-name/w.pth: "),
    ],
)
def test_invalid_source_is_one_line_with_the_next_step(text, message):
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_missing_file_gets_suggestions(tmp_path):
    (tmp_path / "resnet50.pth").touch()
    with pytest.raises(UsageError, match=rf"no weights file at .*; did you mean {tmp_path}/resnet50.pth\?"):
        resolve(parse(str(tmp_path / "resnet5.pth")))
    with pytest.raises(UsageError, match=r"did you mean torchvision:ResNet50_Weights.IMAGENET1K_V1\?"):
        resolve(parse("ResNet50_Weights.IMAGENET1K_V1"), model="resnet50")
    with pytest.raises(UsageError, match="weights of 'resnet101' are needed: (?!.*ResNet50)"):
        resolve(parse("ResNet50_Weights.IMAGENET1K_V1"), model="resnet101")
    with pytest.raises(UsageError, match="no weights file at nosuchname; use a file, .*, torchvision:NAME"):
        resolve(parse("nosuchname"))
    (tmp_path / "gone.pth").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"gone.pth; did you mean .*/resnet50.pth\?$"):
        resolve(parse(str(tmp_path / "gone.pth")))
    with pytest.raises(UsageError, match="is a device or a pipe"):
        resolve(parse(os.devnull))
    with pytest.raises(UsageError, match="is a folder; name a weights file"):
        resolve(parse(str(tmp_path)))
    assert resolve(parse(str(tmp_path / "resnet50.pth"))).path == tmp_path / "resnet50.pth"
    with pytest.raises(UsageError, match="holds no training run; name a file in it, such as .*/gone.pth"):
        find_run(tmp_path, "resnet50")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="is an empty folder; name a weights file"):
        find_run(tmp_path / "empty", "resnet50")


@pytest.mark.parametrize("how", ["", "moved/", "unsized/"])
def test_url_is_fetched_once_and_cached(server, tmp_path, how):
    progress = []

    @contextmanager
    def bar(name, total):
        progress.append((name, total))
        yield progress.append

    source = parse(server.url("w.pth", how))
    local = resolve(source, FetchDisplay(bar))
    assert local.path.read_bytes() == BYTES
    assert (local.source, local.sha256) == (server.url("w.pth", how), DIGEST)
    assert cached(tmp_path) == [local.path.name] == [f"w-{DIGEST[:16]}.pth"]
    assert progress[0] == (local.path.name, None if how == "unsized/" else len(BYTES))
    assert sum(progress[1:]) == len(BYTES)
    assert resolve(source) == local == resolve(parse(local.source))
    assert server.downloads == 1


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("cut/", SdabenchError, "the connection broke off after 524,288 of 1,048,576 bytes; try again"),
        ("gone/x", SdabenchError, "HTTP 404 Not Found; try again, or download it yourself and pass the file"),
        ("secret/", SdabenchError, "HTTP 401 .*USER:PASSWORD@HOST"),
        ("silent/", SdabenchError, "no answer for 0.5 seconds"),
        ("slow/", SdabenchError, "no answer for 0.5 seconds"),
        ("tofile/", SdabenchError, "redirects to a URL that is not http"),
        ("circle/", SdabenchError, "redirects in a circle; try again"),
    ],
)
def test_failed_download_is_one_line_and_leaves_no_file(server, tmp_path, monkeypatch, how, error, message):
    monkeypatch.setattr(weights_cache, "TIMEOUT", 0.5)
    with pytest.raises(error, match=message) as caught:
        resolve(parse(server.url("w.pth", how)))
    assert server.address("w.pth", how) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert cached(tmp_path) == []


@pytest.mark.parametrize(
    ("how", "limits", "message"),
    [
        (
            "drip/",
            {"SLOW_SECONDS": 0.4},
            "less than 64 KiB in 0.4 seconds; try again, or download it yourself",
        ),
        ("drip/", {"MAX_SECONDS": 0.4}, "incomplete after .* hours; try again, or download it yourself"),
        ("endless/", {"MAX_BYTES": 1 << 22}, "larger than .* GiB; try again, or download it yourself"),
    ],
)
def test_endless_download_ends(server, tmp_path, monkeypatch, how, limits, message):
    for name, limit in limits.items():
        monkeypatch.setattr(weights_cache, name, limit)
    with pytest.raises(SdabenchError, match=message):
        resolve(parse(server.url("w.pth", how)))
    assert cached(tmp_path) == []


def test_refused_connection_is_an_error(server):
    url = f"http://127.0.0.1:1/w.pth#sha256={DIGEST}"
    with pytest.raises(
        SdabenchError, match="cannot fetch http://127.0.0.1:1/w.pth: Connection refused; try again"
    ):
        resolve(parse(url))


@pytest.mark.parametrize(("how", "page"), [("", ""), ("page/", " (the server sent a web page)")])
def test_wrong_digest_is_refused_with_both_digests(server, tmp_path, how, page):
    url = f"{server.address('w.pth', how)}#sha256={'0' * 64}"
    with pytest.raises(WeightsError) as caught:
        resolve(parse(url))
    message = str(caught.value)
    assert f"is not the expected file{page}: its sha256 is {DIGEST}, and should be {'0' * 64}" in message
    assert caught.value.exit_code == 4
    assert cached(tmp_path) == []


def test_damaged_cached_file_is_fetched_again_with_a_message(server):
    lines = []
    source = parse(server.url("w.pth"))
    path = resolve(source).path
    path.write_bytes(BYTES[:-1] + b"?")
    assert resolve(source, FetchDisplay(say=lines.append)).path.read_bytes() == BYTES
    assert lines == [f"{path} is damaged: its sha256 has changed. It is fetched again."]
    assert server.downloads == 2


def test_offline_uses_the_cache_or_names_the_next_step(server, monkeypatch):
    """The server is local and could be reached."""
    source = parse(server.url("w.pth"))
    monkeypatch.setenv(OFFLINE, "1")
    with pytest.raises(SdabenchError) as caught:
        resolve(source)
    path = locate(source).path
    assert str(caught.value) == (
        f"{server.address('w.pth')} is not in the cache, at {path}, and --offline forbids the network; fetch it "
        "once without --offline, or download it yourself and pass the file"
    )
    assert server.requests == []
    monkeypatch.setenv(OFFLINE, "0")
    resolve(source)
    monkeypatch.setenv(OFFLINE, "1")
    assert resolve(source).path == path
    path.write_bytes(b"damaged")
    with pytest.raises(SdabenchError, match="is damaged in the cache, at .* forbids the network"):
        resolve(source)
    assert server.downloads == 1


def test_credentials_are_sent_only_to_the_server(server, tmp_path):
    """They do not appear in records or errors or follow redirects, and a cached file does not need them."""
    server.files["w.pth"] = BYTES
    url = f"{server.address('w.pth', 'moved/', 'me:p%40ss@')}?id=7&X-Amz-Signature=abc#sha256={DIGEST}"
    local = resolve(parse(url))
    public = f"{server.address('w.pth', 'moved/')}#sha256={DIGEST}"
    assert local.source == public
    [(_, first), (_, second)] = server.requests
    assert (first, second) == ("Basic bWU6cEBzcw==", None)  # base64 of me:p@ss
    assert server.requests[0][0] == "/moved/w.pth?id=7&X-Amz-Signature=abc"
    assert resolve(parse(public)) == local
    assert len(server.requests) == 2
    with pytest.raises(SdabenchError, match="HTTP 401") as caught:
        resolve(parse(f"{server.address('w.pth', 'secret/', 'me:p%40ss@')}?token=abc#sha256={'1' * 64}"))
    assert "p%40ss" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_unwritable_cache_is_an_error(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"cannot (write|read) .*; set SDABENCH_CACHE to another folder"):
        resolve(parse(server.url("w.pth")))


RESOLVE = """
import sys
from sdabench.training.signals import handle_signals
from sdabench.weights.fetch.weights_cache import FetchDisplay
from sdabench.weights.weights_source import parse, resolve
assert "torch" not in sys.modules
handle_signals()
try:
    print(resolve(parse(sys.argv[1]), FetchDisplay(say=lambda line: print(line, flush=True))).sha256)
except KeyboardInterrupt:
    sys.exit(75)
assert "torch" not in sys.modules
"""


def start_resolving(url):
    command = [sys.executable, "-c", RESOLVE, url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_second_process_waits_for_the_download(server):
    url = server.url("w.pth", "slow/")
    first = start_resolving(url)
    assert server.half_sent.wait(60)
    second = start_resolving(url)
    assert "Waiting for another process that is fetching" in second.stdout.readline()
    server.may_continue.set()
    assert first.communicate(timeout=300) == (f"{DIGEST}\n", "")
    assert second.communicate(timeout=300) == (f"{DIGEST}\n", "")
    assert server.downloads == 1


@pytest.mark.parametrize(
    ("number", "status"), [("SIGINT", 75), ("SIGTERM", 75), ("SIGKILL", -signal.SIGKILL)]
)
def test_interrupted_download_is_never_used(server, tmp_path, number, status):
    source = parse(server.url("w.pth", "slow/"))
    process = start_resolving(str(source))
    assert server.half_sent.wait(60)

    def partial():
        return list((tmp_path / "cache/weights").glob(".*.part"))

    while not partial():
        time.sleep(0.01)
    os.kill(process.pid, getattr(signal, number))
    assert process.communicate(timeout=300) == ("", "")
    assert process.returncode == status
    assert not locate(source).path.exists()
    assert bool(partial()) == (number == "SIGKILL")
    server.may_continue.set()
    assert resolve(source).path.read_bytes() == BYTES
    assert cached(tmp_path) == [locate(source).path.name]


def publish_at(monkeypatch, server, name, member=ResNet50_Weights.IMAGENET1K_V1):
    monkeypatch.setattr(member.value, "url", server.address(name))


def test_torchvision_weights_are_verified_by_the_digest_in_their_name(server, tmp_path, monkeypatch):
    name = f"resnet50-{DIGEST[:8]}.pth"
    server.files[name] = BYTES
    publish_at(monkeypatch, server, name)
    local = resolve(parse("torchvision:ResNet50_Weights.IMAGENET1K_V1"))
    assert (local.path.name, local.sha256) == (name, DIGEST)
    assert local.source == "torchvision:ResNet50_Weights.IMAGENET1K_V1"
    local.path.write_bytes(b"damaged")
    assert resolve(parse(local.source)) == local
    assert local.path.read_bytes() == BYTES

    server.files["resnet50-00000000.pth"] = BYTES
    publish_at(monkeypatch, server, "resnet50-00000000.pth")
    with pytest.raises(WeightsError, match=f"its sha256 is {DIGEST}, and should start with 00000000"):
        resolve(parse(local.source))
    assert cached(tmp_path) == [name]


def test_every_torchvision_classifier_url_has_a_digest():
    from sdabench.weights.fetch.from_torchvision import _names

    for name in _names():
        assert re.search(r"-[0-9a-f]{8,}\.pth$", locate(parse(f"torchvision:{name}")).path.name), name


def test_published_values_of_torchvision_are_known_without_fetching():
    """Torchvision documents 76.130 and 92.862 at resize 256, and 80.858 and 95.434 at resize 232."""
    first = locate(parse("torchvision:ResNet50_Weights.IMAGENET1K_V1")).published
    assert first.preprocessing == Preprocessing()
    assert first.difference(Preprocessing()) is None
    assert first.accuracy.startswith("torchvision publishes 76.130 / 92.862 (top-1 / top-5)")
    default = locate(parse("torchvision:ResNet50_Weights.DEFAULT"))
    assert default.source == "torchvision:ResNet50_Weights.IMAGENET1K_V2"
    assert "IMAGENET1K_V2 was published at resize 232; measured here at resize 256: " in (
        default.published.difference(Preprocessing())
    )
    assert "80.858 / 95.434" in default.published.accuracy
    assert "resize 256, crop 224; measured here at resize 73, crop 64" in first.difference(
        Preprocessing.at(64)
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ResNet50_Weights.IMAGENET1K_V3", "did you mean ResNet50_Weights.IMAGENET1K_V"),
        ("Resnet50_Weights.IMAGENET1K_V1", "did you mean ResNet50_Weights.IMAGENET1K_V1"),
        ("ResNet50_Weights", "did you mean ResNet50_Weights.IMAGENET1K_V"),
        ("resnet101", "did you mean ResNet101_Weights.IMAGENET1K_V1 or ResNet101_Weights.IMAGENET1K_V2?"),
        (
            "ResNet101_Weights.V9",
            "did you mean ResNet101_Weights.IMAGENET1K_V1 or ResNet101_Weights.IMAGENET1K_V2?",
        ),
        ("resnet50.V1", "unknown weights of torchvision 'resnet50.V1'"),
        ("FasterRCNN_ResNet50_FPN_Weights.COCO_V1", "fit no network of sdabench"),
        ("ResNet50_QuantizedWeights.DEFAULT", "fit no network of sdabench"),
        ("a.b.c", "unknown weights of torchvision"),
    ],
)
def test_unknown_torchvision_classifier_weights_are_refused(name, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        resolve(parse(f"torchvision:{name}"))


def test_load_weights_accepts_a_url(server):
    from sdabench import create_model, load_weights
    from tests.helpers.checkpoints import safetensors_bytes

    network = create_model("resnet50", num_classes=2)
    server.files["n.safetensors"] = safetensors_bytes(network.state_dict())
    loaded = load_weights(create_model("resnet50", num_classes=2), server.url("n.safetensors"))
    assert torch.equal(loaded.layer4[2].conv3.weight, network.layer4[2].conv3.weight)


def test_parameters_of_a_path_are_not_shown():
    url = f"https://host/a/w.pth;token=secret#sha256={'1' * 64}"
    assert str(parse(url)) == f"https://host/a/w.pth#sha256={'1' * 64}"
    for wrong in ("https://host/w.pth;token=secret", "file://me:secret@host/w.pth"):
        with pytest.raises(UsageError) as caught:
            parse(wrong)
        assert "secret" not in redacted(str(caught.value)), caught.value
