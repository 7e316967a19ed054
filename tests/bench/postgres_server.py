"""A PostgreSQL server of the benchmark's own: on loopback, durable, gone at the end."""

import contextlib
import json
import os
import pathlib
import pwd
import re
import secrets
import shutil
import subprocess
import threading
import time

USER = "owlpost"
# What a lock may take; longer waits stand in the server's log, each with its length.
LOCK_MS = 10

# Durable as it comes; as much memory as a small machine of a cloud gives. The rest is the distribution's.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "password_encryption": "scram-sha-256",
    "log_lock_waits": "on",
    "deadlock_timeout": f"{LOCK_MS}ms",
    "log_line_prefix": "<%d> ",
    "log_checkpoints": "off",
    "log_autovacuum_min_duration": "-1",
}


def programs():
    """The distribution's newest; it keeps them off the PATH."""
    found = [p for p in pathlib.Path("/usr/lib/postgresql").glob("*/bin") if (p / "postgres").exists()]
    if found:
        return max(found, key=lambda p: int(p.parent.name))
    on_path = shutil.which("postgres")
    return pathlib.Path(on_path).parent if on_path else None


def unprivileged():
    """The server refuses to run as root; then it is run as the user that its package has made."""
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Server:
    def __init__(self, bench, folder, port, child, password, bin_folder):
        self.bench, self.folder, self.port, self.child = bench, folder, port, child
        self.password, self.bin = password, bin_folder

    def url(self, database):
        return f"postgres://{USER}@127.0.0.1:{self.port}/{database}"

    def environment(self):
        return {**os.environ, "PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "10"}

    def psql(self, database, *more):
        return [str(self.bin / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1",
                "-p", str(self.port), "-U", USER, "-d", database, *more]

    def run(self, database, text):
        """Any number of statements; gives what they print."""
        made = subprocess.run(self.psql(database, "-f", "-"), input=text, text=True, capture_output=True,
                              env=self.environment())
        if made.returncode:
            raise self.bench.Failed(f"{database}: psql: {made.stderr.strip()[-500:]}")
        return made.stdout.strip()

    def row(self, database, query):
        """The one row of a query, by its columns' names."""
        return json.loads(self.run(database, f"SELECT row_to_json(one) FROM ({query}) AS one"))

    def number(self, database, query):
        return float(self.run(database, query) or 0)

    def fresh(self, database):
        self.run("postgres", f"DROP DATABASE IF EXISTS {database} WITH (FORCE);\nCREATE DATABASE {database} TEMPLATE template0;")
        return database

    def drop(self, database):
        self.run("postgres", f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    @contextlib.contextmanager
    def old_transaction(self, database):
        """Somebody's transaction that looks at the database as it is now, for as long as it takes."""
        child = subprocess.Popen(self.psql(database), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                 env=self.environment())
        try:
            child.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM meta;\n")
            child.stdin.flush()
            child.stdout.readline()
            yield
        finally:
            child.kill()
            child.wait()

    def median_ms(self, database, query, times=21):
        """As a client sees it that stays connected."""
        told = self.run(database, "\\timing on\n" + f"{query};\n" * times)
        took = sorted(float(ms) for ms in re.findall(r"^Time: ([\d.]+) ms", told, re.M))
        if len(took) != times:
            raise self.bench.Failed(f"psql told {len(took)} times of {times}")
        return took[times // 2]

    def cpu_s(self):
        """Of the server and all its processes, ended ones too."""
        tick, spent = os.sysconf("SC_CLK_TCK"), 0
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                continue
            if int(stat.parent.name) == self.child.pid:
                spent += sum(map(int, fields[11:15]))
            elif int(fields[1]) == self.child.pid:
                spent += int(fields[11]) + int(fields[12])
        return spent / tick

    def transactions(self, database):
        return self.number(database, f"SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{database}'")

    def logged(self):
        return (self.folder / "log").stat().st_size

    def long_lock_waits_ms(self, database, after):
        """Lock waits of more than LOCK_MS that came to their end, of what was logged since then."""
        log = (self.folder / "log").read_bytes()[after:].decode(errors="replace")
        waits = re.findall(rf"^<{database}> LOG:  process \d+ acquired .* after ([\d.]+) ms", log, re.M)
        return [float(ms) for ms in waits]


class LockSampler:
    """Looks twenty times a second at what the connections of a database wait for."""

    EVERY_S = 0.05

    def __init__(self, server, database):
        query = (f"SELECT count(*), count(*) FILTER (WHERE wait_event_type = 'Lock') FROM pg_stat_activity "
                 f"WHERE datname = '{database}' AND state = 'active';\n")
        self.child = subprocess.Popen(server.psql("postgres"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, text=True, env=server.environment())
        self.active = self.waiting = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look, args=(query,), daemon=True)
        self.thread.start()

    def _look(self, query):
        while not self.over.is_set():
            try:
                self.child.stdin.write(query)
                self.child.stdin.flush()
                active, waiting = self.child.stdout.readline().split("|")
            except (OSError, ValueError):
                return
            self.active, self.waiting = self.active + int(active), self.waiting + int(waiting)
            self.over.wait(self.EVERY_S)

    def share(self):
        """Of the connections at work, those that waited for a lock."""
        self.over.set()
        self.thread.join(10)
        self.child.kill()
        self.child.wait()
        return self.waiting / max(self.active, 1)


@contextlib.contextmanager
def server(bench, folder):
    """Started under the folder, stopped and removed at the end."""
    bin_folder = programs()
    if bin_folder is None:
        raise bench.Failed("PostgreSQL is missing; tests/run bench installs it")
    home, who, password = folder / "postgres", unprivileged(), secrets.token_hex(16)
    home.mkdir()
    pwfile = home / "password"
    pwfile.write_text(password)
    if who:
        for path in (home, pwfile):
            os.chown(path, who["user"], who["group"])
    initdb = [bin_folder / "initdb", "-D", home / "data", "-U", USER, "--auth=scram-sha-256", "--pwfile", pwfile,
              "-E", "UTF8", "--locale=C.UTF-8"]
    # Their working folder may be closed to that user.
    made = subprocess.run(initdb, cwd="/", capture_output=True, text=True, **who)
    if made.returncode:
        raise bench.Failed(f"initdb: {made.stderr.strip()[-500:]} (all folders above --dir must be open to its user)")
    port = bench.free_port()
    with open(home / "data" / "postgresql.conf", "a") as out:
        out.writelines(f"{name} = '{value}'\n" for name, value in {**SETTINGS, "port": port}.items())
    with open(home / "log", "wb") as log:
        child = subprocess.Popen([bin_folder / "postgres", "-D", home / "data"], cwd="/", stdin=subprocess.DEVNULL,
                                 stdout=log, stderr=log, **who)
    one = Server(bench, home, port, child, password, bin_folder)
    try:
        by = time.monotonic() + 60
        while True:
            try:
                one.run("postgres", "SELECT 1")
                break
            except bench.Failed:
                if child.poll() is not None or time.monotonic() > by:
                    raise bench.Failed(f"PostgreSQL did not start: {(home / 'log').read_text()[-500:]}") from None
                time.sleep(0.05)
        yield one
    finally:
        # Fast: connections are cut, what is committed is flushed.
        child.send_signal(bench.signal.SIGINT)
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.send_signal(bench.signal.SIGQUIT)
            child.wait()
        shutil.rmtree(home, ignore_errors=True)
