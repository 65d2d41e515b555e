"""Reads the service's log once through the API and passes it to a checker."""

from collections.abc import Callable, Iterator
from typing import Final

from wvs.cli.wvsctl.api.client import Client, path_of
from wvs.cli.wvsctl.audit.chain_checker import ChainChecker, Fault
from wvs.cli.wvsctl.audit.documents import Chain, Head, Heads, StoredEvent, StoredEvents

PAGE: Final = ("limit", "1000")

OnEvent = Callable[[StoredEvent], None]
OnBegin = Callable[[str | None, str], None]
"""Called before the first event, with the workspace (None: all) and the last position that the pass reads."""


class LiveLog:
    """One pass over the whole log, or over one workspace's chain. It calls `on_event` with every event.

    It reads heads before events. If a chain grows meanwhile, it checks the chain up to the head that it read.
    """

    def __init__(self, client: Client, checker: ChainChecker, on_event: OnEvent = lambda _event: None) -> None:
        self._client = client
        self._checker = checker
        self._on_event = on_event
        self.position = ""
        self.heads: list[Head] = []

    def check_all(self, on_begin: OnBegin = lambda _workspace, _position: None) -> Iterator[Fault]:
        """Checks every chain and yields each fault as it is found."""
        self._read_heads()
        on_begin(None, self.position)
        yield from self._check_log()
        for head in self.heads:
            if head.version is not None and head.version > self._checker.last_version(head.workspace_id):
                yield from self._check_rest(head)
        yield from self._checker.check_heads(self.heads)

    def check_workspace(
        self, workspace: str, on_begin: OnBegin = lambda _workspace, _position: None
    ) -> Iterator[Fault]:
        """Checks one workspace's chain and yields its faults; raises `Refusal` if the workspace does not exist."""
        heads = self._client.decode(self._client.get(path_of("audit", "heads"), [("limit", "1")]), Heads)
        self.position = heads.position
        page = self._chain(workspace, 0)
        on_begin(page.head.workspace_id, self.position)
        while True:
            for event in page.items:
                yield from self._check(event)
            if page.next_version is None:
                break
            page = self._chain(page.head.workspace_id, page.next_version)
        self.heads = [page.head]  # as of the last page: the chain may have grown
        yield from self._checker.check_heads(self.heads)

    def _check_log(self) -> Iterator[Fault]:
        after: str | None = None
        last = _number(self.position)
        while True:
            query = [PAGE] if after is None else [PAGE, ("after", after)]
            page = self._client.decode(self._client.get(path_of("audit", "events"), query), StoredEvents)
            for event in page.items:
                if _number(event.position) > last:
                    return
                yield from self._check(event)
            after = page.next_cursor
            if after is None:
                return

    def _check_rest(self, head: Head) -> Iterator[Fault]:
        """Checks events that were committed while an earlier position was still open."""
        after = self._checker.last_version(head.workspace_id)
        while after < (head.version or 0):
            page = self._chain(head.workspace_id, after)
            if not page.items:
                return
            for event in page.items:
                if event.version <= (head.version or 0):
                    yield from self._check(event)
            after = page.items[-1].version

    def _read_heads(self) -> None:
        cursor: str | None = None
        while True:
            query = [PAGE] if cursor is None else [PAGE, ("cursor", cursor)]
            page = self._client.decode(self._client.get(path_of("audit", "heads"), query), Heads)
            self.position = self.position or page.position
            self.heads += page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def _chain(self, workspace: str, after: int) -> Chain:
        answer = self._client.get(path_of("workspaces", workspace, "chain"), [PAGE, ("after_version", str(after))])
        return self._client.decode(answer, Chain)

    def _check(self, event: StoredEvent) -> list[Fault]:
        self._on_event(event)
        return self._checker.check_event(event)


def _number(position: str) -> int:
    return int(position.partition(":")[2])
