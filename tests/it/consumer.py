"""A program that uses a mounted key, with boto3. One argument says what it does:

once     signs one call with the configuration of its environment, and prints key id and ARN
follow   keeps one client; signs a call for each line of standard input, and prints key id and ARN
console  prints key id and secret of the CSV file on standard input, as a spreadsheet reads it
import   the same of a file for `aws configure import`, as version 2 of the CLI reads it: after a byte order mark, columns by
         name in any case, split at commas without regard to quotes
"""

import csv
import io
import sys

import boto3


def signed(session, sts):
    arn = sts.get_caller_identity()["Arn"]
    # The credentials that the client has just signed with.
    print(session.get_credentials().get_frozen_credentials().access_key, arn, flush=True)


def main():
    what = sys.argv[1]
    if what in ("once", "follow"):
        session = boto3.Session()
        sts = session.client("sts")
        for _ in sys.stdin if what == "follow" else [None]:
            signed(session, sts)
    elif what == "console":
        text = sys.stdin.buffer.read().decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert len(rows) == 1, rows
        print(rows[0]["Access key ID"], rows[0]["Secret access key"])
    elif what == "import":
        header, *rows = sys.stdin.buffer.read().decode().splitlines()
        names = [name.removeprefix("\ufeff").strip().lower() for name in header.split(",")]
        assert len(rows) == 1, rows
        row = dict(zip(names, (field.strip() for field in rows[0].split(",")), strict=True))
        print(row["user name"], row["access key id"], row["secret access key"])
    else:
        sys.exit(f"what is {what}?")


main()
