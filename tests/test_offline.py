"""Network access under --offline. Each test starts a process, because offline mode cannot be left."""

import os
import subprocess
import sys

import click
import pytest

from sdabench.cli import cli
from sdabench.offline import OFFLINE, is_local_host
from tests.helpers.program import sdabench

FORBIDDEN = "--offline forbids the network"
# Records the events that are not refused: Python calls an audit hook only if no earlier hook raised.
WATCH = """
import socket, sys, urllib.request
from sdabench.errors import SdabenchError
from sdabench.offline import go_offline
allowed_events = []
EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr",
          "socket.getnameinfo", "socket.sendto", "socket.sendmsg")
go_offline()
go_offline()
sys.addaudithook(lambda event, arguments: allowed_events.append(event) if event in EVENTS else None)
"""
# Runs the command with an evaluation that opens a URL of a remote host.
EVALUATION = """
import sys, urllib.request
import sdabench.training.evaluation as engine
engine.evaluate = lambda *arguments, **options: urllib.request.urlopen("http://192.0.2.1/weights.pth", timeout=1)
from sdabench.cli import main
sys.argv = ["sdabench", *sys.argv[1:]]
main()
"""


def python(code, *arguments, **variables):
    environment = {name: value for name, value in os.environ.items() if name != OFFLINE} | variables
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        ("urllib.request.urlopen('http://192.0.2.1/', timeout=1)", "look up 192.0.2.1,"),
        ("urllib.request.urlopen('https://weights.example/a.pth', timeout=1)", "look up weights.example,"),
        ("socket.socket().connect(('192.0.2.1', 443))", "connect to 192.0.2.1,"),
        ("socket.socket(socket.AF_INET6).connect(('2001:db8::1', 443))", "connect to 2001:db8::1,"),
        ("socket.socket(type=socket.SOCK_DGRAM).sendto(b'?', ('192.0.2.1', 53))", "connect to 192.0.2.1,"),
        ("socket.socket(type=socket.SOCK_DGRAM).sendto(b'?', ('224.0.0.251', 5353))", "connect to 224.0.0.251,"),
        ("socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'?'], [], 0, ('192.0.2.1', 53))", "to 192.0.2.1,"),
        ("socket.gethostbyname('weights.example')", "look up weights.example,"),
        ("socket.getaddrinfo(b'weights.example', 443)", "look up weights.example,"),
        ("socket.gethostbyaddr('192.0.2.1')", "look up 192.0.2.1,"),
        ("socket.getnameinfo(('192.0.2.1', 80), 0)", "look up 192.0.2.1,"),
    ],
)  # fmt: skip
def test_remote_host_is_refused_before_anything_is_sent(attempt, message):
    code = f"{WATCH}\ntry:\n    {attempt}\nexcept SdabenchError as error:\n    print(error, allowed_events)\n"
    result = python(code)
    assert result.stderr == ""
    assert result.stdout.startswith("tried to ")
    assert result.stdout.endswith(" []\n")
    assert message in result.stdout
    assert FORBIDDEN in result.stdout


def test_local_host_can_be_reached():
    """Through the loopback address, by name, and through a Unix socket."""
    code = f"""{WATCH}
import tempfile, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()
    def log_message(self, *arguments): ...

server = HTTPServer(("127.0.0.1", 0), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
for host in ("127.0.0.1", "localhost"):
    assert urllib.request.urlopen(f"http://{{host}}:{{server.server_port}}/", timeout=10).status == 204
assert "socket.connect" in allowed_events
try:
    socket.gethostbyname(socket.gethostname())
except OSError:
    pass  # not every container knows its own name
with tempfile.TemporaryDirectory() as folder:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{{folder}}/s")
    listening.listen()
    socket.socket(socket.AF_UNIX).connect(f"{{folder}}/s")
    first, second = socket.socketpair()
    first.send(b"x")
print("reached")
"""
    result = python(code)
    assert (result.stdout, result.stderr) == ("reached\n", "")


def test_local_and_remote_addresses_are_distinguished(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "node1.cluster")
    local = ["", None, "localhost", "node1", "Node1.cluster", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0"]
    assert all(is_local_host(host) for host in [*local, "::ffff:127.0.0.1"])
    remote = ["node2.cluster", "node1.example.com", "192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"]
    assert not any(
        is_local_host(host) for host in [*remote, "224.0.0.1", "255.255.255.255", "localhost.example"]
    )


def test_own_address_other_than_loopback_is_local(monkeypatch):
    """An address is local if the system can bind it."""
    bound = []

    class Socket:
        def __init__(self, *arguments): ...
        def __enter__(self):
            return self

        def __exit__(self, *arguments): ...
        def bind(self, address):
            bound.append(address)

    monkeypatch.setattr("socket.socket", Socket)
    assert is_local_host("192.0.2.1")
    assert bound == [("192.0.2.1", 0)]


def test_offline_variables_of_other_packages_are_set():
    code = f"{WATCH}\nimport os\nprint(*(os.environ[name] for name in ('{OFFLINE}', 'HF_HUB_OFFLINE', 'WANDB_MODE')))"
    assert python(code).stdout == "1 1 offline\n"


@pytest.mark.parametrize(("option", "variable"), [(["--offline"], ""), ([], "1")])
def test_option_or_variable_alone_forbids_the_network(imagenet, tmp_path, option, variable):
    arguments = ["eval", "resnet50", "--data", f"imagenet={imagenet}", "--output", tmp_path / "out", *option]
    result = python(EVALUATION, *arguments, **{OFFLINE: variable})
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: tried to look up 192.0.2.1")
    assert FORBIDDEN in line


def test_network_is_allowed_without_offline(imagenet, tmp_path):
    arguments = ["eval", "resnet50", "--data", f"imagenet={imagenet}", "--output", tmp_path / "out"]
    code = EVALUATION.replace("http://192.0.2.1/", "http://127.0.0.1:1/")  # no server listens there
    result = python(code, *arguments, **{OFFLINE: "0"})
    assert result.returncode == 1
    assert "Connection refused" in result.stderr
    assert FORBIDDEN not in result.stderr


def test_run_passes_offline_to_its_jobs(imagenet, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, pathlib, sys\n"
        "if 'eval' in sys.argv or os.environ.get('SDABENCH_STARTED_BY'):\n"
        f"    pathlib.Path({str(tmp_path / 'told')!r}).write_text(os.environ.get('{OFFLINE}', 'no'))\n"
    )
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    result = sdabench(
        "run", "--suite", "classification", "--eval-only", "--models", "resnet50", "--offline",
        "--data", f"imagenet={imagenet}", "--output", tmp_path / "out", "--resolution", 32, "--batch-size", 2,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "told").read_text() == "1"


def test_commands_that_fetch_have_the_offline_option():
    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    for group in ("data", "weights", "study"):
        commands |= {f"{group} {name}": command for name, command in commands[group].commands.items()}
    with_option = {name for name, command in commands.items() if "--offline" in _options(command)}
    weights = {"weights inspect", "weights import", "weights export"}
    trainings = {"train", "run", "ablate", "study run", "study plan"}
    assert with_option == {*trainings, "eval", "inspect", "check", "data verify", *weights}


def _options(command):
    return {word for parameter in command.params for word in parameter.opts}
