"""A shop that stores orders in SQLite and tells topic "orders" of each through remit: an event is delivered if, and only if, its row is there.

python3 orders.py serve               register with remit, and answer its back-checks
python3 orders.py send ORDER CENTS    store an order, and tell of it
"""
import base64, contextlib, hashlib, hmac, http.server, json, os, signal, sqlite3, sys, time, urllib.request, uuid
REMIT, SECRET = os.environ.get("REMIT_SERVER", "http://127.0.0.1:8080"), os.environ.get("CHECK_SECRET", "")


def database():
    db = sqlite3.connect(os.environ.get("ORDERS_DB", "orders.db"), timeout=5, isolation_level=None)
    db.executescript("""PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
        CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, cents INTEGER NOT NULL);
        CREATE TABLE IF NOT EXISTS decisions (event TEXT PRIMARY KEY, verdict TEXT NOT NULL)""")
    return contextlib.closing(db)


def call(method, path, body={}, kind="application/json"):
    request = urllib.request.Request(REMIT + path, json.dumps(body).encode(), {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def send(order, cents):
    """The whole protocol: the half message, the local transaction, the decision."""
    event = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "/shop", "type": "com.example.order.placed.v1",
             "partitionkey": order, "data": {"order": order, "cents": cents}}
    message = call("POST", "/v1/topics/orders/messages?producer=shop", event, "application/cloudevents+json")
    point("prepared")
    decision, failed = "commit", None
    with database() as db:
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO decisions VALUES (?, 'commit')", [event["id"]])  # fails if a back-check was answered with rollback
            db.execute("INSERT INTO orders VALUES (?, ?)", [order, cents])
            point("open")
            db.execute("COMMIT")
        except sqlite3.Error as err:
            failed = err
            db.rollback()
            decision = verdict(event["id"])
    point("decided")
    try:
        call("POST", f"/v1/messages/{message['id']}/{decision}")
    except OSError as err:
        print(f"{err}; remit will ask", file=sys.stderr)
    if decision != "commit":
        raise failed


def verdict(event):
    """What became of a local transaction, for good. Where there is no row it leaves one that says rollback, so that a local
    transaction which comes late fails on it. One that is open is waited for, and after the timeout this raises."""
    with database() as db:
        db.execute("INSERT INTO decisions VALUES (?, 'rollback') ON CONFLICT DO NOTHING", [event])
        return db.execute("SELECT verdict FROM decisions WHERE event = ?", [event]).fetchone()[0]


def signed(headers, body):
    """Checks a signature of Standard Webhooks, which is no older than five minutes."""
    at = headers.get("webhook-timestamp", "")
    text = f"{headers.get('webhook-id')}.{at}.".encode() + body
    want = b"v1," + base64.b64encode(hmac.digest(base64.b64decode(SECRET.removeprefix("whsec_")), text, hashlib.sha256))
    return at.isdigit() and abs(time.time() - int(at)) < 300 and any(
        hmac.compare_digest(want, got.encode()) for got in headers.get("webhook-signature", "").split(" "))


class Check(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        """Answers a back-check. Only 200 with a verdict is an answer: after anything else, and after an exception here, remit asks again."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not signed(self.headers, body):
            return self.send_error(401)
        data = json.loads(body)["data"]
        if data["producer"] != "shop":
            return self.send_error(421)  # another's: it has no row here, and must not get one
        answer = json.dumps({"verdict": verdict(data["event"]["id"])})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer.encode())


def point(name):
    """Where the test of this page has the script die or wait."""
    if os.environ.get("DIE_AT") == name:
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("WAIT_AT") == name:
        sys.stdin.read(1)


if sys.argv[1] == "send":
    send(sys.argv[2], int(sys.argv[3]))
if sys.argv[1] == "serve":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("CHECK_PORT", "0"))), Check)
    url = f"http://127.0.0.1:{server.server_port}/check"
    again = dict.fromkeys(["firstAfter", "interval"], os.environ.get("CHECK_AFTER", "10s"))
    call("PUT", "/v1/producers/shop", {"check": {"url": url, "secret": SECRET, **again}})
    print(f"answering back-checks at {url}", flush=True)
    server.serve_forever()
