"""Many clients at once against `flipnet serve` on this machine: does each get its own picture back?

    python benchmarks/web_load.py --clients 50 --seconds 300

Starts a server of its own with the default limits. Every client uploads scikit-image's astronaut with a random
number painted below the face, lets its face be restored, downloads the result and reads the number back; the
pixels outside the face must be the upload's to the bit. A full queue answers with HTTP 503, which counts as
refused; the client waits a second and goes on. Prints one JSON object; exit code 1 if a client got a wrong
picture, something failed, or the server does not answer in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import skimage.data
from PIL import Image

SIZE_PX = 192
CODE_BITS = 32
BLOCK_PX = SIZE_PX // CODE_BITS
WAIT_S = 1.0


def coded_photo(code: int) -> np.ndarray:
    """A face with `code` as black and white blocks along the lower edge, uint8 (SIZE_PX, SIZE_PX, 3)."""
    head = Image.fromarray(skimage.data.astronaut()[:256, 100:356]).resize((SIZE_PX, SIZE_PX))
    pixels = np.array(head)
    bits = np.array([code >> i & 1 for i in range(CODE_BITS)], np.uint8) * 255
    pixels[-BLOCK_PX:] = bits.repeat(BLOCK_PX)[None, :, None]
    return pixels


def code_of(pixels: np.ndarray) -> int:
    """Read the number back."""
    blocks = pixels[-BLOCK_PX // 2, BLOCK_PX // 2 :: BLOCK_PX, 0] > 127
    return sum(int(bit) << i for i, bit in enumerate(blocks))


async def restored(client: httpx.AsyncClient, pixels: np.ndarray, name: str) -> np.ndarray | None:
    """Upload, restore and download as a browser would; None if the queue is full."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    upload = await client.post("/gradio_api/upload", files={"files": (name, buffer.getvalue())})
    upload.raise_for_status()
    photo = {"path": upload.json()[0], "meta": {"_type": "gradio.FileData"}}
    call = await client.post("/gradio_api/call/restore", json={"data": [photo, "all", 1, 1, 0, 0, 1]})
    if call.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return None
    call.raise_for_status()
    events = (await client.get(f"/gradio_api/call/restore/{call.json()['event_id']}")).text
    event, _, data = events.strip().rpartition("\n\n")[2].partition("\ndata: ")
    if event != "event: complete":
        raise RuntimeError(f"{event}: {data}")
    result = await client.get(f"/gradio_api/file={json.loads(data)[2]['path']}")
    result.raise_for_status()
    return np.array(Image.open(io.BytesIO(result.content)))


async def visit(url: str, number: int, until: float, counts: Counter[str], errors: list[str]) -> None:
    """Be one client until the time is over; count what happened."""
    draw = random.Random(number)
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        while time.monotonic() < until:
            code = draw.getrandbits(CODE_BITS)
            pixels = coded_photo(code)
            try:
                result = await restored(client, pixels, f"client{number}.png")
            except (httpx.HTTPError, RuntimeError, OSError, ValueError) as error:
                counts["failed"] += 1
                errors.append(f"{type(error).__name__}: {error}")
                continue
            if result is None:
                counts["refused"] += 1
                await asyncio.sleep(WAIT_S)
                continue
            changed = (result != pixels).any(2)
            untouched = not changed[-BLOCK_PX:].any() and changed.any()
            counts["right" if code_of(result) == code and untouched else "wrong"] += 1


async def watch_memory(pid: int, until: float, samples: list[tuple[float, float]]) -> None:
    """Note the server's resident memory, (seconds, MiB), every two seconds."""
    started = time.monotonic()
    while time.monotonic() < until:
        status = Path(f"/proc/{pid}/status").read_text()
        kib = int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]
        samples.append((time.monotonic() - started, kib / 1024))
        await asyncio.sleep(2)


async def load(url: str, pid: int, clients: int, seconds: float) -> dict[str, Any]:
    """Run all clients and return the figures."""
    counts: Counter[str] = Counter(right=0, wrong=0, refused=0, failed=0)
    errors: list[str] = []
    samples: list[tuple[float, float]] = []
    until = time.monotonic() + seconds
    visits = [visit(url, number, until, counts, errors) for number in range(clients)]
    await asyncio.gather(watch_memory(pid, until, samples), *visits)
    started = time.monotonic()
    answer = httpx.get(url, timeout=60)
    # The first third warms caches up; what grows after that would go on growing.
    late = np.array(samples[len(samples) // 3 :])
    slope = np.polyfit(late[:, 0] / 60, late[:, 1], 1)[0] if len(late) > 2 else float("nan")
    return {
        "clients": clients, "seconds": seconds, **counts,
        "memory_mib": [round(mib) for _, mib in samples[:: max(1, len(samples) // 10)]],
        "memory_peak_mib": round(max(mib for _, mib in samples)),
        "memory_slope_mib_per_minute": round(float(slope), 2),
        "answers_afterwards": answer.status_code == httpx.codes.OK,
        "answer_seconds": round(time.monotonic() - started, 3),
        "errors": sorted(set(errors))[:5],
    }  # fmt: skip


def main() -> int:
    """Start the server, load it, stop it, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--max-queue", type=int, default=16)
    asked = parser.parse_args()
    command = [sys.executable, "-m", "flipnet", "serve", "--port", "0", "--model", asked.model]
    command += ["--max-queue", str(asked.max_queue)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"http://\S+", server.stdout.readline())
            if address is None:
                return 1
            figures = asyncio.run(load(address[0], server.pid, asked.clients, asked.seconds))
        finally:
            server.terminate()
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return int(figures["wrong"] > 0 or figures["failed"] > 0 or not figures["answers_afterwards"])


if __name__ == "__main__":
    sys.exit(main())
