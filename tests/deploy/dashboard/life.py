"""Minutes in the life of a worker, for a picture: events by three ways, a mail server that goes away and comes back."""

import http.server
import json
import math
import random
import threading
import time
import urllib.error
import urllib.request

SOURCE = "picture"
RATE, DAY = 14, 50_000


class Ses(http.server.BaseHTTPRequestHandler):
    """As much of SES as owlpost asks for; `mood` says how it feels. Each call is a connection of its own."""

    mood, taken, recent = "well", 0, []
    lock = threading.Lock()

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        if "/account" not in self.path:
            return self.answer(200, {"IdentityType": "DOMAIN", "VerifiedForSendingStatus": True})
        quota = {"Max24HourSend": DAY, "MaxSendRate": RATE, "SentLast24Hours": Ses.taken + 21_500}
        self.answer(200, {"EnforcementStatus": "HEALTHY", "ProductionAccessEnabled": True,
                          "SendingEnabled": Ses.mood != "paused", "SendQuota": quota})

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        if Ses.mood == "broken":
            return self.answer(503, {"message": "Service Unavailable"})
        if Ses.mood == "paused":
            return self.answer(400, {"__type": "SendingPausedException", "message": "Sending is disabled for this account."})
        with Ses.lock:
            now = time.monotonic()
            Ses.recent = [t for t in Ses.recent if now - t < 1]
            allowed = RATE / 2 if Ses.mood == "strict" else RATE
            if len(Ses.recent) >= allowed:
                return self.answer(429, {"__type": "TooManyRequestsException", "message": "Maximum sending rate exceeded."})
            Ses.recent.append(now)
            Ses.taken += 1
        # Counted when it comes, as SES does; the answer takes its time.
        time.sleep(random.lognormvariate(math.log(0.06), 0.5))
        # Now and then an answer is lost on its way.
        if random.random() < 0.004:
            return None
        self.answer(200, {"MessageId": f"0102-{Ses.taken:08x}"})

    def log_message(self, *_):
        pass


class Account:
    """The endpoint, always at the same port; while it is away, nobody listens there."""

    def __init__(self):
        self.port, self.server = 0, None
        self.feels("well")

    def feels(self, mood):
        """"well", "broken" (it answers that it cannot), "away", "paused" (by AWS), "strict" (it takes half of what it says)."""
        Ses.mood = mood
        if mood == "away":
            self.server.shutdown()
            self.server.server_close()
            self.server = None
        elif self.server is None:
            self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Ses)
            self.port = self.server.server_port
            threading.Thread(target=self.server.serve_forever, daemon=True).start()


def event(n):
    """Nine of ten ask or tell somebody something; some of them ask one who has no address, or wait for a release."""
    chance = random.random()
    kind = "asked" if chance < 0.45 else "held" if chance < 0.47 else "nobody" if chance < 0.49 else "told"
    person = "robots.night" if random.random() < 0.003 else f"user.p{random.randrange(900):03d}"
    now = time.time() - random.expovariate(2)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    return {"specversion": "1.0", "id": str(n), "source": SOURCE, "type": f"com.example.{kind}", "time": stamp,
            "data": {"recipients": [person]}}


def post(url, body, kind="application/cloudevents-batch+json"):
    request = urllib.request.Request(url + "/v1/events", body, {"content-type": kind})
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError as refused:
        refused.close()


def rate(now):
    """Events a second: waves of two minutes, upon which everything else lies."""
    return 7 + 5 * math.sin(now / 120 * 2 * math.pi)
