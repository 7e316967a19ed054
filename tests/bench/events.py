"""Deterministic CloudEvents for the benchmarks: an event is a pure function of its number.

Of 20 events, 12 are requests, 3 decisions, 3 expiries, 2 domain changes; each asks one of `recipients` people. Lines
are about 560 bytes long. Every tenth line is an exact copy of an earlier one, from anywhere in the file.
"""

import datetime
import functools
import hashlib

REASON = "on call this week for the scores pipeline; ticket OPS-{:07d}; asked for by the team's lead, see the runbook"
# Each line stands for 10 ms of the producer's time.
STEP_US = 10_000
# A decision is about a request this many events away, before or behind: a multiple of 20.
AWAY = 4_000


def mix(n, salt):
    """A 64-bit number that looks random (splitmix64): Python's own generator is slower and not a function of n."""
    x = (n * 0x9E3779B97F4A7C15 + salt * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 31)


@functools.lru_cache(maxsize=4096)
def second(base, s):
    return (base + datetime.timedelta(seconds=s)).strftime("%Y-%m-%dT%H:%M:%S")


def stamp(base, us):
    return f"{second(base, us // 1_000_000)}.{us % 1_000_000:06d}Z"


def decided_request(n):
    """The request that decision `n` is about: mostly an earlier one, one time in eight a later one."""
    place = n % 20 - 12
    away = AWAY if mix(n, 5) % 8 == 0 else -AWAY
    return n - n % 20 + away + place * 4


def event(n, base, recipients):
    place = n % 20
    about = decided_request(n) if 12 <= place < 15 else n
    us = about * STEP_US + (5_000_000 if about != n else 0)
    domain, role = f"team{mix(about, 1) % 300}.apps", f"writers-{about}"
    # Nobody is asked to approve their own request.
    member, asked = mix(about, 2) % recipients, mix(n, 3) % (recipients - 1)
    member, asked = f"user.p{member:05d}", f"user.p{asked + (asked >= member):05d}"
    # Ids as producers make them: UUIDs, so that they fall anywhere in an index.
    uuid = hashlib.md5(b"%d" % n).hexdigest()
    head = (
        f'{{"specversion":"1.0","id":"{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:]}",'
        f'"source":"zms/bench","datacontenttype":"application/json","subject":"{domain}:role.{role}/{member}",'
        f'"time":"{stamp(base, us)}",'
    )
    what = f'"data":{{"domain":"{domain}","collection":{{"kind":"role","name":"{role}"}},"member":"{member}",'
    reason = REASON.format(n % 10_000_000)
    expires = stamp(base, us + 86_400_000_000 * (3 + n % 27))
    if place < 12:
        return (
            f'{head}"type":"io.athenz.membership.requested.v1",{what}"change":"add","requester":"{member}",'
            f'"reason":"{reason}","expires_at":"{expires}","recipients":["{asked}"]}}}}'
        )
    if place < 15:
        return (
            f'{head}"type":"io.athenz.membership.decided.v1",{what}"change":"add","requester":"{member}",'
            f'"decision":"approve","actor":"{asked}","reason":"{reason}","recipients":["{member}"]}}}}'
        )
    if place < 18:
        return (
            f'{head}"type":"io.athenz.membership.expiring.v1",{what}"expires_at":"{expires}","notes":"{reason}",'
            f'"recipients":["{asked}"]}}}}'
        )
    return (
        f'{head}"type":"io.athenz.domain.changed.v1","data":{{"domain":"{domain}","object":{{"kind":"role",'
        f'"name":"{role}"}},"api":"putrole","notes":"{reason} and some more text to fill the line up to the others",'
        f'"recipients":["{asked}"]}}}}'
    )


def write_mixed(path, lines, base, recipients):
    """Writes the file; gives what a correct worker makes of it: {events, items, withdrawn}."""
    fresh, requests, decided = 0, set(), set()
    with open(path, "w", buffering=1 << 20) as out:
        for line in range(lines):
            if line % 10 == 9:
                out.write(event(mix(line, 4) % fresh, base, recipients) + "\n")
                continue
            out.write(event(fresh, base, recipients) + "\n")
            if fresh % 20 < 12:
                requests.add(fresh)
            elif fresh % 20 < 15:
                decided.add(decided_request(fresh))
            fresh += 1
    return {"events": fresh, "items": fresh, "withdrawn": len(requests & decided)}


def write_expiries(path, n, base, first_deadline, per_second):
    """One expiring membership for each of `n` people; `per_second` deadlines a second from `first_deadline` on."""
    with open(path, "w", buffering=1 << 20) as out:
        for i in range(n):
            deadline = first_deadline + datetime.timedelta(microseconds=i * 1_000_000 // per_second)
            who = f"user.p{i:07d}"
            out.write(
                f'{{"specversion":"1.0","id":"x{i}","source":"zms/bench","type":"io.athenz.membership.expiring.v1",'
                f'"time":"{stamp(base, i)}","data":{{"domain":"team{i % 300}.apps","collection":{{"kind":"role",'
                f'"name":"writers"}},"member":"{who}","expires_at":"{stamp(deadline.replace(microsecond=0), deadline.microsecond)}","recipients":["{who}"]}}}}\n'
            )
