"""Console, agent and SDK through a proxy with TLS of a private CA that wants a password and a header."""

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct
from tests.integration.wvsctl.consoles import Wvsctl
from tests.integration.wvsctl.private_ca import make_ca
from tests.integration.wvsctl.reverse_proxy import ReverseProxy

PASSWORD = "ge/heim@42"
QUOTED = "ge%2Fheim%4042"
TOKEN = "token-4711"
SDK = """
import asyncio, sys
from wvs.agent import register

async def main():
    async with await register(sys.argv[1], sys.argv[2], agent="sdk", headers=sys.argv[3:]) as session:
        print(session.id)

asyncio.run(main())
"""


class Guarded(Struct, frozen=True):
    """A proxy that lets only requests with the password and the token pass."""

    proxy: ReverseProxy
    ca_file: Path

    @property
    def url(self) -> str:
        return self.proxy.url.replace("https://", f"https://alice:{QUOTED}@")

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            env={**os.environ, "SSL_CERT_FILE": str(self.ca_file), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def wvsctl(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "wvs.cli.wvsctl", *arguments, **environment)


@pytest.fixture
def guarded(wvsctl: Wvsctl, tmp_path: Path) -> Iterator[Guarded]:
    ca_file, tls = make_ca(tmp_path)
    pair = base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
    required = {"Authorization": f"Basic {pair}", "X-Api-Key": TOKEN}
    with ReverseProxy(wvsctl.url, tls=tls, required=required).running() as proxy:
        yield Guarded(proxy, ca_file)


def secrets_in(*texts: str) -> list[str]:
    pair = base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
    return [secret for secret in (PASSWORD, QUOTED, TOKEN, pair) for text in texts if secret in text]


def test_the_console_the_agent_and_the_sdk_pass_with_the_secrets_of_the_environment(
    guarded: Guarded, workspace: str
) -> None:
    environment = {"WVS_URL": guarded.url, "WVS_HEADERS": f"X-Other: 1\nX-Api-Key: {TOKEN}"}
    for ended in (
        guarded.wvsctl("snapshot", "create", workspace, **environment),
        guarded.wvsctl("agent", "run", "--cooperative", "-w", workspace, "--", "true", **environment),
        guarded.run("-c", SDK, guarded.url, workspace, WVS_HEADERS=environment["WVS_HEADERS"]),
    ):
        assert ended.returncode == 0, ended.stderr
        assert not secrets_in(ended.stdout, ended.stderr)
    assert set(guarded.proxy.statuses) <= {200, 201, 202}


def test_headers_of_the_command_line_reach_the_commands_of_an_agent_too(guarded: Guarded, workspace: str) -> None:
    header = ("--header", f"X-Api-Key: {TOKEN}", "--header", "X-Other: 1")
    inner = (sys.executable, "-m", "wvs.cli.wvsctl", "workspace", "get", workspace)
    ended = guarded.wvsctl(
        *header, "agent", "run", "--cooperative", "-w", workspace, "--", *inner, WVS_URL=guarded.url, WVS_HEADERS=""
    )
    assert ended.returncode == 0, ended.stderr
    assert workspace in ended.stdout
    assert guarded.run("-c", SDK, guarded.url, workspace, f"X-Api-Key: {TOKEN}").returncode == 0


def test_a_refusal_of_the_proxy_asks_for_credentials_and_shows_none(guarded: Guarded, workspace: str) -> None:
    environment = {"WVS_URL": guarded.url, "WVS_HEADERS": "X-Api-Key: token-4711-wrong"}
    console = guarded.wvsctl("workspace", "get", workspace, **environment)
    assert console.returncode == 1
    assert f"the proxy at {guarded.proxy.url} answers 401" in console.stderr
    agent = guarded.wvsctl("agent", "run", "--cooperative", "-w", workspace, "--", "true", **environment)
    assert agent.returncode == 1
    assert "the answer 401 is not from WVS; WVS_HEADERS has the credentials" in agent.stderr
    sdk = guarded.run("-c", SDK, guarded.url, workspace, **environment)
    assert "the answer 401 is not from WVS" in sdk.stderr
    assert not secrets_in(*(ended.stdout + ended.stderr for ended in (console, agent, sdk)))


def test_a_certificate_of_an_unknown_ca_is_refused_with_the_way_out(guarded: Guarded, workspace: str) -> None:
    for command in (("workspace", "get", workspace), ("agent", "run", "--cooperative", "-w", workspace, "--", "true")):
        untrusted = guarded.wvsctl(*command, WVS_URL=guarded.url, SSL_CERT_FILE="")
        assert untrusted.returncode == 1
        assert "is not trusted: " in untrusted.stderr
        assert "SSL_CERT_FILE" in untrusted.stderr
        missing = guarded.wvsctl(*command, WVS_URL=guarded.url, SSL_CERT_FILE="/no/such/ca.pem")
        assert "SSL_CERT_FILE=/no/such/ca.pem cannot be used: No such file or directory" in missing.stderr
        assert not secrets_in(untrusted.stderr, missing.stderr)
    assert guarded.proxy.statuses == []


def test_no_process_of_an_agent_shows_the_secrets_in_its_command_line(guarded: Guarded, workspace: str) -> None:
    environment = {"WVS_URL": guarded.url, "WVS_HEADERS": f"X-Api-Key: {TOKEN}", "SSL_CERT_FILE": str(guarded.ca_file)}
    wrapper = subprocess.Popen(
        [sys.executable, "-m", "wvs.cli.wvsctl", "agent", "run", "--cooperative", "-w", workspace, "--", "cat"],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while 201 not in guarded.proxy.statuses:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        lines = [text for entry in os.scandir("/proc") if entry.name.isdecimal() for text in command_line(entry.path)]
        assert any("wvs.cli.wvsctl" in line for line in lines)
        assert not secrets_in(*lines)
    finally:
        _, err = wrapper.communicate(timeout=60)
    assert wrapper.returncode == 0, err
    assert not secrets_in(err)


def command_line(process: str) -> list[str]:
    try:
        return [Path(process, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")]
    except OSError:
        return []  # it has ended
