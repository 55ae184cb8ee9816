"""Calls the server through the gateway: client.py ADDRESS TOKEN OTHER_TOKEN. Prints `ok NAME` or `FAIL NAME: why`.

TOKEN is alice's and has no role. OTHER_TOKEN is a second one, which is logged out on the way.
"""

import contextlib
import itertools
import os
import queue
import sys
import time
import urllib.request

import grpc

ADDRESS, TOKEN, OTHER_TOKEN = sys.argv[1:4]
LIMIT = 16 * 1024 * 1024
BIG = os.urandom(4 * 1024 * 1024)
PATIENCE = 20
CASES = []

channel = grpc.insecure_channel(ADDRESS, options=[
    ("grpc.max_receive_message_length", LIMIT),
    ("grpc.max_send_message_length", LIMIT),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
])


def case(function):
    CASES.append(function)
    return function


def bearer(token=TOKEN):
    return (("authorization", f"Bearer {token}"),)


def method(kind, path):
    return getattr(channel, kind)(path)


def options(**changed):
    return {"metadata": bearer(), "timeout": PATIENCE} | changed


def same(seen, wanted):
    assert seen == wanted, f"{seen!r}, not {wanted!r}"


def check_trailers(call):
    trailers = dict(call.trailing_metadata())
    same(trailers.get("seen-subject"), "alice")
    same(trailers.get("blob-bin"), bytes(range(256)))


def refused(code, run):
    """That it fails so; returns the error."""
    try:
        run()
    except grpc.RpcError as error:
        same(error.code(), code)
        return error
    raise AssertionError(f"it succeeded, and should have been {code}")


def cancellations():
    return int(method("unary_unary", "/test.Echo/Cancellations")(b"", **options()))


def await_cancellation(before):
    deadline = time.monotonic() + 5
    while cancellations() == before:
        assert time.monotonic() < deadline, "the server never saw the cancellation"
        time.sleep(0.02)


@case
def unary():
    answer, call = method("unary_unary", "/test.Echo/Unary").with_call(b"hello", **options())
    same(answer, b"hello")
    same(dict(call.initial_metadata()).get("opening"), "yes")
    check_trailers(call)


@case
def empty_message():
    same(method("unary_unary", "/test.Echo/Unary")(b"", **options()), b"")


@case
def client_stream():
    parts = (b"x" * 1000 for _ in range(500))
    answer, call = method("stream_unary", "/test.Echo/Collect").with_call(parts, **options())
    same(answer, b"500 messages, 500000 bytes")
    check_trailers(call)


@case
def server_stream():
    call = method("unary_stream", "/test.Echo/Count")(b"2000", **options())
    same(list(call), [str(number).encode() for number in range(2000)])
    check_trailers(call)


@case
def no_message_at_all():
    call = method("unary_stream", "/test.Echo/Count")(b"0", **options())
    same(list(call), [])
    check_trailers(call)


@case
def bidi_stream():
    sent = [f"message {number}".encode() for number in range(500)]
    call = method("stream_stream", "/test.Echo/Chat")(iter(sent), **options())
    same(list(call), sent)
    check_trailers(call)


@case
def bidi_in_lockstep():
    """Each message waits for the echo of the one before: nothing may be held back."""
    questions = queue.Queue()
    call = method("stream_stream", "/test.Echo/Chat")(iter(questions.get, None), **options())
    for number in range(30):
        questions.put(str(number).encode())
        same(next(call), str(number).encode())
    questions.put(None)
    same(list(call), [])
    check_trailers(call)


@case
def four_megabytes_both_ways():
    same(method("unary_unary", "/test.Echo/Unary")(BIG, **options()) == BIG, True)
    echoed = method("stream_stream", "/test.Echo/Chat")(iter([BIG, BIG, BIG]), **options())
    same([message == BIG for message in echoed], [True, True, True])


@case
def a_hundred_at_once():
    calls = [method("unary_unary", "/test.Echo/Unary").future(str(number).encode(), **options())
             for number in range(100)]
    same([call.result() for call in calls], [str(number).encode() for number in range(100)])


@case
def error_of_the_server():
    error = refused(grpc.StatusCode.ABORTED, lambda: method("unary_unary", "/test.Echo/Fail")(b"", **options()))
    same(error.details(), "100 % aborted, naïvely")
    same(dict(error.trailing_metadata()).get("reason"), "told so")


@case
def error_after_a_message():
    call = method("unary_stream", "/test.Echo/LateFail")(b"", **options())
    same(next(call), b"one")
    error = refused(grpc.StatusCode.DATA_LOSS, lambda: next(call))
    same(error.details(), "after one message")


@case
def deadline():
    before = cancellations()
    refused(grpc.StatusCode.DEADLINE_EXCEEDED,
            lambda: method("unary_unary", "/test.Echo/Hang")(b"", **options(timeout=0.4)))
    await_cancellation(before)


@case
def cancellation():
    before = cancellations()
    call = method("unary_stream", "/test.Echo/Tick")(b"", **options())
    same(list(itertools.islice(call, 3)), [b"tick"] * 3)
    call.cancel()
    refused(grpc.StatusCode.CANCELLED, lambda: list(call))
    await_cancellation(before)


@case
def unknown_method():
    refused(grpc.StatusCode.UNIMPLEMENTED, lambda: method("unary_unary", "/test.Echo/Nothing")(b"", **options()))


@case
def without_token():
    for kind, path in [("unary_unary", "/test.Echo/Unary"), ("unary_stream", "/test.Echo/Count")]:
        def run(kind=kind, path=path):
            answer = method(kind, path)(b"1", timeout=PATIENCE)
            return answer if kind == "unary_unary" else list(answer)
        error = refused(grpc.StatusCode.UNAUTHENTICATED, run)
        assert error.details(), "no text"
        same(dict(error.trailing_metadata() or ()).get("portcullis-error")
             or dict(error.initial_metadata() or ()).get("portcullis-error"), "token_missing")


@case
def without_token_while_streaming():
    endless = (b"x" * 1000 for _ in itertools.count())
    refused(grpc.StatusCode.UNAUTHENTICATED,
            lambda: method("stream_unary", "/test.Echo/Collect")(endless, timeout=PATIENCE))


@case
def bad_token():
    refused(grpc.StatusCode.UNAUTHENTICATED,
            lambda: method("unary_unary", "/test.Echo/Unary")(b"", **options(metadata=bearer("a.b.c"))))


@case
def wrong_role():
    refused(grpc.StatusCode.PERMISSION_DENIED, lambda: method("unary_unary", "/test.Admin/Unary")(b"", **options()))


@case
def no_route():
    refused(grpc.StatusCode.UNIMPLEMENTED, lambda: method("unary_unary", "/test.Nowhere/Unary")(b"", **options()))


@case
def server_down():
    refused(grpc.StatusCode.UNAVAILABLE, lambda: method("unary_unary", "/test.Gone/Unary")(b"", **options()))


@case
def public_without_token():
    _, call = method("unary_unary", "/test.Open/Unary").with_call(b"x", timeout=PATIENCE)
    same(dict(call.trailing_metadata()).get("seen-subject"), "nobody")


@case
def logout_ends_a_stream():
    before = cancellations()
    call = method("unary_stream", "/test.Echo/Tick")(b"", **options(metadata=bearer(OTHER_TOKEN)))
    next(call)
    logout = urllib.request.Request(f"http://{ADDRESS}/logout/access", method="POST",
                                    headers={"Authorization": f"Bearer {OTHER_TOKEN}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(logout, timeout=PATIENCE) as answer:
        same(answer.status, 200)
    begin = time.monotonic()
    with contextlib.suppress(grpc.RpcError):
        for _ in call:
            pass
        raise AssertionError("the stream ended as if it were complete")
    assert time.monotonic() - begin < 1.5, f"it took {time.monotonic() - begin:.2f} s"
    await_cancellation(before)


def main():
    wanted = sys.argv[4:]
    for function in CASES:
        name = function.__name__
        if wanted and name not in wanted:
            continue
        try:
            function()
            print(f"ok {name}", flush=True)
        except Exception as why:  # Whatever it is, the test wants to know.
            told = f"{why.code()} {why.details()}" if isinstance(why, grpc.RpcError) else f"{type(why).__name__} {why}"
            print(f"FAIL {name}: {told}"[:500], flush=True)
    channel.close()


main()
