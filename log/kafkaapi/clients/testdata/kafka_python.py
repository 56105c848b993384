"""list BROKER | produce BROKER TOPIC | consume BROKER GROUP TOPIC SESSION_MILLIS | seek BROKER TOPIC MILLIS; see clients_test.go."""

import signal
import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

verb, broker, *args = sys.argv[1:]


def say(r):
    print(r.partition, r.offset, r.key.decode(), r.value.decode(), sep="\t", flush=True)


def listing():
    c = KafkaConsumer(bootstrap_servers=broker)
    print(*sorted(c.topics()), sep="\n")
    c.close()


def produce(topic):
    p = KafkaProducer(bootstrap_servers=broker, acks="all", enable_idempotence=True)
    sent = []
    for line in sys.stdin:
        key, value = line.rstrip("\n").split("\t")
        sent.append(p.send(topic, key=key.encode(), value=value.encode()))
    p.flush()
    for s in sent:
        s.get(timeout=60)
    p.close()


def consume(group, topic, session):
    ending = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
    c = KafkaConsumer(
        topic,
        bootstrap_servers=broker,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=int(session),
        heartbeat_interval_ms=500,
        max_poll_records=100,
    )
    while not ending:
        for records in c.poll(timeout_ms=200).values():
            for r in records:
                say(r)
            c.commit()
    c.close()


def seek(topic, millis):
    c = KafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False)
    partitions = [TopicPartition(topic, p) for p in c.partitions_for_topic(topic)]
    c.assign(partitions)
    at = c.offsets_for_times({p: int(millis) for p in partitions})
    ends = c.end_offsets(partitions)
    for p in partitions:
        c.seek(p, at[p].offset if at[p] else ends[p])
    while any(c.position(p) < ends[p] for p in partitions):
        for records in c.poll(timeout_ms=500).values():
            for r in records:
                say(r)
    c.close()


{"list": listing, "produce": produce, "consume": consume, "seek": seek}[verb](*args)
