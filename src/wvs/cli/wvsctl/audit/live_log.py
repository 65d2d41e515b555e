"""The log as the service has it, read once through the API and handed to a checker."""

from collections.abc import Callable, Iterator
from typing import Final

from wvs.cli.wvsctl.api.client import Client, path_of
from wvs.cli.wvsctl.audit.chain_checker import ChainChecker, Fault
from wvs.cli.wvsctl.audit.documents import Chain, Head, Heads, StoredEvent, StoredEvents

PAGE: Final = ("limit", "1000")

Keep = Callable[[StoredEvent], None]
Begin = Callable[[str | None, str], None]
"""Is told the workspace (None: all of them) and the position that the pass goes to, before the first event."""


class LiveLog:
    """One pass over the whole log, or over one workspace's chain. `keep` is given each event that was read.

    Heads are read before events. A chain that goes on meanwhile is followed to the head that was read, and no further.
    """

    def __init__(self, client: Client, checker: ChainChecker, keep: Keep = lambda _event: None) -> None:
        self._client = client
        self._checker = checker
        self._keep = keep
        self.position = ""
        self.heads: list[Head] = []

    def follow_all(self, begin: Begin = lambda _workspace, _position: None) -> Iterator[Fault]:
        """The faults of every chain, as they are found."""
        self._read_heads()
        begin(None, self.position)
        yield from self._follow_log()
        for head in self.heads:
            if head.version is not None and head.version > self._checker.last_version(head.workspace_id):
                yield from self._follow_rest(head)
        yield from self._checker.close(self.heads)

    def follow(self, workspace: str, begin: Begin = lambda _workspace, _position: None) -> Iterator[Fault]:
        """The faults of one workspace's chain; raises `Refusal` if there is no such workspace."""
        heads = self._client.decode(self._client.get(path_of("audit", "heads"), [("limit", "1")]), Heads)
        self.position = heads.position
        page = self._chain(workspace, 0)
        begin(page.head.workspace_id, self.position)
        while True:
            for event in page.items:
                yield from self._take(event)
            if page.next_version is None:
                break
            page = self._chain(page.head.workspace_id, page.next_version)
        self.heads = [page.head]  # as of the last page: the chain may have grown
        yield from self._checker.close(self.heads)

    def _follow_log(self) -> Iterator[Fault]:
        after: str | None = None
        last = _number(self.position)
        while True:
            query = [PAGE] if after is None else [PAGE, ("after", after)]
            page = self._client.decode(self._client.get(path_of("audit", "events"), query), StoredEvents)
            for event in page.items:
                if _number(event.position) > last:
                    return
                yield from self._take(event)
            after = page.next_cursor
            if after is None:
                return

    def _follow_rest(self, head: Head) -> Iterator[Fault]:
        """What was committed while an earlier position was still open."""
        after = self._checker.last_version(head.workspace_id)
        while after < (head.version or 0):
            page = self._chain(head.workspace_id, after)
            if not page.items:
                return
            for event in page.items:
                if event.version <= (head.version or 0):
                    yield from self._take(event)
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

    def _take(self, event: StoredEvent) -> list[Fault]:
        self._keep(event)
        return self._checker.take(event)


def _number(position: str) -> int:
    return int(position.partition(":")[2])
