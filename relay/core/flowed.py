"""Text with soft line breaks made whole again: `format=flowed` (RFC 3676)."""

from __future__ import annotations

SIGNATURE = "-- "  # a line of its own, whatever its last blank looks like (4.3)


def joined(text: str, *, delsp: bool = False) -> str:
    """One line for each paragraph, with the marks of what it quotes. `delsp`: the blank of a soft break is no blank."""
    paragraphs: list[str] = []
    held: list[str] = []  # the lines of a paragraph that goes on
    depth = 0
    for line in text.split("\n"):
        marks, words = _parted(line)
        if held and (marks != depth or words == SIGNATURE):  # a paragraph of one depth cannot go on in another (4.5)
            paragraphs.append(_marked(depth, held))
            held = []
        depth = marks
        soft = words.endswith(" ") and words != SIGNATURE
        held.append(words[:-1] if soft and delsp else words)
        if not soft:
            paragraphs.append(_marked(depth, held))
            held = []
    if held:
        paragraphs.append(_marked(depth, held))
    return "\n".join(paragraphs)


def _parted(line: str) -> tuple[int, str]:
    """How deep it is quoted, and its words, without the blank that was stuffed before them (4.4)."""
    words = line.lstrip(">")
    return len(line) - len(words), words.removeprefix(" ")


def _marked(depth: int, lines: list[str]) -> str:
    words = "".join(lines)
    return f"{'>' * depth} {words}".rstrip(" ") if depth and words != SIGNATURE else ">" * depth + words
