#!/usr/bin/env python3
"""Reads every .eml of the given folders with Python's own e-mail parser: an independent reader must find no defect.

    mail_parser.py FOLDER…       exit 1 and a line a problem; a folder without mails is a problem
"""

import email.headerregistry
import email.policy
import pathlib
import re
import sys

# RFC 5322, 2.1.1, without the line's end.
LINE_BYTES = 998
ONCE = ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "X-Owlpost-Digest", "Auto-Submitted"]


def problems(raw):
    if b"\n" in raw.replace(b"\r\n", b""):
        yield "a line ends without CR"
    if any(len(line) > LINE_BYTES for line in raw.split(b"\r\n")):
        yield f"a line of more than {LINE_BYTES} bytes"
    mail = email.message_from_bytes(raw, policy=email.policy.strict.clone(raise_on_defect=False))
    for name in ONCE:
        found = mail.get_all(name, [])
        if len(found) != 1:
            yield f"{len(found)} times {name}"
    for name, value in mail.items():
        for defect in getattr(value, "defects", []):
            yield f"header {name}: {defect!r}"
        if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", str(value)):
            yield f"header {name}: a control character"
    if len(getattr(mail["To"], "addresses", [])) != 1:
        yield "To is not one address"
    kinds = []
    for part in mail.walk():
        for defect in part.defects:
            yield f"{part.get_content_type()}: {defect!r}"
        if not part.is_multipart():
            kinds.append(part.get_content_type())
            if not part.get_content().strip():
                yield f"{part.get_content_type()}: empty"
    if kinds != ["text/plain", "text/html"]:
        yield f"parts are {kinds}, not text and HTML"


def main():
    mails, wrong = 0, 0
    for folder in map(pathlib.Path, sys.argv[1:]):
        found = sorted(folder.rglob("*.eml"))
        if not found:
            wrong += 1
            print(f"{folder}: no mails")
        for path in found:
            mails += 1
            for problem in problems(path.read_bytes()):
                wrong += 1
                print(f"{path}: {problem}")
    print(f"{mails} mails read, {wrong} problems")
    sys.exit(1 if wrong or not mails else 0)


if __name__ == "__main__":
    main()
