"""paho-mqtt as a device: one scenario against a broker that runs already.

    paho_device.py SCENARIO --version 4|5 --transport tcp|tls|ws|wss --port PORT [--ca FILE]

Ends with status 0 if every step was as it has to be; else says which was not. Nothing waits without a limit.
"""

import argparse
import queue
import socket

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

LIMIT_SECONDS = 20
MIB = bytes(range(256)) * 4_096


class Device:
    """A client whose callbacks become queues, so that a scenario reads from top to bottom."""

    def __init__(self, args, client_id, persistent=False, will=None):
        self.version, self.persistent = args.version, persistent
        v5 = args.version == 5
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if v5 else not persistent,
            protocol=mqtt.MQTTv5 if v5 else mqtt.MQTTv311,
            transport="websockets" if args.transport in ("ws", "wss") else "tcp",
        )
        if args.transport in ("ws", "wss"):
            self.client.ws_set_options(path="/mqtt")
        if args.transport in ("tls", "wss"):
            self.client.tls_set(ca_certs=args.ca)
        if will:
            self.client.will_set(*will)
        self.connected, self.granted, self.taken = queue.Queue(), queue.Queue(), queue.Queue()
        self.messages, self.closed = queue.Queue(), queue.Queue()
        self.client.on_connect = lambda _c, _u, flags, reason, _p: self.connected.put((reason, flags.session_present))
        self.client.on_subscribe = lambda _c, _u, _mid, reasons, _p: self.granted.put(reasons)
        self.client.on_unsubscribe = lambda _c, _u, _mid, reasons, _p: self.granted.put(reasons)
        self.client.on_publish = lambda _c, _u, mid, reason, _p: self.taken.put((mid, reason))
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_disconnect = lambda _c, _u, _flags, reason, _p: self.closed.put(reason)
        self.port = args.port

    def connect(self, session_present=False):
        options = {}
        if self.version == 5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600 if self.persistent else 0
            options = {"clean_start": not self.persistent, "properties": properties}
        self.client.connect("localhost", self.port, keepalive=60, **options)
        self.client.loop_start()
        reason, present = self.connected.get(timeout=LIMIT_SECONDS)
        equal(str(reason), "Success", "the CONNACK's reason")
        equal(present, session_present, "session present")
        return self

    def subscribe(self, topic_filter, qos):
        self.client.subscribe(topic_filter, qos)
        reasons = self.granted.get(timeout=LIMIT_SECONDS)
        equal([r.value for r in reasons], [qos], f"what was granted for {topic_filter}")

    def unsubscribe(self, topic_filter):
        self.client.unsubscribe(topic_filter)
        self.granted.get(timeout=LIMIT_SECONDS)

    def publish(self, topic, payload, qos=0, retain=False):
        info = self.client.publish(topic, payload, qos, retain)
        mid, reason = self.taken.get(timeout=LIMIT_SECONDS)
        equal(mid, info.mid, "the message that was taken")
        true(not reason.is_failure, f"{topic} was taken: {reason}")

    def expect(self, topic, payload, qos=0, retained=False):
        message = self.messages.get(timeout=LIMIT_SECONDS)
        payload = payload if isinstance(payload, bytes) else payload.encode()
        got = (message.topic, message.qos, message.retain, len(message.payload))
        equal(got, (topic, qos, retained, len(payload)), "topic, QoS, retain and size of a message")
        true(message.payload == payload, f"the payload of {topic}")

    def leave(self):
        self.client.disconnect()
        self.closed.get(timeout=LIMIT_SECONDS)
        self.client.loop_stop()

    def be_lost(self):
        """Closes the connection without a DISCONNECT."""
        self.client.loop_stop()
        connection = self.client.socket()
        raw = socket.socket(fileno=socket.dup(connection.fileno()))
        raw.shutdown(socket.SHUT_RDWR)
        raw.close()


def equal(got, wanted, what):
    true(got == wanted, f"{what}: got {got!r}, wanted {wanted!r}")


def true(holds, what):
    if not holds:
        raise SystemExit(f"not as it has to be: {what}")


def wildcards(args):
    sub, pub = Device(args, "sub").connect(), Device(args, "pub").connect()
    sub.subscribe("site/+/temp", 2)
    sub.subscribe("alarm/#", 1)
    for qos in (0, 1, 2):
        pub.publish("site/a/wind", "not asked for", qos)
        pub.publish("site/a/temp", "21", qos)
        sub.expect("site/a/temp", "21", qos)
        pub.publish("alarm", "fire", qos)
        sub.expect("alarm", "fire", min(qos, 1))
    sub.unsubscribe("alarm/#")
    pub.publish("alarm", "unheard", 1)
    pub.publish("site/ü/temp", "end", 1)
    sub.expect("site/ü/temp", "end", 1)
    sub.leave()
    pub.leave()


def retained(args):
    pub = Device(args, "pub").connect()
    for qos in (0, 1, 2):
        pub.publish(f"state/{qos}", "on", qos, retain=True)
    pub.publish("state/1", "", 1, retain=True)
    newcomer = Device(args, "newcomer").connect()
    newcomer.subscribe("state/#", 2)
    got = sorted((m.topic, m.qos, m.retain) for m in (newcomer.messages.get(timeout=LIMIT_SECONDS) for _ in range(2)))
    equal(got, [("state/0", 0, True), ("state/2", 2, True)], "retained messages")
    pub.publish("state/2", "live", 1)
    newcomer.expect("state/2", "live", 1)
    for qos in (0, 2):
        pub.publish(f"state/{qos}", "", 1, retain=True)
    pub.leave()
    newcomer.leave()


def will(args):
    watcher = Device(args, "watcher").connect()
    watcher.subscribe("gone/#", 1)
    Device(args, "leaves", will=("gone/leaves", "lost", 1)).connect().leave()
    Device(args, "is-lost", will=("gone/is-lost", "lost", 1)).connect().be_lost()
    watcher.expect("gone/is-lost", "lost", 1)
    watcher.leave()


def offline(args):
    sleeper = Device(args, "sleeper", persistent=True).connect()
    sleeper.subscribe("cmd/sleeper", 2)
    sleeper.leave()
    pub = Device(args, "pub").connect()
    for n in range(200):
        pub.publish("cmd/sleeper", str(n), 1 + n % 2)
    sleeper = Device(args, "sleeper", persistent=True).connect(session_present=True)
    # paho hands a QoS 2 message on when it is released, so QoS 1 may overtake it: each quality is in order.
    got = {1: [], 2: []}
    for _ in range(200):
        message = sleeper.messages.get(timeout=LIMIT_SECONDS)
        got[message.qos].append(int(message.payload))
    equal(got, {1: list(range(0, 200, 2)), 2: list(range(1, 200, 2))}, "what waited, by QoS")
    sleeper.leave()
    # A clean start ends the session.
    Device(args, "sleeper").connect().leave()
    pub.leave()


def large(args):
    sub, pub = Device(args, "sub").connect(), Device(args, "pub").connect()
    # Over WebSocket paho masks byte by byte in Python, which takes seconds for 10 MiB.
    payload = MIB if args.transport in ("ws", "wss") else 10 * MIB
    for qos in (1, 2):
        sub.subscribe("firmware", qos)
        pub.publish("firmware", payload, qos)
        sub.expect("firmware", payload, qos)
    sub.leave()
    pub.leave()


def shared(args):
    workers = [Device(args, f"worker-{n}").connect() for n in range(3)]
    for worker in workers:
        worker.subscribe("$share/workers/job/#", 1)
        worker.subscribe("end", 1)
    pub = Device(args, "pub").connect()
    for n in range(30):
        pub.publish("job/one", str(n), 1)
    pub.publish("end", "", 1)
    got = []
    for worker in workers:
        messages = iter(lambda w=worker: w.messages.get(timeout=LIMIT_SECONDS).payload, b"")
        got.append([int(payload) for payload in messages])
        worker.leave()
    equal(sorted(sum(got, [])), list(range(30)), "what all of them got together")
    true(all(got), f"each got something: {got}")
    pub.leave()


SCENARIOS = {f.__name__: f for f in (wildcards, retained, will, offline, large, shared)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--version", type=int, choices=(4, 5), required=True)
    parser.add_argument("--transport", choices=("tcp", "tls", "ws", "wss"), required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca")
    arguments = parser.parse_args()
    SCENARIOS[arguments.scenario](arguments)
