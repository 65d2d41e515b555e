"""An agent that speaks the protocol of docs/agents.md over HTTP, one step at a time."""

import time
from typing import Any

from tools.release_fixture.service import WAIT_S, Service


class Agent:
    """A registered session."""

    def __init__(self, service: Service, workspace: str, name: str) -> None:
        body = {"agent": name, "host": "release-host", "pid": 4711, "lease_s": 5}
        registered = service.send("POST", f"/v1/workspaces/{workspace}/sessions", body)
        self.id: str = registered["session"]["id"]
        self._secret = {"x-session-secret": registered["secret"]}
        self._service = service
        self._directive: dict[str, Any] = registered["directive"]

    def obey(self, token: str) -> None:
        """Freezes, confirms, and resumes."""
        freeze = self._until("freeze")["freeze"]
        self._acknowledge(kind="frozen", freeze=freeze, token=token, flush="ok")
        self._until("confirm")
        self._acknowledge(kind="still_frozen", freeze=freeze, token=token)
        self._until("run")

    def switch(self, token: str) -> None:
        """Freezes, confirms, and goes on in the new live tree."""
        freeze = self._until("freeze")["freeze"]
        self._acknowledge(kind="frozen", freeze=freeze, token=token, flush="ok")
        self._until("confirm")
        self._acknowledge(kind="still_frozen", freeze=freeze, token=token)
        epoch = self._until("switch")["epoch"]
        self._acknowledge(kind="switched", epoch=epoch)

    def refuse(self, reason: str) -> None:
        """Refuses the next freeze, which fails the task."""
        self._acknowledge(kind="refused", freeze=self._until("freeze")["freeze"], reason=reason)
        self._until("run")

    def evict(self, reason: str) -> None:
        """A person takes the session out of the required set."""
        self._service.send("POST", f"/v1/sessions/{self.id}/evict", {"reason": reason})

    def leave(self) -> None:
        """The program ends."""
        self._service.send("DELETE", f"/v1/sessions/{self.id}", more=self._secret)

    def _until(self, kind: str) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_S
        while self._directive["kind"] != kind:
            if time.monotonic() > deadline:
                raise RuntimeError(f"session {self.id} is not told to {kind}: {self._directive}")
            after = self._directive["number"]
            self._directive = self._service.get(
                f"/v1/sessions/{self.id}/directive", headers=self._secret, after=after, wait=5
            )
        return self._directive

    def _acknowledge(self, **body: Any) -> None:
        self._directive = self._service.send("POST", f"/v1/sessions/{self.id}/acks", body, more=self._secret)
