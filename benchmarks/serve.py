"""The service under load: seconds of a prediction, and of 200 requests a second for a minute.

    python benchmarks/serve.py runs/first
    python benchmarks/serve.py runs/first --rate 100 --seconds 10

First in this process: a request for one question of a group that is known, from its bytes to those
of the response. Then `pluralllm serve` as a process on one core of this machine: requests come when
they are due, whether or not earlier ones are answered, from several loopback addresses (of Linux),
and how long one took counts from when it was due. Beside them, clients send a byte a second, and
others bodies that are too large.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import quantiles

import psutil
from measuring import Results, parse, publish

from pluralllm_app.serve.limits import BODY_BYTES
from pluralllm_app.serve.messages import PredictRequest, decoded, encoded
from pluralllm_app.serve.service import Service
from pluralllm_app.use.predictor import Predictor

ANSWERS = 20
GROUPS = 10
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 10)]  # each within its rate
SLOW, LARGE = 20, 4  # clients of either kind


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("model", type=Path, help="run directory or saved predictor"),
            parser.add_argument("--rate", type=int, default=200, help="requests a second"),
            parser.add_argument("--seconds", type=int, default=60, help="of load"),
            parser.add_argument("--repeats", type=int, default=2000, help="in this process"),
        ),
    )
    predictor = Predictor.from_pretrained(arguments.model)
    bodies = requests(predictor)
    results = in_process(predictor, bodies, arguments.repeats)
    results |= under_load(arguments.model, bodies, arguments.rate, arguments.seconds)
    publish("serve", results, arguments.json)


def requests(predictor: Predictor) -> list[bytes]:
    """Requests of several groups, each for one question that it has not answered."""
    found = []
    for number in range(GROUPS):
        answers = {}
        for question in predictor.questions[:ANSWERS]:
            weights = [1 + (number + place) % 4 for place in range(len(question.options))]
            answers[question.id] = [weight / sum(weights) for weight in weights]
        asked = predictor.questions[ANSWERS + number % (len(predictor.questions) - ANSWERS)]
        found.append(json.dumps({"answers": answers, "questions": [asked.id]}).encode())
    return found


def in_process(predictor: Predictor, bodies: list[bytes], repeats: int) -> Results:
    """Milliseconds of a request, without HTTP."""
    service = Service(predictor)
    times = []
    for number in range(-len(bodies), repeats):
        start = time.perf_counter()
        encoded(service.predict(decoded(bodies[number % len(bodies)], PredictRequest)))
        if number >= 0:  # those before are the first of their groups
            times.append(time.perf_counter() - start)
    return {
        "in this process: predictions a second": len(times) / sum(times),
        **percentiles("in this process", times),
    }


def percentiles(what: str, times: list[float]) -> Results:
    cuts = quantiles(times, n=100)
    return {f"{what}: p50, ms": 1e3 * cuts[49], f"{what}: p99, ms": 1e3 * cuts[98]}


def under_load(model: Path, bodies: list[bytes], rate: int, seconds: int) -> Results:
    """What a service on one core makes of the load."""
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    core = max(os.sched_getaffinity(0))
    process = subprocess.Popen(
        [sys.executable, "-m", "pluralllm_app", "serve", str(model), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | one,
    )
    os.sched_setaffinity(process.pid, {core})
    assert process.stdout
    port = None
    while port is None:
        line = process.stdout.readline()
        assert line, "the service has ended"
        if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
            port = int(found[1])
    try:
        watched = psutil.Process(process.pid)
        before = sum(watched.cpu_times()[:2])
        times, refused = asyncio.run(load(port, bodies, rate, seconds))
        spent = sum(watched.cpu_times()[:2]) - before
        return {
            f"{rate} a second for {seconds} s: answered": len(times),
            f"{rate} a second for {seconds} s: not answered": refused,
            **percentiles(f"{rate} a second for {seconds} s", times),
            f"{rate} a second for {seconds} s: longest, ms": 1e3 * max(times),
            "of the core that was its own, %": 100 * spent / seconds,
            "ms of the core a request": 1e3 * spent / (rate * seconds),
            "MiB of the process afterwards": watched.memory_info().rss / 2**20,
        }
    finally:
        process.terminate()
        process.wait()


async def load(port: int, bodies: list[bytes], rate: int, seconds: int) -> tuple[list[float], int]:
    """Seconds of each request that was answered, and how many were not."""
    idle: dict[str, list[Connection]] = {address: [] for address in ADDRESSES}
    for body in bodies:  # the groups' first requests, which do not count
        await asked(port, idle, ADDRESSES[0], body)
    beside = [asyncio.create_task(slow(port)) for _ in range(SLOW)]
    beside += [asyncio.create_task(large(port)) for _ in range(LARGE)]
    start = time.perf_counter()
    running = []
    for number in range(rate * seconds):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        address = ADDRESSES[number % len(ADDRESSES)]
        request = timed(port, idle, address, bodies[number % len(bodies)], due)
        running.append(asyncio.create_task(request))
    found = await asyncio.gather(*running)
    for task in beside:
        task.cancel()
    times = [each for each in found if each is not None]
    return times, len(found) - len(times)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def timed(
    port: int, idle: dict[str, list[Connection]], address: str, body: bytes, due: float
) -> float | None:
    try:
        status = await asked(port, idle, address, body)
    except (OSError, asyncio.IncompleteReadError):
        return None
    return time.perf_counter() - due if status == 200 else None


async def asked(port: int, idle: dict[str, list[Connection]], address: str, body: bytes) -> int:
    """The status of one request, by a connection of the address that is open, or a new one."""
    reader, writer = idle[address].pop() if idle[address] else await connected(port, address)
    writer.write(head(len(body)) + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    idle[address].append((reader, writer))
    return int(lines[0].split()[1])


async def connected(port: int, address: str) -> Connection:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))


def head(length: int) -> bytes:
    lines = ("POST /predict HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    return "\r\n".join((*lines, f"Content-Length: {length}", "", "")).encode()


async def slow(port: int) -> None:
    """A client that sends a byte of a request's body a second, and begins anew when let go."""
    while True:
        try:
            _, writer = await connected(port, "127.0.0.20")
            writer.write(head(10_000))
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(1)
        except OSError:
            await asyncio.sleep(1)


async def large(port: int) -> None:
    """A client that sends bodies that are too large, one a second."""
    while True:
        try:
            reader, writer = await connected(port, "127.0.0.21")
            writer.write(head(2 * BODY_BYTES) + b" " * 2 * BODY_BYTES)
            await reader.readuntil(b"\r\n\r\n")
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(1)


if __name__ == "__main__":
    main()
