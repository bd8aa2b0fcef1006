"""The world around a host, in a network namespace of its own: servers, metadata, a nameserver.

`python -m tests.isolation.far CERTIFICATE KEY`; it prints each name or datagram."""

import ipaddress
import os
import selectors
import socket
import ssl
import sys
import threading

from funcrt.sandbox.dns import NO_SUCH_NAME, Question, reply

NAMES = {
    "api.test": "11.1.1.2", "a.wild.test": "11.1.1.2", "evil.test": "169.254.169.254",
    "near.test": "127.0.0.1", "other.test": "11.1.1.3",
}  # fmt: skip


def answer(sock: socket.socket) -> None:
    with sock:
        try:
            sock.recv(1000)
            text = f"from {sock.getsockname()[0]}".encode()
            sock.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
        except OSError:
            pass


def serve(port: int, context: ssl.SSLContext | None = None) -> None:
    listener = socket.create_server(("0.0.0.0", port), backlog=512)
    while True:
        sock, _ = listener.accept()
        if context is not None:
            try:
                sock = context.wrap_socket(sock, server_side=True)
            except OSError:
                continue
        threading.Thread(target=answer, args=[sock], daemon=True).start()


def main() -> None:
    print("there", flush=True)
    sys.stdin.readline()  # its addresses are made
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    for port, held in ((8080, None), (8082, None), (8443, context)):
        threading.Thread(target=serve, args=[port, held], daemon=True).start()
    full = socket.socket()  # its queue is full: who connects waits
    full.bind(("0.0.0.0", 8081))
    full.listen(0)
    kept = [socket.socket() for _ in range(3)]
    for sock in kept:
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", 8081))
    still = socket.create_server(("0.0.0.0", 8083))  # who is accepted by nobody, is read by nobody
    names, sink = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    names.bind(("11.1.1.2", 53))
    sink.bind(("0.0.0.0", 9999))
    selector = selectors.DefaultSelector()
    selector.register(names, selectors.EVENT_READ)
    selector.register(sink, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                still.close()
                return  # whoever started it has closed it
            if key.fileobj is sink:
                print("datagram", sink.recv(100), flush=True)
                continue
            packet, client = names.recvfrom(4096)
            question = Question.of(packet)
            if question is None:
                continue
            print("asked", question.name, flush=True)
            found = NAMES.get(question.name)
            if found is None:
                names.sendto(reply(question, error=NO_SUCH_NAME), client)
            else:
                names.sendto(reply(question, [ipaddress.ip_address(found)]), client)


if __name__ == "__main__":
    main()
    os._exit(0)
