// A shop that stores orders in SQLite and tells topic "orders" of each through remit: an event is delivered if, and only if, its row is there.
//
//   node orders.mjs serve               register with remit, and answer its back-checks
//   node orders.mjs send ORDER CENTS    store an order, and tell of it
import { createHmac, randomUUID, timingSafeEqual } from 'node:crypto'
import { readSync } from 'node:fs'
import { createServer } from 'node:http'

// node:sqlite comes with Node 22.13 and later; better-sqlite3 has the same calls.
const Database = await import('node:sqlite').then((m) => m.DatabaseSync, async () => (await import('better-sqlite3')).default)
const { REMIT_SERVER: remit = 'http://127.0.0.1:8080', CHECK_SECRET: secret, ORDERS_DB = 'orders.db', CHECK_AFTER = '10s' } = process.env

const db = new Database(ORDERS_DB)
db.exec(`PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
  CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, cents INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS decisions (event TEXT PRIMARY KEY, verdict TEXT NOT NULL)`)

async function call(method, path, body = {}, type = 'application/json') {
  const answer = await fetch(remit + path, {
    method, headers: { 'content-type': type }, body: JSON.stringify(body), signal: AbortSignal.timeout(10_000),
  })
  const said = await answer.json()
  if (!answer.ok) throw new Error(`${path}: ${said.code}: ${said.detail}`)
  return said
}

// send is the whole protocol: the half message, the local transaction, the decision.
async function send(order, cents) {
  const event = {
    specversion: '1.0', id: randomUUID(), source: '/shop', type: 'com.example.order.placed.v1', partitionkey: order, data: { order, cents },
  }
  const message = await call('POST', '/v1/topics/orders/messages?producer=shop', event, 'application/cloudevents+json')
  point('prepared')
  let decision = 'commit'
  let failed
  try {
    db.exec('BEGIN IMMEDIATE')
    db.prepare("INSERT INTO decisions VALUES (?, 'commit')").run(event.id) // fails if a back-check was answered with rollback
    db.prepare('INSERT INTO orders VALUES (?, ?)').run(order, cents)
    point('open')
    db.exec('COMMIT')
  } catch (err) {
    failed = err
    try { db.exec('ROLLBACK') } catch {} // there may be nothing to roll back
    decision = verdict(event.id)
  }
  point('decided')
  await call('POST', `/v1/messages/${message.id}/${decision}`).catch((err) => console.error(`${err.message}; remit will ask`))
  if (decision !== 'commit') throw failed
}

// verdict says what became of a local transaction, for good. Where there is no row it leaves one that says rollback, so that a local
// transaction which comes late fails on it. One that is open is waited for, and after busy_timeout this throws.
function verdict(event) {
  db.prepare("INSERT INTO decisions VALUES (?, 'rollback') ON CONFLICT DO NOTHING").run(event)
  return db.prepare('SELECT verdict FROM decisions WHERE event = ?').get(event).verdict
}

// signed checks a signature of Standard Webhooks, which is no older than five minutes.
function signed(headers, body) {
  const { 'webhook-id': id, 'webhook-timestamp': at, 'webhook-signature': signatures = '' } = headers
  const key = Buffer.from(secret.replace('whsec_', ''), 'base64')
  const want = createHmac('sha256', key).update(`${id}.${at}.`).update(body).digest()
  const right = (got) => got.length === want.length && timingSafeEqual(got, want)
  return Math.abs(Date.now() / 1000 - at) < 300 && signatures.split(' ').some((s) => right(Buffer.from(s.replace('v1,', ''), 'base64')))
}

// check answers a back-check. Only 200 with a verdict is an answer: after anything else remit asks again.
async function check(request, response) {
  try {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    const body = Buffer.concat(chunks)
    if (!signed(request.headers, body)) return response.writeHead(401).end()
    const { producer, event } = JSON.parse(body).data
    if (producer !== 'shop') return response.writeHead(421).end() // another's: it has no row here, and must not get one
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ verdict: verdict(event.id) }))
  } catch (err) {
    response.writeHead(503).end(String(err))
  }
}

// point is where the test of this page has the script die or wait.
function point(name) {
  if (process.env.DIE_AT === name) process.kill(process.pid, 'SIGKILL')
  if (process.env.WAIT_AT === name) readSync(0, Buffer.alloc(1))
}

const [command, ...args] = process.argv.slice(2)
if (command === 'send') await send(args[0], Number(args[1]))
if (command === 'serve') {
  const server = createServer(check).listen(Number(process.env.CHECK_PORT ?? 0), '127.0.0.1', async () => {
    const url = `http://127.0.0.1:${server.address().port}/check`
    await call('PUT', '/v1/producers/shop', { check: { url, secret, firstAfter: CHECK_AFTER, interval: CHECK_AFTER } })
    console.log(`answering back-checks at ${url}`)
  })
}
