"""Programs of test_servers_in_the_tree.py, to be run in a live tree: `python in_the_tree.py NAME ARGUMENTS…`."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def sqlite(progress: str) -> None:
    """Commits rows to a database with a write-ahead log, in transactions across two tables. Checks it at the start."""
    connection = sqlite3.connect("base.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS a (id INTEGER PRIMARY KEY, payload TEXT)")
    connection.execute("CREATE TABLE IF NOT EXISTS b (id INTEGER PRIMARY KEY, payload TEXT)")
    faults = connection.execute("PRAGMA integrity_check").fetchone()[0]
    counts = connection.execute("SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)").fetchone()
    say("up", faults, *counts)
    while not os.path.exists("stop"):
        connection.execute("BEGIN")
        for table in ("a", "b"):
            connection.execute(f"INSERT INTO {table} (payload) VALUES (hex(randomblob(200)))")
        connection.execute("COMMIT")
        keep(progress, connection.execute("SELECT count(*) FROM b").fetchone()[0])


def redis(progress: str, socket: str) -> None:
    """Counts in a Redis that appends every command to its file."""
    options = ("--port", "0", "--unixsocket", socket, "--appendonly", "yes", "--appendfsync", "always", "--save", "")
    server = subprocess.Popen(["redis-server", *options], stdout=sys.stderr)
    while ask_redis(socket, "PING") != "PONG":
        assert server.poll() is None
        time.sleep(0.02)
    say("up", ask_redis(socket, "GET", "count") or "0")
    while not os.path.exists("stop"):
        keep(progress, int(ask_redis(socket, "INCR", "count")))
    ask_redis(socket, "SHUTDOWN")
    server.wait()


def ask_redis(socket: str, *command: str) -> str:
    answer = subprocess.run(["redis-cli", "-s", socket, *command], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def watchdog() -> None:
    """Prints each file that is made or changed."""
    from watchdog.events import (  # pyright: ignore[reportMissingImports]  # noqa: PLC0415 - not among the test packages
        FileSystemEvent,
        FileSystemEventHandler,
    )
    from watchdog.observers import Observer  # pyright: ignore[reportMissingImports]  # noqa: PLC0415

    class Printer(FileSystemEventHandler):
        def on_closed(self, event: FileSystemEvent) -> None:
            say("changed", os.fsdecode(event.src_path))

    observer = Observer()
    observer.schedule(Printer(), str(Path.cwd()), recursive=True)
    observer.start()
    say("up")
    while not os.path.exists("stop"):
        time.sleep(0.05)


def language_server(*command: str) -> None:
    """Opens main.py in a language server, as an editor does, and prints the number of errors each time it changes."""
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    root = Path.cwd().as_uri()
    folders = [{"uri": root, "name": "tree"}]
    send(
        server,
        {
            "id": 1,
            "method": "initialize",
            "params": {"processId": os.getpid(), "rootUri": root, "capabilities": {}, "workspaceFolders": folders},
        },
    )
    while "result" not in (message := receive(server)) or message.get("id") != 1:
        pass
    send(server, {"method": "initialized", "params": {}})
    text = {"uri": f"{root}/main.py", "languageId": "python", "version": 1, "text": Path("main.py").read_text()}
    send(server, {"method": "textDocument/didOpen", "params": {"textDocument": text}})
    say("up")
    while True:
        message = receive(server)
        if message.get("method") == "textDocument/publishDiagnostics":
            say("errors", len(message["params"]["diagnostics"]), message["params"]["uri"])
        elif "id" in message and "method" in message:
            send(server, {"id": message["id"], "result": [None] if "configuration" in message["method"] else None})


def send(server: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
    assert server.stdin is not None
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    server.stdin.flush()


def receive(server: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert server.stdout is not None
    length = 0
    while (line := server.stdout.readline()) != b"\r\n":
        if not line:
            sys.exit("the language server has ended")
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return json.loads(server.stdout.read(length))


def keep(progress: str, number: int) -> None:
    """Writes down, outside of the tree, what is committed."""
    Path(f"{progress}.new").write_text(str(number))
    Path(f"{progress}.new").rename(progress)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    programs = (sqlite, redis, watchdog, language_server)
    {program.__name__: program for program in programs}[sys.argv[1]](*sys.argv[2:])
