#!/usr/bin/env python3
"""Makes a cost model of this machine out of `rackfish bench`: sim/models/measure.py [BUILD_FOLDER [OPTION...]] > FILE.model

One host whose cores are all in one package, as the bench sees them: two cores that it chooses for URPC, and loopback TCP
for the edge between hosts. Needs a minute; more where other programs keep the cores busy, unless the options, which go to
every bench, are such as --tries 1 --samples 20.
"""

import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BENCH = os.path.join(sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build/release"), "bin/rf-bench")


def bench_all(*words):
    """The results of one bench."""
    out = subprocess.run([BENCH, *words, *sys.argv[2:], "--json"], capture_output=True, text=True, check=False).stdout
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def bench(*words):
    """The same, by what they measure."""
    return {r["what"]: r for r in bench_all(*words)}


def nanoseconds(result, key):
    scale = {"ns": 1, "us": 1000, "ms": 1000000}[result["unit"]]
    return max(1, round(result[key] * scale))


def distribution(result, less):
    values = [nanoseconds(result, k) for k in ("min", "p50", "p90", "p99", "p99_9", "max")]
    return " ".join(str(max(1, v - less)) for v in values)


def cpu_model():
    """The CPU's name, as the kernel has it."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), os.uname().machine)


def gaps(rate):
    """From one message to the next, out of millions a second in each sample: the least, the middle and the most are known."""
    low, middle, high = (max(1, round(1000 / rate[key])) for key in ("max", "p50", "min"))
    return f"{low} {middle} {middle} {middle} {middle} {high}"


def find(results, word, unit=None):
    for what, result in results.items():
        if word in what and (unit is None or result["unit"] in unit):
            return result
    sys.exit(f"measure.py: the bench has no result \"{word}\"; it has: {', '.join(results) or 'none'}")


def main():
    times = ("ns", "us", "ms")
    urpc = bench("urpc", "--slots", "64", "one-way")
    one_way = find(urpc, "one way", times) if any("one way" in w for w in urpc) else find(urpc, "one-way", times)
    rate = find(bench("urpc", "--slots", "64", "--batch", "64", "rate"), "", ("M/s",))
    tcp = bench("link", "--transport", "tcp", "one-way")
    between = find(tcp, "one", times)
    # A commit of three by direct calls is five steps: the proposal, two entries taken, two acknowledgements.
    direct = bench_all("ordered", "direct")
    step = next(max(1, round(r["p50"] / 5)) for r in direct if r.get("replicas") == 3 and r.get("batch") == 1)
    poll = bench("poll")
    looked = find(poll, "look", ("ns",))  # at all links of the last piece, the one with the most
    look = max(1, round(looked["p50"] / looked["links"]))
    gap = max(1, round(1000 / rate["p50"]))
    print("# Made by sim/models/measure.py out of `rackfish bench`: urpc, link (loopback TCP), ordered direct and poll.")
    print(f"machine {cpu_model()}, {os.cpu_count()} CPUs, {os.uname().machine}, Linux {os.uname().release.split('-')[0]}")
    print(f"shape 2 1 {max(2, os.cpu_count() or 2)}")
    print(f"edge same-package latency {distribution(one_way, 2 * gap)}")
    for what in ("send", "receive", "gap"):
        print(f"edge same-package {what} {gaps(rate)}")
    print(f"edge other-host latency {distribution(between, 2000)}")
    print("edge other-host send 1000")
    print("edge other-host receive 1000")
    print("edge other-host gap 1000")
    print(f"step {step}")
    print(f"poll {look}")


if __name__ == "__main__":
    main()
