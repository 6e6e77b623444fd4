#!/usr/bin/env python3
"""Fails if prose of the documentation has a line of more than 120 characters that can be broken; with --fix, wraps its paragraph.
Tables, code, headings and generated pages are not prose."""

import pathlib
import re
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parents[2]
WIDTH = 120
GENERATED = ROOT / "docs" / "reference"
ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+")
NO_PROSE = ("```", "|", "#", "<!--", "![")


def wrapped(paragraph):
    """The lines of a paragraph or a list item, at most WIDTH wide where possible."""
    marker = ITEM.match(paragraph[0])
    first = marker[0] if marker else re.match(r"\s*", paragraph[0])[0]
    text = " ".join([paragraph[0][len(first):], *(line.strip() for line in paragraph[1:])])
    lines = textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False, break_on_hyphens=False
    )
    # A line must not become an item or a heading.
    starts = [line.lstrip() for line in lines[1:]]
    return paragraph if any(ITEM.match(line) or line.startswith((*NO_PROSE, ">")) for line in starts) else lines


def wrap(text):
    """The text, and the numbers of the lines that are too long."""
    source, result, long = text.split("\n"), [], []
    at, fenced = 0, False
    while at < len(source):
        start = source[at].lstrip()
        fenced ^= start.startswith("```")
        end = at + 1
        if not fenced and start and not start.startswith(NO_PROSE):
            while end < len(source) and source[end].strip() and not source[end].lstrip().startswith(NO_PROSE) and not ITEM.match(source[end]):
                end += 1
        paragraph = source[at:end]
        if len(paragraph) > 1 or (not fenced and not start.startswith(NO_PROSE)):
            too_wide = [at + number for number, line in enumerate(paragraph, 1) if len(line) > WIDTH]
            if too_wide and (lines := wrapped(paragraph)) != paragraph:
                long += too_wide
                paragraph = lines
        result += paragraph
        at = end
    return "\n".join(result), long


def main(fix):
    pages = [page for page in sorted((ROOT / "docs").rglob("*.md")) if GENERATED not in page.parents]
    pages += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    count = 0
    for page in pages:
        text, long = wrap(page.read_text())
        count += len(long)
        for number in long:
            print(f"{page.relative_to(ROOT)}:{number}: more than {WIDTH} characters{': wrapped' if fix else '; run tests/docs/check_lines.py --fix'}")
        if fix and long:
            page.write_text(text)
    print(f"prose: {len(pages)} pages checked, {count} long lines")
    return 1 if len(pages) < 20 or (count and not fix) else 0


if __name__ == "__main__":
    sys.exit(main("--fix" in sys.argv[1:]))
