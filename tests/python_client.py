#!/usr/bin/env python3
"""A Fairlock client written from docs/wire-format.md alone, with nothing but the standard library.

It takes a lock, says so on stdout as one JSON line, waits for its stdin to close, and gives the lock back. It is here
to prove that the document is enough to write a client in another language; it is not a library (it keeps no lease
alive while it waits for stdin longer than a fifth of the ttl at a time, and it does not resume).

Usage: python_client.py tcp://HOST:PORT|unix:PATH NAME [--namespace NS] [--wait MS]
       python_client.py --digest KEY_HEX NAMESPACE NAME SHARDS
"""

import json
import os
import select
import socket
import struct
import sys
import time

HEADER = struct.Struct("<IBBHQ")  # length, kind, flags, ack, request
MASK = (1 << 64) - 1
HELLO, OPEN, CLOSE, KEEPALIVE, ACQUIRE, RELEASE = 0x01, 0x02, 0x04, 0x05, 0x10, 0x11
WELCOME, OPENED, CLOSED, ALIVE, GRANTED, RELEASED, REFUSED = 0x81, 0x82, 0x84, 0x85, 0x90, 0x91, 0x9F
FLAG_RENEWED, FLAG_KEPT = 1, 2
FOREVER = 0xFFFFFFFF
EX = 5


def rotate(x, bits):
    return ((x << bits) | (x >> (64 - bits))) & MASK


def siphash128(k0, k1, message):
    """SipHash-2-4 with 128 bits of output, as two 64-bit words."""
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rounds(count):
        for _ in range(count):
            v[0] = (v[0] + v[1]) & MASK
            v[1] = rotate(v[1], 13) ^ v[0]
            v[0] = rotate(v[0], 32)
            v[2] = (v[2] + v[3]) & MASK
            v[3] = rotate(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & MASK
            v[3] = rotate(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & MASK
            v[1] = rotate(v[1], 17) ^ v[2]
            v[2] = rotate(v[2], 32)

    padded = message + b"\0" * (7 - len(message) % 8) + bytes([len(message) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xEE
    rounds(4)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    rounds(4)
    return first, v[0] ^ v[1] ^ v[2] ^ v[3]


def shard_of(key, namespace, name, shards):
    """Which shard owns a name, and the two words of its digest."""
    first, second = siphash128(key[0], key[1], namespace + b"\0" + name)
    return ((first >> 32) * shards) >> 32, first, second


class Refused(Exception):
    """The server said no."""


class Connection:
    """One connection to one shard."""

    def __init__(self, endpoint, shard):
        if endpoint.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(endpoint[5:])
        else:
            host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
            self.socket = socket.create_connection((host.strip("[]"), int(port)))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.kept = 0
        self.next_request = 1
        hello = b"FAIRLOCK" + struct.pack("<HHHHQ16sI", 1, 1, shard, 0, 0, bytes(16), 0)
        self.send(HELLO, hello, request=0)
        kind, _, _, body = self.frame()
        self.expect(kind, body, WELCOME)
        version, self.shard, self.shards, _role = struct.unpack_from("<HHHB", body)
        assert version == 1
        self.key = struct.unpack_from("<QQ", body, 48)

    def send(self, kind, body, request=None):
        if request is None:
            request, self.next_request = self.next_request, self.next_request + 1
        length = HEADER.size + len(body)
        self.socket.sendall(HEADER.pack(length, kind, 0, self.kept & 0xFFFF, request) + body)
        return request

    def frame(self):
        """The next frame: kind, flags, request, body."""
        while True:
            if len(self.received) >= 4:
                (length,) = struct.unpack_from("<I", self.received)
                if len(self.received) >= length:
                    _, kind, flags, _, request = HEADER.unpack_from(self.received)
                    body = self.received[HEADER.size : length]
                    self.received = self.received[length:]
                    if flags & FLAG_KEPT:
                        self.kept += 1
                    return kind, flags, request, body
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError("the server ended the connection")
            self.received += more

    @staticmethod
    def expect(kind, body, wanted):
        if kind == REFUSED:
            code, _, _, length = struct.unpack_from("<HHIH", body)
            raise Refused(f"code {code}: {body[10 : 10 + length].decode()}")
        if kind != wanted:
            raise ConnectionError(f"kind {kind:#x} came where {wanted:#x} was due")

    def call(self, kind, body, wanted):
        """Sends a request and waits for its answer; notices that come meanwhile are passed over."""
        sent = self.send(kind, body)
        while True:
            kind, flags, request, body = self.frame()
            if request == sent:
                self.expect(kind, body, wanted)
                return flags, body


def open_session(connection, ttl_ms, label):
    host = socket.gethostname().encode()[:256]
    texts = [b"", b"", host, b"python_client.py", label]
    body = struct.pack("<IBBI5H", ttl_ms, 0, 0, os.getpid(), *map(len, texts)) + b"".join(texts)
    return connection.call(OPEN, body, OPENED)


def acquire(connection, namespace, name, wait):
    label = b"python"
    fields = struct.pack("<QIIIBBBBHH", 0, wait, 0, 0, EX, 0, 0, len(namespace), len(name), len(label))
    sent_at = connection.send(ACQUIRE, fields + namespace + name + label)
    while True:  # a waiter keeps its lease alive as well
        ready, _, _ = select.select([connection.socket], [], [], 0.5)
        if not ready and not connection.received:
            connection.send(KEEPALIVE, b"")
            continue
        kind, _, request, body = connection.frame()
        if request == sent_at:
            connection.expect(kind, body, GRANTED)
            return struct.unpack_from("<QQQQBB", body)


def main(arguments):
    if arguments[:1] == ["--digest"]:
        key = struct.unpack("<QQ", bytes.fromhex(arguments[1]))
        namespace, name, shards = arguments[2].encode(), arguments[3].encode(), int(arguments[4])
        shard, first, second = shard_of(key, namespace, name, shards)
        print(json.dumps({"shard": shard, "digest": [f"{first:016x}", f"{second:016x}"]}))
        return 0
    endpoint, name = arguments[0], arguments[1].encode("utf-8", "surrogateescape")
    options = dict(zip(arguments[2::2], arguments[3::2]))
    namespace = options.get("--namespace", "default").encode()
    wait = int(options.get("--wait", FOREVER))
    connection = Connection(endpoint, 0xFFFF)
    shard, _, _ = shard_of(connection.key, namespace, name, connection.shards)
    if shard != connection.shard:
        connection.socket.close()
        connection = Connection(endpoint, shard)
    flags, _ = open_session(connection, 5000, b"written from the document")
    assert flags & FLAG_RENEWED
    grant, token, fence, waited_us, mode, _ = acquire(connection, namespace, name, wait)
    granted = {"event": "granted", "token": str(token), "fence": str(fence), "waited_us": waited_us}
    print(json.dumps(granted), flush=True)
    renewed = time.monotonic()
    while not select.select([sys.stdin], [], [], 0.5)[0]:
        if time.monotonic() - renewed > 1:
            flags, _ = connection.call(KEEPALIVE, b"", ALIVE)
            assert flags & FLAG_RENEWED
            renewed = time.monotonic()
    _, body = connection.call(RELEASE, struct.pack("<Q", grant), RELEASED)
    assert struct.unpack("<I", body) == (0,)
    connection.call(CLOSE, b"", CLOSED)
    print(json.dumps({"event": "released"}), flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Refused as refused:
        print(json.dumps({"event": "refused", "why": str(refused)}), flush=True)
        sys.exit(75)
