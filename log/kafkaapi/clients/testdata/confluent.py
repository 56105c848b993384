"""list BROKER | produce BROKER TOPIC | consume BROKER GROUP TOPIC SESSION_MILLIS | seek BROKER TOPIC MILLIS; see clients_test.go."""

import signal
import sys

from confluent_kafka import OFFSET_END, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

verb, broker, *args = sys.argv[1:]
base = {"bootstrap.servers": broker}


def say(r):
    print(r.partition(), r.offset(), r.key().decode(), r.value().decode(), sep="\t", flush=True)


def listing():
    print(*sorted(AdminClient(base).list_topics(timeout=60).topics), sep="\n")


def produce(topic):
    failed = []
    p = Producer({**base, "enable.idempotence": True, "partitioner": "murmur2_random"})
    for line in sys.stdin:
        key, value = line.rstrip("\n").split("\t")
        p.produce(topic, key=key, value=value, on_delivery=lambda err, _: err and failed.append(err))
        p.poll(0)
    left = p.flush(60)
    if left or failed:
        sys.exit(f"{left} not delivered, failed: {failed[:3]}")


def consume(group, topic, session):
    ending = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
    c = Consumer(
        {
            **base,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": int(session),
            "heartbeat.interval.ms": 500,
        }
    )
    c.subscribe([topic])
    while not ending:
        records = [r for r in c.consume(100, timeout=0.2) if not r.error()]
        for r in records:
            say(r)
        if records:
            try:
                c.commit(asynchronous=False)
            except KafkaException as e:
                print(e, file=sys.stderr)
    c.close()


def seek(topic, millis):
    c = Consumer({**base, "group.id": "confluent-seek", "enable.auto.commit": False})
    partitions = [TopicPartition(topic, p, int(millis)) for p in c.list_topics(topic).topics[topic].partitions]
    ends = {p.partition: c.get_watermark_offsets(p)[1] for p in partitions}
    at = c.offsets_for_times(partitions, timeout=60)
    left = {p.partition for p in at if p.offset != OFFSET_END and 0 <= p.offset < ends[p.partition]}
    c.assign(at)
    while left:
        for r in c.consume(100, timeout=0.5):
            if r.error():
                continue
            if r.offset() < ends[r.partition()]:
                say(r)
            if r.offset() + 1 >= ends[r.partition()]:
                left.discard(r.partition())
    c.close()


{"list": listing, "produce": produce, "consume": consume, "seek": seek}[verb](*args)
