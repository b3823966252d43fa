"""What --offline forbids, each in a process of its own: there is no way back from it."""

import os
import subprocess
import sys

import click
import pytest

from sdabench.cli import cli
from sdabench.offline import OFFLINE, is_local_host
from tests.helpers.program import sdabench

FORBIDDEN = "--offline forbids the network"
# Notes what gets past the refusal: a hook is asked only if those before it let the event pass.
WATCH = """
import socket, sys, urllib.request
from sdabench.errors import SdabenchError
from sdabench.offline import go_offline
went_on = []
EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr",
          "socket.getnameinfo", "socket.sendto", "socket.sendmsg")
go_offline()
go_offline()
sys.addaudithook(lambda event, arguments: went_on.append(event) if event in EVENTS else None)
"""
# The command, in which the evaluation itself wants something of another machine.
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
    ("attempt", "wanted"),
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
def test_another_machine_is_refused_before_anything_is_sent(attempt, wanted):
    code = f"{WATCH}\ntry:\n    {attempt}\nexcept SdabenchError as error:\n    print(error, went_on)\n"
    result = python(code)
    assert result.stderr == ""
    assert result.stdout.startswith("tried to ")
    assert result.stdout.endswith(" []\n")
    assert wanted in result.stdout
    assert FORBIDDEN in result.stdout


def test_this_machine_may_be_reached():
    """By loopback in both versions, by its name, by its own address, and through a Unix socket."""
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
assert "socket.connect" in went_on
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


def test_whose_an_address_is(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "node1.cluster")
    here = ["", None, "localhost", "node1", "Node1.cluster", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0"]
    assert all(is_local_host(host) for host in [*here, "::ffff:127.0.0.1"])
    there = ["node2.cluster", "node1.example.com", "192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"]
    assert not any(
        is_local_host(host) for host in [*there, "224.0.0.1", "255.255.255.255", "localhost.example"]
    )


def test_an_own_address_that_is_not_loopback_is_local_host(monkeypatch):
    """Only an own address can be bound; which those are, is the system's to say."""
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


def test_other_packages_are_told():
    code = f"{WATCH}\nimport os\nprint(*(os.environ[name] for name in ('{OFFLINE}', 'HF_HUB_OFFLINE', 'WANDB_MODE')))"
    assert python(code).stdout == "1 1 offline\n"


@pytest.mark.parametrize(("option", "variable"), [(["--offline"], ""), ([], "1")])
def test_the_option_and_the_variable_alone_forbid_it(imagenet, tmp_path, option, variable):
    arguments = ["eval", "resnet50", "--data", f"imagenet={imagenet}", "--output", tmp_path / "out", *option]
    result = python(EVALUATION, *arguments, **{OFFLINE: variable})
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: tried to look up 192.0.2.1")
    assert FORBIDDEN in line


def test_without_it_nothing_is_forbidden(imagenet, tmp_path):
    arguments = ["eval", "resnet50", "--data", f"imagenet={imagenet}", "--output", tmp_path / "out"]
    code = EVALUATION.replace("http://192.0.2.1/", "http://127.0.0.1:1/")  # nobody listens there
    result = python(code, *arguments, **{OFFLINE: "0"})
    assert result.returncode == 1
    assert "Connection refused" in result.stderr
    assert FORBIDDEN not in result.stderr


def test_a_suite_hands_it_on(imagenet, tmp_path):
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


def test_the_commands_that_fetch_have_it():
    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    for group in ("data", "weights"):
        commands |= {f"{group} {name}": command for name, command in commands[group].commands.items()}
    having = {name for name, command in commands.items() if "--offline" in _options(command)}
    weights = {"weights inspect", "weights import", "weights export"}
    assert having == {"train", "eval", "run", "check", "data verify", *weights}


def _options(command):
    return {word for parameter in command.params for word in parameter.opts}
