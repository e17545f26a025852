"""What one attempt displays, within a number of bytes; knows no IPython, and nothing of text.

Kept is the beginning, which is given while the attempt runs, and the last of the rest, which is given when it has
ended: an animation that goes on for hours ends with the picture it ended with.
"""

from __future__ import annotations

from nbqueue.payload import bundles

__all__ = ["DISPLAYS_MAX", "DISPLAY_MAX", "Display", "Shown"]

#: So many bytes of one attempt's displays are kept, half of them from the beginning and half from the end.
DISPLAYS_MAX = 16 * 1024 * 1024
#: A larger one is not kept at all.
DISPLAY_MAX = 4 * 1024 * 1024


class Display:
    """One display, or one clearing of all before it, on its way to the store."""

    __slots__ = ("at", "display_id", "place", "text", "update")

    def __init__(
        self, text: str, at: float, place: int, *, display_id: str = "", update: bool = False
    ) -> None:
        self.text = text
        self.at = at
        #: After how many chunks of text it comes.
        self.place = place
        self.display_id = display_id
        self.update = update

    @property
    def clears(self) -> bool:
        """Whether it clears all before it, and costs nothing."""
        return self.text is bundles.CLEAR


class Shown:
    """The displays of one attempt; whoever calls it holds a lock.

    Parameters
    ----------
    limit : int
        How many bytes of them are kept.
    largest : int
        How many one may have.
    """

    __slots__ = ("_clearing", "_fresh", "_largest", "_late", "_late_room", "_left_out", "_room")

    def __init__(self, limit: int, largest: int) -> None:
        self._largest = largest
        self._room = limit // 2
        self._late_room = limit - limit // 2
        self._fresh: list[Display] = []
        #: What comes when the attempt has ended, from the first on for which there was no room.
        self._late: list[Display] | None = None
        #: How many were left out, and their bytes.
        self._left_out = (0, 0)
        #: All that was shown is cleared as soon as there is something else to show.
        self._clearing: tuple[float, int] | None = None

    def show(self, display: Display) -> None:
        """Take one; an update takes the place of one that nobody has been given yet."""
        self.settle()
        size = len(display.text)
        if size > self._largest:
            display.text = _mark(f"an output of {_size(size)} left out", display.display_id, display.update)
            size = len(display.text)
        if display.update:
            self._forget_update(display.display_id)
        if self._late is None and size <= self._room:
            self._room -= size
            self._fresh.append(display)
            return
        if self._late is None:
            self._late = []
        self._late.append(display)
        self._late_room -= size
        while self._late_room < 0:
            size = len(self._late.pop(1 if self._late[0].clears else 0).text)
            self._late_room += size
            self._left_out = self._left_out[0] + 1, self._left_out[1] + size

    def clear(self, at: float, place: int, *, wait: bool) -> None:
        """Clear what was shown so far."""
        self._clearing = at, place
        if not wait:
            self.settle()

    def settle(self) -> None:
        """Clear now what waited for something new."""
        if self._clearing is None:
            return
        clear = Display(bundles.CLEAR, *self._clearing)
        self._clearing = None
        if self._late is None:
            self._room += sum(len(one.text) for one in self._fresh if not one.clears)
            self._fresh = [clear]
        else:
            self._late_room += sum(len(one.text) for one in self._late if not one.clears)
            self._left_out = 0, 0
            self._late = [clear]

    def fresh(self) -> list[Display]:
        """Give what is new, in order."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def late(self) -> list[Display]:
        """Give what is left once the attempt has ended, led by a mark where something is missing."""
        late, self._late = self._late or [], []
        count, size = self._left_out
        if count:
            self._left_out = 0, 0
            what = "an output" if count == 1 else f"{count:,} outputs"
            mark = Display(_mark(f"{what} of {_size(size)} left out"), late[0].at if late else 0.0, 0)
            # Behind a clearing, or it would be cleared.
            late.insert(1 if late and late[0].clears else 0, mark)
        return late

    def _forget_update(self, display_id: str) -> None:
        """Drop the update that waits for the same place, unless it was displayed anew since."""
        for waiting, is_late in ((self._late or [], True), (self._fresh, False)):
            for index in range(len(waiting) - 1, -1, -1):
                if waiting[index].display_id != display_id:
                    continue
                if waiting[index].update:
                    size = len(waiting.pop(index).text)
                    if is_late:
                        self._late_room += size
                    else:
                        self._room += size
                return


def _mark(what: str, display_id: str = "", update: bool = False) -> str:  # noqa: FBT001, FBT002 - a display's own
    return bundles.write({"text/plain": f"… [truncated: {what}] …"}, {}, display_id=display_id, update=update)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"
