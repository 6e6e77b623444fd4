#!/usr/bin/env python3
"""Checks the links of the documentation: that files and anchors exist, that every page is reachable from the index, that
the chart's README has no relative link out of the chart (it must work from the packaged chart), and that tests named in
the threat model and in the table of scenarios exist.

    check_links.py               the pages of the repository
    check_links.py --book DIR    the built book
"""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CHART = ROOT / "charts" / "aws-deploy-user-operator"
INDEX = DOCS / "README.md"

LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")


def pages():
    pages = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
    return [*pages, CHART / "README.md", *sorted(DOCS.rglob("*.md"))]


def prose(path):
    """The text without code blocks, which may hold what looks like a link."""
    return FENCE.sub("", path.read_text())


def anchors(path):
    """The anchors of a page, as GitHub and mdBook derive them from headings."""
    seen, found = {}, set()
    for heading in re.findall(r"^#{1,6} (.+?)\s*$", prose(path), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
        number = seen.get(slug, 0)
        seen[slug] = number + 1
        found.add(f"{slug}-{number}" if number else slug)
    return found


def home():
    found = re.search(r"^home: *(\S+)$", (CHART / "Chart.yaml").read_text(), re.MULTILINE)
    return found[1].rstrip("/") if found else None


def target(page, link):
    """The file and anchor in this repository that a link names, or None for a link elsewhere."""
    repository = home()
    if repository and (found := re.match(re.escape(repository) + r"/(?:blob|tree)/main/([^#]*)(?:#(.*))?$", link)):
        return ROOT / unquote(found[1]), found[2]
    if re.match(r"[a-z][a-z0-9+.-]*:", link):
        return None
    path, _, anchor = link.partition("#")
    return ((page.parent / unquote(path)).resolve() if path else page), anchor or None


def check():
    errors, links = [], {}
    for page in pages():
        links[page] = set()
        for link in LINK.findall(CODE.sub("", prose(page))):
            found = target(page, link)
            if found is None:
                continue
            path, anchor = found
            where = f"{page.relative_to(ROOT)}: {link}"
            if not path.exists():
                errors.append(f"{where}: there is no such file")
            elif not path.is_relative_to(ROOT):
                errors.append(f"{where}: is outside of the repository")
            elif page.parent == CHART and not link.startswith("http") and not path.is_relative_to(CHART):
                errors.append(f"{where}: does not work from the packaged chart; use the repository's URL")
            elif anchor and path.suffix == ".md" and anchor not in anchors(path):
                errors.append(f"{where}: {path.name} has no such heading")
            else:
                links[page].add(path)
    reached, waiting = set(), [INDEX]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += [path for path in links.get(page, ()) if path in links]
    summary = DOCS / "SUMMARY.md"
    for page in sorted(DOCS.rglob("*.md")):
        name = page.relative_to(ROOT)
        if page not in reached and page != summary:
            errors.append(f"{name}: not reachable from docs/README.md")
        if page not in links[summary] and page != summary:
            errors.append(f"{name}: not in docs/SUMMARY.md")
    return errors, sum(map(len, links.values()))


def missing_tests():
    """Tests that pages name and that do not exist."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src", "tests"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    sources = "".join((ROOT / name).read_text() for name in listed if name.endswith((".rs", ".py")) and (ROOT / name).exists())
    known = set(re.findall(r"\b(?:fn|def) (\w+)\(", sources))
    errors = []
    for page in (DOCS / "security.md", DOCS / "testing.md"):
        for row in re.findall(r"^\| .*\|$", prose(page), re.MULTILINE):
            last = row.rstrip("|").rsplit("|", 1)[1]
            for name in re.findall(r"`(?:\w+::)?(\w+_\w+)`", last):
                if name not in known:
                    errors.append(f"{page.relative_to(ROOT)}: there is no test {name}")
    return errors


def check_book(book):
    """The links of the built book."""
    errors, count, texts = [], 0, {page: page.read_text() for page in book.rglob("*.html") if page.name not in ("print.html", "404.html")}
    for page, text in texts.items():
        for link in re.findall(r'(?:href|src)="([^"#?]*)(?:#([^"]*))?', text):
            if not link[0] or re.match(r"[a-z]+:|/", link[0]):
                continue
            count += 1
            path = (page.parent / unquote(link[0])).resolve()
            if not path.exists():
                errors.append(f"{page.relative_to(book)}: {link[0]}: there is no such file")
            elif link[1] and path in texts and f'id="{unquote(link[1])}"' not in texts[path]:
                errors.append(f"{page.relative_to(book)}: {link[0]}#{link[1]}: there is no such heading")
    return errors, count


def main():
    if sys.argv[1:2] == ["--book"]:
        errors, count = check_book(Path(sys.argv[2]).resolve())
    else:
        errors, count = check()
        errors += missing_tests()
    for error in errors:
        print(error, file=sys.stderr)
    print(f"links: {count} checked, {len(errors)} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
