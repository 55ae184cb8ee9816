"""A gRPC server without generated code: server.py PORT. Messages are bytes."""

import sys
import threading
from concurrent import futures

import grpc

LIMIT = 16 * 1024 * 1024
cancelled = 0
lock = threading.Lock()


def tell_caller(context):
    """Who called, as trailing metadata, with a binary one beside it."""
    seen = dict(context.invocation_metadata())
    context.set_trailing_metadata((
        ("seen-subject", seen.get("x-auth-subject", "nobody")),
        ("blob-bin", bytes(range(256))),
    ))


def unary(request, context):
    context.send_initial_metadata((("opening", "yes"),))
    tell_caller(context)
    return request


def collect(requests, context):
    sizes = [len(request) for request in requests]
    tell_caller(context)
    return f"{len(sizes)} messages, {sum(sizes)} bytes".encode()


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()
    tell_caller(context)


def chat(requests, context):
    for request in requests:
        yield request
    tell_caller(context)


def fail(request, context):
    context.set_trailing_metadata((("reason", "told so"),))
    context.abort(grpc.StatusCode.ABORTED, "100 % aborted, naïvely")


def late_fail(request, context):
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "after one message")


def note_end(context) -> threading.Event:
    ended = threading.Event()

    def end():
        global cancelled
        with lock:
            cancelled += 1
        ended.set()

    context.add_callback(end)
    return ended


def hang(request, context):
    """Never answers; its end can only be a cancellation, of which `cancellations` then tells."""
    note_end(context).wait(60)
    return b""


def tick(request, context):
    ended = note_end(context)
    while not ended.wait(0.02):
        yield b"tick"


def cancellations(request, context):
    with lock:
        return str(cancelled).encode()


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "LateFail": grpc.unary_stream_rpc_method_handler(late_fail),
    "Hang": grpc.unary_unary_rpc_method_handler(hang),
    "Tick": grpc.unary_stream_rpc_method_handler(tick),
    "Cancellations": grpc.unary_unary_rpc_method_handler(cancellations),
}


def main():
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=32),
        options=[("grpc.max_receive_message_length", LIMIT), ("grpc.max_send_message_length", LIMIT),
                 ("grpc.so_reuseport", 0)],
    )
    for service in ("test.Echo", "test.Admin", "test.Open"):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, METHODS),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


main()
