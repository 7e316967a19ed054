#!/usr/bin/env python3
"""An SMTP server for the tests, over aiosmtpd: it keeps what it takes, and fails as the recipient's name says.

  smtp_sink.py DIR [--cert FILE --key FILE] [--user U --password P] [--size N] [--count]

Listens on three ports of 127.0.0.1: STARTTLS, TLS from the first byte, and plain (the first two only with a certificate).
Writes DIR/ports.json when it is ready, then a JSON line a mail into DIR/mails.jsonl. With --count, mails are only counted
(DIR/count). With --user, nobody may send without a login, which is offered over TLS only (and on the plain port).

What stands before the first dot of the recipient's name is what happens:
  r451 r550      refused at RCPT        d451 d554   refused at DATA       451 550 454   refused after the message
  454day         "Daily message quota"  drop        taken, no answer      slow          taken, answer after 20 s
  close          closed at RCPT         421         "421" at RCPT and closed
The sender's name likewise: m451, m550 at MAIL.
"""
import argparse
import asyncio
import base64
import json
import pathlib
import ssl

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword, syntax

parser = argparse.ArgumentParser()
parser.add_argument("dir", type=pathlib.Path)
parser.add_argument("--cert")
parser.add_argument("--key")
parser.add_argument("--user")
parser.add_argument("--password")
parser.add_argument("--size", type=int, default=10_000_000)
parser.add_argument("--count", action="store_true")
args = parser.parse_args()

ANSWERS = {
    "451": "451 4.3.0 try again later",
    "550": "550 5.7.1 not wanted here",
    "554": "554 5.5.1 no",
    "454": "454 Throttling failure: Maximum sending rate exceeded.",
    "454day": "454 Throttling failure: Daily message quota exceeded.",
    "421": "421 4.3.2 closing",
}


def first(address):
    return (address or "").lstrip("<").split(".")[0].split("@")[0]


class Server(SMTP):
    @syntax("DATA")
    async def smtp_DATA(self, arg):
        for recipient in self.envelope.rcpt_tos:
            word = first(recipient)
            if word in ("d451", "d554"):
                await self.push(ANSWERS[word[1:]])
                return
        await super().smtp_DATA(arg)


class Handler:
    def __init__(self):
        self.mails = None if args.count else (args.dir / "mails.jsonl").open("a", buffering=1)
        self.count = 0

    async def handle_MAIL(self, server, session, envelope, address, options):
        word = first(address)
        if word in ("m451", "m550"):
            return ANSWERS[word[1:]]
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        word = first(address)
        if word in ("r451", "r550"):
            return ANSWERS[word[1:]].replace("not wanted", f"<{address}>: not wanted")
        if word == "close":
            server.transport.close()
            return "250 OK"
        if word == "421":
            await server.push(ANSWERS["421"])
            server.transport.close()
            return "250 OK"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        word = first(envelope.rcpt_tos[0])
        if word in ("451", "550", "454", "454day"):
            return ANSWERS[word]
        self.count += 1
        if self.mails is None:
            (args.dir / "count").write_text(str(self.count)) if self.count % 500 == 0 else None
        else:
            line = {
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "tls": session.ssl is not None,
                "user": getattr(session, "login", None),
                "peer": session.peer[1],
                "raw": base64.b64encode(envelope.original_content).decode(),
            }
            self.mails.write(json.dumps(line) + "\n")
        if word == "drop":
            server.transport.abort()
        if word == "slow":
            await asyncio.sleep(20)
        return f"250 2.0.0 Ok: queued as SINK{self.count:08d}"


def authenticator(server, session, envelope, mechanism, auth_data):
    good = isinstance(auth_data, LoginPassword) and (auth_data.login, auth_data.password) == (
        args.user.encode(),
        args.password.encode(),
    )
    session.login = args.user if good else None
    return AuthResult(success=good, handled=good)


async def main():
    handler, loop, ports = Handler(), asyncio.get_running_loop(), {}
    tls = None
    if args.cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(args.cert, args.key)
    login = {"authenticator": authenticator, "auth_required": True} if args.user else {}

    def factory(**more):
        return lambda: Server(handler, hostname="sink.example", data_size_limit=args.size, **login, **more)

    async def listen(name, make, context=None):
        server = await loop.create_server(make, "127.0.0.1", 0, ssl=context)
        ports[name] = server.sockets[0].getsockname()[1]

    await listen("plain", factory(auth_require_tls=False))
    if tls:
        await listen("starttls", factory(tls_context=tls, require_starttls=True))
        await listen("implicit", factory(auth_require_tls=False), tls)
    part = args.dir / "ports.json.part"
    part.write_text(json.dumps(ports))
    part.rename(args.dir / "ports.json")
    await asyncio.Event().wait()


asyncio.run(main())
