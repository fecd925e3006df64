"""What is said about a conversion: what cannot be converted, by key and line, and what is worth knowing."""

from __future__ import annotations

from dataclasses import dataclass, field

from evomerge.errors import ConversionError
from evomerge.space.document import Document, KeyPath, dotted


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Collects problems and notes about one file, so that all of them can be told at once."""

    name: str
    problems: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def wrong(self, where: Document | None, path: KeyPath, sentence: str) -> None:
        """Keep that what stands at `path` cannot be converted; without a document, of a value in memory."""
        line = where.line(path) if where else 0
        place = where.where(path) if where else f"{self.name}: {dotted(path)}"
        self._add(line, f"{place} {sentence}".replace("\n", "\\n"))

    def note(self, path: KeyPath, sentence: str) -> None:
        """Keep something to tell that does not stand in the way."""
        said = f"{dotted(path)} {sentence}".replace("\n", "\\n") if path else sentence
        if said not in self.notes:
            self.notes.append(said)

    def check(self) -> None:
        """Raise `ConversionError` if there are problems: a line for each, in the order of the file."""
        if self.problems:
            ordered = sorted(self.problems, key=lambda each: each[0])
            raise ConversionError("\n".join(said for _, said in ordered))

    def _add(self, line: int, said: str) -> None:
        if (line, said) not in self.problems:
            self.problems.append((line, said))
