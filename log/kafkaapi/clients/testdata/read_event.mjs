// BROKER TOPIC: prints the attributes and the data of the first record, as the CloudEvents SDK for JavaScript reads it.
import { createRequire } from 'node:module'
const require = createRequire(process.env.REMIT_CLIENTS + '/package.json')
const { Kafka, logLevel } = require('kafkajs')
const cloudevents = require('cloudevents')

const [broker, topic] = process.argv.slice(2)
const consumer = new Kafka({ brokers: [broker], logLevel: logLevel.ERROR }).consumer({ groupId: 'read-event-' + process.pid, maxWaitTimeInMs: 200 })
await consumer.connect()
await consumer.subscribe({ topic, fromBeginning: true })
const message = await new Promise((resolve) => consumer.run({ eachMessage: async ({ message }) => resolve(message) }))
await consumer.disconnect()
const headers = Object.fromEntries(Object.entries(message.headers).map(([k, v]) => [k, v.toString()]))
const event = cloudevents.Kafka.toEvent({ headers, key: message.key.toString(), value: message.value.toString(), body: message.value.toString() })
const { data, ...attributes } = event.toJSON()
console.log(JSON.stringify({ attributes, data: typeof data === 'string' ? JSON.parse(data) : data }))
