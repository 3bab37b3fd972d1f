"""One contender in a process of its own: waits for "run these requests", answers with the time of each.

Started by :mod:`components.evaluation.benchmark`, as ``python -m components.evaluation.benchmark_worker KIND PATH
REQUESTS``. A fresh process makes the peak memory the contender's own, and an ONNX contender imports no torch, as in
production. Orders and answers are JSON, a line each, on standard input and output.
"""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

WARM_UP = 5
BEST_OF = 10


def main() -> None:
    """Answer orders until standard input ends."""
    kind, path, requests = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    # Whatever a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    tensors = load_file(requests)
    part = "feed" if kind in _FED else "input"
    run = _FED[kind](path) if kind in _FED else _torch(kind, path)
    prepared = {group: _requests(tensors, group, part, kind) for group in ("single", "batch")}
    gc.collect()
    gc.disable()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        chosen = prepared[order["group"]][order["first"] : order["stop"]]
        times = _timed(run, chosen)
        print(json.dumps({"nanoseconds": times, "peak_mib": peak_mib()}), file=answers, flush=True)


def peak_mib() -> float:
    """The most memory this process ever held, in MiB.

    Linux lets ``ru_maxrss`` of a child begin with what its parent held; the high-water mark of the address space
    begins anew with the program.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    kibibytes = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kibibytes / 1024, 1)


def _timed(run: Callable[[Any], object], requests: list[Any]) -> list[int]:
    for request in requests[:WARM_UP]:
        run(request)
    times = []
    for request in requests:
        start = time.perf_counter_ns()
        run(request)
        times.append(time.perf_counter_ns() - start)
    return times


def _onnx(path: Path) -> Callable[[Any], object]:
    from components.evaluation.onnx_session import new_session
    from components.evaluation.searching import item_search_of

    session = new_session(path)
    search = item_search_of(path, session)
    if search is None:
        return lambda feed: session.run(None, feed)

    def found(feed: dict[str, Any]) -> object:
        # What is asked for most, beyond whatever the history may hold.
        history = max((array.shape[1] for array in feed.values() if array.ndim > 1), default=0)
        return search.found(feed, [BEST_OF + history] * len(next(iter(feed.values()))))

    return found


def _openvino(path: Path) -> Callable[[Any], object]:
    from components.compression.openvino_runtime import compiled_folder

    return compiled_folder(path)


def _torch(kind: str, path: Path) -> Callable[[Any], object]:
    import torch

    from components.networks.building import read_network
    from components.networks.ensemble import read_teacher

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    network = (read_teacher if kind == "teacher" else read_network)(path).folded().eval()
    return lambda inputs: network(*inputs)


def _requests(tensors: dict[str, Any], group: str, part: str, kind: str) -> list[Any]:
    """The requests of a group: a feed by input name, for torch the inputs in order."""
    found: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        of_group, number, of_part, key = name.split(".")
        if (of_group, of_part) == (group, part):
            found.setdefault(int(number), {})[key] = tensor
    feeds = [found[number] for number in sorted(found)]
    if kind in _FED:
        return feeds
    import torch

    return [tuple(torch.from_numpy(feed[key]) for key in sorted(feed, key=int)) for feed in feeds]


# Runtimes that take a feed; the others are torch's.
_FED: dict[str, Callable[[Path], Callable[[Any], object]]] = {"onnx": _onnx, "openvino": _openvino}


if __name__ == "__main__":
    main()
