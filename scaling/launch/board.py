"""The board: a line per member in a terminal, or plain lines on every change elsewhere."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Protocol

import rich.console
import rich.live
import rich.text

from scaling import units
from scaling.launch.schedule import Phase

BAR_WIDTH = 12
DRAW_SECONDS = 1.0
SUMMARY_SECONDS = 30.0
FRAME_LINES = 3  # title, header and summary
_STYLES = {
    Phase.FINISHED: "green", Phase.DIVERGED: "red", Phase.FAILED: "bold red", Phase.BLOCKED: "red", Phase.RUNNING: "bold",
    Phase.READY: "dim", Phase.WAITS_TRUNK: "dim", Phase.WAITS_PREDICTION: "dim",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    """What the board knows about a member."""

    id: str
    phase: Phase
    part: float = 0.0  # of its tokens
    loss: float | None = None  # validation loss once finished, else the latest training loss
    predicted: float | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    eta: float | None = None  # seconds
    note: str = ""

    def difference(self) -> str:
        """Of the prediction from the final loss, as ``analysis.predict`` scores it."""
        if self.phase is not Phase.FINISHED or self.loss is None or self.predicted is None:
            return ""
        return f"{(self.predicted / self.loss - 1) * 100:+.1f}%"


class Board(Protocol):
    """Where the launcher shows itself."""

    def show(self, title: str, rows: Sequence[Row], summary: str) -> None:
        """Takes the present state; draws it when it is time."""

    def say(self, text: str) -> None:
        """One line for the user, that stays."""

    def close(self) -> None:
        """Draws the last state and gives the terminal back."""


def open_board(console: rich.console.Console) -> Board:
    """The live one in a terminal, the plain one elsewhere."""
    return LiveBoard(console) if console.is_terminal and not console.is_dumb_terminal else PlainBoard(console)


class LiveBoard:
    """A table that is drawn again in place, about once a second and only when something changed."""

    def __init__(self, console: rich.console.Console):
        self._console = console
        self._live = rich.live.Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._live.start()
        self._state: tuple[str, Sequence[Row], str] | None = None
        self._shown: tuple[str, Sequence[Row], str] | None = None
        self._drawn = 0.0

    def show(self, title: str, rows: Sequence[Row], summary: str) -> None:
        self._state = (title, rows, summary)
        if time.monotonic() - self._drawn >= DRAW_SECONDS and self._state != self._shown:
            self._shown, self._drawn = self._state, time.monotonic()
            self._live.update(table(title, rows, summary, self._console.height - 1), refresh=True)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        if self._state:
            self._live.update(table(*self._state, height=10**6))  # stop draws it
        self._live.stop()


class PlainBoard:
    """A line on each change of a member's phase, and a summary now and then."""

    def __init__(self, console: rich.console.Console):
        self._console = console
        self._start = self._summed = time.monotonic()
        self._phases: dict[str, Phase] | None = None
        self._summary = ""

    def show(self, title: str, rows: Sequence[Row], summary: str) -> None:
        if self._phases is None:
            self._phases = {}
            self.say(title)
            waiting = sum(not r.phase.over and r.phase is not Phase.RUNNING for r in rows)
            self.say(f"{len(rows)} members, {sum(r.phase.over for r in rows)} over, {waiting} waiting")
            self._phases = {r.id: r.phase for r in rows if r.phase is not Phase.RUNNING}
        for row in rows:
            if row.phase is not self._phases.get(row.id):
                self._phases[row.id] = row.phase
                if row.phase.over or row.phase is Phase.RUNNING:
                    self.say(_sentence(row))
        self._summary = summary
        if time.monotonic() - self._summed >= SUMMARY_SECONDS:
            self._summed = time.monotonic()
            running = ", ".join(f"{r.id} {r.part:.0%} loss {_loss(r.loss)}" for r in rows if r.phase is Phase.RUNNING)
            self.say(f"{summary}{'; ' + running if running else ''}")

    def say(self, text: str) -> None:
        stamp = f"[{units.format_seconds(time.monotonic() - self._start):>6}] "
        self._console.print(
            "\n".join(stamp + line for line in text.splitlines()), markup=False, highlight=False, soft_wrap=True
        )

    def close(self) -> None:
        if self._summary:
            self.say(self._summary)


def _sentence(row: Row) -> str:
    words = [row.id, str(row.phase)]
    if row.loss is not None:
        words.append(f"loss {_loss(row.loss)}")
    if row.predicted is not None:
        words.append(f"predicted {_loss(row.predicted)} {row.difference()}".rstrip())
    return " ".join([*words, f"({row.note})" if row.note else ""]).rstrip()


def table(title: str, rows: Sequence[Row], summary: str, height: int) -> rich.text.Text:
    """The board in at most ``height`` lines; rows that do not fit are counted in the last.

    Laid out by hand: a rich Table of this size takes 29 ms of a core that trains, this takes 2.
    """
    shown, left_out = fitting(rows, height - FRAME_LINES)
    cells = [_cells(row) for row in shown]
    widths = [max(map(len, column)) for column in zip(_HEADER, *cells, strict=True)]
    out = rich.text.Text(no_wrap=True, overflow="ellipsis")
    out.append(f"{title}\n", "bold")
    out.append(_line(_HEADER, widths) + "\n", "dim")
    for row, line in zip(shown, cells, strict=True):
        out.append(_line(line, widths) + "\n", _STYLES[row.phase])
    if left_out:
        out.append(f"… {left_out} more members\n", "dim")
    return out.append(summary)


_HEADER = ("member", "", "loss", "predicted", "", "tokens/s", "MFU", "ETA", "")
_LEFT = (0, 1, len(_HEADER) - 1)  # columns of text


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = (c.ljust(w) if i in _LEFT else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
    return " ".join(aligned).rstrip()


def fitting(rows: Sequence[Row], lines: int) -> tuple[list[Row], int]:
    """The rows to show in ``lines``: running and broken ones first, then the last finished and the next to start."""
    if len(rows) <= lines:
        return list(rows), 0
    room = max(1, lines - 1)
    active = [i for i, r in enumerate(rows) if r.phase in (Phase.RUNNING, Phase.FAILED, Phase.DIVERGED)]
    center = active[0] if active else next((i for i, r in enumerate(rows) if not r.phase.over), len(rows) - 1)
    near = sorted(range(len(rows)), key=lambda i: (i not in active, abs(i - center)))
    chosen = sorted(near[:room])
    return [rows[i] for i in chosen], len(rows) - len(chosen)


def _cells(row: Row) -> list[str]:
    state = "" if row.phase in (Phase.RUNNING, Phase.FINISHED) else str(row.phase)
    full = round(min(1.0, row.part) * BAR_WIDTH)
    return [
        row.id, "━" * full + "·" * (BAR_WIDTH - full), _loss(row.loss), _loss(row.predicted), row.difference(),
        "" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}", "" if row.mfu is None else f"{row.mfu:.1%}",
        "" if row.eta is None else units.format_seconds(row.eta), " ".join(filter(None, [state, row.note])),
    ]  # fmt: skip


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
