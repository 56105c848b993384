// list BROKER | produce BROKER TOPIC | consume BROKER GROUP TOPIC SESSION_MILLIS | seek BROKER TOPIC MILLIS; see clients_test.go.
import { createRequire } from 'node:module'
import readline from 'node:readline'
const require = createRequire(process.env.REMIT_CLIENTS + '/package.json')
const { Kafka, Partitioners, logLevel } = require('kafkajs')

const [verb, broker, ...args] = process.argv.slice(2)
const kafka = new Kafka({ clientId: 'kafkajs', brokers: [broker], logLevel: logLevel.ERROR, retry: { retries: 20, initialRetryTime: 50, maxRetryTime: 500 } })

// say writes a line before anything is committed: the process may be killed at any moment.
const say = (partition, m) => process.stdout.write(`${partition}\t${m.offset}\t${m.key}\t${m.value}\n`)

async function list() {
  const admin = kafka.admin()
  await admin.connect()
  for (const t of await admin.listTopics()) console.log(t)
  await admin.disconnect()
}

async function produce(topic) {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, createPartitioner: Partitioners.DefaultPartitioner })
  await producer.connect()
  let messages = []
  const send = async () => {
    if (messages.length) await producer.send({ topic, acks: -1, messages })
    messages = []
  }
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [key, value] = line.split('\t')
    messages.push({ key, value })
    if (messages.length === 100) await send()
  }
  await send()
  await producer.disconnect()
}

async function consume(groupId, topic, session) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: Number(session), heartbeatInterval: 500, rebalanceTimeout: 60000, maxWaitTimeInMs: 200 })
  let ending = false
  const end = async () => {
    if (ending) return
    ending = true
    await consumer.disconnect()
    process.exit(0)
  }
  process.on('SIGTERM', end)
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    eachBatchAutoResolve: false,
    autoCommit: false,
    eachBatch: async ({ batch, resolveOffset, heartbeat, isRunning, isStale }) => {
      let last
      for (const m of batch.messages) {
        if (!isRunning() || isStale()) break
        say(batch.partition, m)
        resolveOffset(m.offset)
        last = m.offset
      }
      if (last !== undefined) {
        await consumer.commitOffsets([{ topic, partition: batch.partition, offset: (BigInt(last) + 1n).toString() }])
      }
      await heartbeat()
    },
  })
}

async function seek(topic, millis) {
  const admin = kafka.admin()
  await admin.connect()
  const from = await admin.fetchTopicOffsetsByTimestamp(topic, Number(millis))
  const ends = await admin.fetchTopicOffsets(topic)
  await admin.disconnect()
  const left = new Map()
  for (const { partition, high } of ends) {
    const at = BigInt(from.find((f) => f.partition === partition).offset)
    if (at < BigInt(high)) left.set(partition, BigInt(high))
  }
  if (left.size === 0) return
  const consumer = kafka.consumer({ groupId: 'kafkajs-seek-' + process.pid, maxWaitTimeInMs: 200 })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  let done
  const finished = new Promise((resolve) => { done = resolve })
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      if (BigInt(message.offset) < BigInt(from.find((f) => f.partition === partition).offset)) return // fetched before the seek took effect
      if (left.has(partition) && BigInt(message.offset) < left.get(partition)) say(partition, message)
      if (left.has(partition) && BigInt(message.offset) + 1n >= left.get(partition)) left.delete(partition)
      if (left.size === 0) done()
    },
  })
  for (const { partition, offset } of from) consumer.seek({ topic, partition, offset })
  await finished
  await consumer.disconnect()
}

await { list, produce, consume, seek }[verb](...args)
