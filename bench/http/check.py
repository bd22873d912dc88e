#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Does the HTTP server answer as it should?  Usage: check.py SERVER

Prints TAP. Each style and event loop is started, and talked to by sockets.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b"Hello, world\n"
MANY = 400000


class Server:
    def __init__(self, program: str, style: str, loop: str):
        self.process = subprocess.Popen(
            [program, "--style", style, "--loop", loop],
            stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.port = int(self.process.stdout.readline().split()[-1])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def told(self, number: int) -> dict:
        self.process.send_signal(number)
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())


def receive(connection: socket.socket, answers: int) -> bytes:
    """Until that many bodies have come, or the end."""
    text, seen = b"", 0
    while seen < answers:
        piece = connection.recv(65536)
        if not piece:
            break
        seen += (text[-len(BODY) + 1:] + piece).count(BODY)
        text += piece
    return text


def keeps_alive(server: Server) -> bool:
    with server.connect() as c:
        for _ in range(3):
            c.sendall(GET)
            text = receive(c, 1)
            if not (text.startswith(b"HTTP/1.1 200 OK\r\n")
                    and text.endswith(b"Content-Length: 13\r\n\r\n" + BODY)):
                return False
    return True


def pipelines(server: Server) -> bool:
    with server.connect() as c:
        c.sendall(GET * 100)
        return receive(c, 100).count(BODY) == 100


def takes_pieces(server: Server) -> bool:
    with server.connect() as c:
        for k in range(len(GET)):
            c.sendall(GET[k:k + 1])
        return receive(c, 1).count(BODY) == 1


def takes_bodies(server: Server) -> bool:
    with server.connect() as c:
        c.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
                  + 5000 * b"x" + GET)
        return receive(c, 2).count(BODY) == 2


def closes(server: Server) -> bool:
    with server.connect() as c:
        c.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = receive(c, 2)  # until the end
        return text.count(BODY) == 1 and b"Connection: close" in text


def answers_head(server: Server) -> bool:
    with server.connect() as c:
        c.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = receive(c, 1)
        return text.startswith(b"HTTP/1.1 200") and BODY not in text


def refuses_nonsense(server: Server) -> bool:
    with server.connect() as c:
        c.sendall(b"nonsense\r\n\r\n")
        return receive(c, 1).startswith(b"HTTP/1.1 400")


def waits_to_write(server: Server) -> bool:
    """More answers than the sockets take, and none of them read until the
    server has stopped reading, too, because it waits to write."""
    requests = GET * MANY
    with socket.socket() as c:
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        c.connect(("127.0.0.1", server.port))
        c.settimeout(1)
        sent, waited = 0, False
        try:
            while sent < len(requests):
                sent += c.send(requests[sent:sent + 65536])
        except TimeoutError:
            waited = True
        c.settimeout(60)
        sender = threading.Thread(target=c.sendall, args=(requests[sent:],))
        sender.start()
        got, rest = 0, b""
        while got < MANY and (piece := c.recv(1 << 20)):
            got += (rest + piece).count(BODY)
            rest = (rest + piece)[-len(BODY) + 1:]
        sender.join()
        return waited and got == MANY


def counts(server: Server) -> bool:
    idle = [server.connect() for _ in range(50)]
    for c in idle:
        c.sendall(GET)
        receive(c, 1)
    first = server.told(signal.SIGUSR1)
    idle[0].sendall(GET)
    receive(idle[0], 1)
    second = server.told(signal.SIGUSR1)
    server.idle = idle  # type: ignore[attr-defined]
    return (first["open"] == 50
            and second["requests"] == first["requests"] + 1)


def ends(server: Server) -> bool:
    """With connections that are open and idle."""
    told = server.told(signal.SIGTERM)
    return told["open"] == 50 and server.process.wait(60) == 0


TESTS: list[Callable[[Server], bool]] = [
    keeps_alive, pipelines, takes_pieces, takes_bodies, closes, answers_head,
    refuses_nonsense, waits_to_write, counts, ends]


def main() -> None:
    program = sys.argv[1]
    number = 0
    for style in ("greenlets", "callbacks"):
        for loop in ("epoll", "libevent"):
            probe = subprocess.run([program, "--loop", loop, "--port", "65536"],
                                   capture_output=True, text=True, check=False)
            if "not built" in probe.stderr:
                number += 1
                print(f"ok {number} - {style} {loop} "
                      "# SKIP built without libevent")
                continue
            server = Server(program, style, loop)
            for test in TESTS:
                number += 1
                try:
                    good, words = test(server), ""
                except (OSError, ValueError, AssertionError,
                        subprocess.TimeoutExpired) as error:
                    good, words = False, f"# {type(error).__name__}: {error}"
                print(("ok" if good else "not ok")
                      + f" {number} - {style} {loop} {test.__name__}")
                if words:
                    print(words)
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()
    print(f"1..{number}")


main()
