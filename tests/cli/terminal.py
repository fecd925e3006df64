"""A terminal as far as evomerge draws on one: text, new lines, the cursor up, lines and the rest erased."""

from __future__ import annotations

import re

_PIECE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b\][^\x07]*\x07|([\r\n\b\x07])|([^\x1b\r\n\b\x07]+)")


class Terminal:
    """Shows what a program writes, with `columns` to a line and all lines that ever were."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._lines: list[str] = [""]
        self._row = self._column = 0
        self.unknown: set[str] = set()

    @property
    def lines(self) -> list[str]:
        """The lines as they stand, without empty ones at the end."""
        shown = [line.rstrip() for line in self._lines]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def feed(self, text: str) -> None:
        """Take what a program writes."""
        at = 0
        for found in _PIECE.finditer(text):
            assert found.start() == at, f"not understood: {text[at : at + 20]!r}"
            at = found.end()
            number, command, control, plain = found.groups()
            if command:
                self._do(command, number)
            elif control:
                self._move(control)
            elif plain:
                self._write(plain)
        assert at == len(text), f"not understood: {text[at : at + 20]!r}"

    def _do(self, command: str, number: str) -> None:
        match command:
            case "A":
                self._row = max(0, self._row - int(number or 1))
            case "K":
                line = self._lines[self._row]
                self._lines[self._row] = "" if number == "2" else line[: self._column]
            case "m" | "h" | "l":
                pass  # colours; the cursor shown or hidden
            case _:
                self.unknown.add(f"{number}{command}")

    def _move(self, control: str) -> None:
        if control == "\r":
            self._column = 0
        elif control == "\n":
            self._row, self._column = self._row + 1, 0
            if self._row == len(self._lines):
                self._lines.append("")

    def _write(self, text: str) -> None:
        """Write over what stands there; what is too long goes on in the next line, as terminals have it."""
        while text:
            room = self.columns - self._column
            if room <= 0:
                self._move("\n")
                continue
            part, text = text[:room], text[room:]
            line = self._lines[self._row].ljust(self._column)
            self._lines[self._row] = line[: self._column] + part + line[self._column + len(part) :]
            self._column += len(part)
