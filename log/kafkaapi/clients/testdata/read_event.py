"""BROKER TOPIC: prints the attributes and the data of the first record, as the CloudEvents SDK for Python reads it."""

import json
import sys

from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event
from kafka import KafkaConsumer

broker, topic = sys.argv[1:]
c = KafkaConsumer(topic, bootstrap_servers=broker, auto_offset_reset="earliest", enable_auto_commit=False)
r = next(c)
e = from_kafka_event(KafkaMessage(headers=dict(r.headers), key=r.key, value=r.value))
print(json.dumps({"attributes": e.get_attributes(), "data": e.get_data()}, default=str))
