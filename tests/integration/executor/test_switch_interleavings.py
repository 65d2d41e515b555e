"""The interleavings of two hands that switch, on a real directory, with the real steps of `bring_live`.

A hand is a thread that waits before each step that another hand can see: a question to Postgres, a look at a directory,
a rename. The search drives two hands and the commit of the next switch through all orders of these steps in which the
turn goes from one to another only a few times: each may be stopped at any step, for as long as the others
need, and again after it went on. In each state of the disk that it reaches both hands are killed: then a third one has
to bring the right tree.
"""

import shutil
import threading
import uuid
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast
from uuid import UUID

import pytest
from tests.integration.engines.conftest import new_uuid7

from wvs.domain.ids import WORKSPACE, format_id
from wvs.engines.volume import layout
from wvs.engines.volume import switching as volume_switching
from wvs.engines.volume.opening import init_volume, open_volume
from wvs.engines.volume.volume import Volume
from wvs.executor import switching
from wvs.executor.switching import bring_live
from wvs.executor.workbench import Workbench

TREES: Final = tuple(f"01h455vb4pex5vsknk084sn02q.{number}" for number in (1, 2, 3))
"""The live trees of the epochs 1, 2 and 3. At the start Postgres names the second, and the path shows the first."""

COMMIT: Final = "commit"

current = threading.local()


class Killed(BaseException):
    """Ends the thread of a hand that takes no further step."""


class Hand:
    """One executor in `bring_live`. `seen` is what it has seen so far, which determines what it does next."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.seen: list[object] = []
        self.is_done = False
        self.error: BaseException | None = None
        self._killed = False
        self._go = threading.Semaphore(0)
        self._waits = threading.Semaphore(0)
        self.slots = 0
        self._world = world
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._waits.acquire()

    def step(self) -> None:
        self._go.release()
        self._waits.acquire()

    def kill(self) -> None:
        if not self.is_done:
            self._killed = True
            self.step()
        self._thread.join()

    def gate(self) -> None:
        self._waits.release()
        self._go.acquire()
        if self._killed:
            raise Killed

    def _run(self) -> None:
        current.hand = self
        try:
            finish(bring_live(self._world.bench, self._world.id))
        except Killed:
            pass
        except Exception as error:  # noqa: BLE001 - the search reports it with the order that led to it
            self.error = error
        self.is_done = True
        self._waits.release()


def finish(coroutine: Coroutine[Any, Any, object]) -> None:
    """Runs a coroutine that never waits for an event loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("the coroutine waits for an event loop")


class World:
    """A workspace on a volume, what Postgres says of it, and the hands."""

    def __init__(self, volume: Volume, hands: int, epochs: int) -> None:
        self.id = new_uuid7()
        name = format_id(WORKSPACE, self.id)
        self.home = Path(volume.path) / name
        volume.create_workspace(name)
        for tree in TREES[:epochs]:
            volume.intend(name, tree)
            (self.home / "trees" / tree / "root").mkdir()
        (self.home / "trees" / TREES[0]).rename(self.home / "live")
        volume.make_link(name)
        self.epoch = 2
        self.followed = 1
        self.epochs = epochs
        self.bench = self._bench(volume)
        self.hands = [Hand(self, f"hand{number}") for number in range(hands)]

    def choices(self) -> list[str]:
        return [*(h.name for h in self.hands if not h.is_done), *([COMMIT] if self.epoch < self.epochs else [])]

    def do(self, choice: str) -> None:
        if choice == COMMIT:
            self.epoch += 1
        else:
            next(h for h in self.hands if h.name == choice).step()

    def kill(self) -> None:
        for hand in self.hands:
            hand.kill()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.home)

    def disk(self) -> dict[str, str]:
        """Every directory around a tree, with the name of the tree."""
        found = [self.home / "live"]
        for place in ("trees", "switch", "trash"):
            found += (self.home / place).iterdir()
        return {str(p.relative_to(self.home)): (p / "name").read_text().strip() for p in found if p.exists()}

    def left_behind(self) -> object:
        """All that a hand finds that comes after these were killed."""
        return tuple(sorted(self.disk().items())), self.epoch, self.followed

    def state(self) -> object:
        return self.left_behind(), tuple(tuple(hand.seen) for hand in self.hands)

    def violations(self) -> list[str]:
        disk = self.disk()
        found = [str(hand.error) for hand in self.hands if hand.error is not None]
        if sorted(disk.values()) != sorted(TREES[: self.epochs]):
            found.append("a tree is gone")
        kept = TREES[self.epoch - 1 :]
        found += [
            f"{tree} is in the trash" for place, tree in disk.items() if place.startswith("trash") and tree in kept
        ]
        found += [
            f"{place} is {tree}" for place, tree in disk.items() if place.startswith("trash/") and tree not in place
        ]
        if self.followed == self.epoch and disk.get("live") != TREES[self.epoch - 1]:
            found.append(f"agents resumed, but the path shows {disk.get('live')}")
        return found

    def end(self) -> list[str]:
        """What is wrong after one more hand has come, undisturbed."""
        hand = Hand(self, "last")
        while not hand.is_done:
            hand.step()
        disk = self.disk()
        found = [] if hand.error is None else [f"the last hand: {hand.error}"]
        if disk.get("live") != TREES[self.epoch - 1] or self.followed != self.epoch:
            found.append(f"the last hand left {disk}")
        return found + [f"{place} is left" for place in disk if place.startswith("switch")]

    def _bench(self, volume: Volume) -> Workbench:
        async def run(call: Callable[..., object], *args: object, **kwargs: object) -> object:
            return call(*args, **kwargs)

        async def load(_: UUID) -> object:
            current.hand.gate()
            current.hand.seen.append(self.epoch)
            return SimpleNamespace(live_tree=TREES[self.epoch - 1], epoch=self.epoch)

        async def fetch(_query: str, _workspace: UUID, argument: Any) -> list[object]:
            current.hand.gate()
            self.followed = max(self.followed, argument)
            return []

        pool = SimpleNamespace(fetch=fetch)
        bench = SimpleNamespace(run=run, volume=volume, path=SimpleNamespace(load=load, pool=pool))
        bench.hint_sessions = lambda: None
        return cast("Workbench", bench)

    async def states(self, _bench: object, _workspace: UUID, names: list[str]) -> dict[str, object]:
        current.hand.gate()
        current.hand.seen.append(self.epoch)
        return {name: "live" if name in TREES[self.epoch - 1 :] else "retired" for name in names}


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    """A volume whose steps wait for their turn. Nothing is synced: the search kills hands, not the machine."""
    init_volume(str(tmp_path), uuid.uuid4(), "copy")
    volume = open_volume(str(tmp_path))
    monkeypatch.setattr("os.fsync", lambda _: None)

    def gated(real: Callable[..., Any], *, sees: bool = True) -> Callable[..., Any]:
        def step(*args: Any) -> Any:
            hand: Hand | None = getattr(current, "hand", None)
            if hand is None:
                return real(*args)
            hand.gate()
            try:
                result = real(*args)
            except OSError as error:
                hand.seen.append(error.errno)
                raise
            hand.seen.append(str(result) if sees else "done")
            return result

        return step

    def slot(_: int) -> str:
        current.hand.slots += 1
        return f"{current.hand.name}-{current.hand.slots}"

    async def sleep(_: float) -> None:
        return

    monkeypatch.setattr(volume_switching.secrets, "token_hex", slot)
    monkeypatch.setattr(volume_switching, "rename_noreplace", gated(volume_switching.rename_noreplace))
    monkeypatch.setattr(volume_switching, "rename_exchange", gated(volume_switching.rename_exchange))
    monkeypatch.setattr(volume_switching, "live_tree", gated(volume_switching.live_tree))
    names = layout.WorkspaceDir.names
    monkeypatch.setattr(layout.WorkspaceDir, "names", gated(names))
    monkeypatch.setattr(switching, "OBSOLETE", {"retired"})
    monkeypatch.setattr("asyncio.sleep", sleep)
    return volume


def replayed(volume: Volume, order: tuple[str, ...], epochs: int, hands: int) -> World:
    world = World(volume, hands, epochs)
    switching.states_of = world.states  # pyright: ignore[reportAttributeAccessIssue]
    for choice in order:
        world.do(choice)
    return world


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("epochs", "turns_"), [(2, 3), (3, 2)], ids=["one switch", "another switch is committed meanwhile"]
)
def test_no_order_of_two_hands_shows_another_tree_once_agents_resumed(
    volume: Volume, epochs: int, turns_: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switching, "states_of", switching.states_of)  # `replayed` sets it; this puts it back
    search = Search(volume, epochs, turns_)
    search.run()
    assert search.ended > 0
    assert len(search.known) > 300, "the search has hardly begun"


def turns(order: tuple[str, ...]) -> int:
    """How often the turn went from one hand to another. The commit is no hand's step."""
    hands = [choice for choice in order if choice != COMMIT]
    return sum(one != other for one, other in pairwise(hands))


class Search:
    """Depth first; a state that was seen before is not gone on from."""

    def __init__(self, volume: Volume, epochs: int, most_turns: int) -> None:
        self.known: set[object] = set()
        self.ended = 0
        self._recovered: set[object] = set()
        self._again = partial(replayed, volume, epochs=epochs, hands=2)
        self._most_turns = most_turns

    def run(self) -> None:
        waiting: list[tuple[str, ...]] = [()]
        while waiting:
            order = waiting.pop()
            world = self._again(order)
            while True:
                assert world.violations() == [], order
                state = world.state(), order[-1:], turns(order)
                if state in self.known:
                    break
                self.known.add(state)
                choices = world.choices()
                if not choices:
                    self.ended += 1
                    break
                self._kill_both(order, world.left_behind())
                last = order[-1] if order and order[-1] in choices else choices[0]
                if turns(order) < self._most_turns:
                    waiting += [(*order, other) for other in choices if other != last]
                world.do(last)
                order = (*order, last)
            world.close()

    def _kill_both(self, order: tuple[str, ...], left_behind: object) -> None:
        if left_behind in self._recovered:
            return
        self._recovered.add(left_behind)
        world = self._again(order)
        world.kill()
        assert world.end() == [], order
        world.close()
