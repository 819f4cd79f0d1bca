#!/usr/bin/env python3
"""A night of the simulator: 100,000 seeds of the log, each of at least 1,000 operations, then one-sided append, groups, whole monitors, and sleepers over RDMA.

    sim/nightly.py [--seeds N] [--first SEED] [--jobs J] [--build FOLDER] [--folder FOLDER] [--again]

Runs rf-sim in pieces of 500 seeds and writes each piece's figures into FOLDER (build/nightly) when it is done; begun again, it
goes on with the first piece that is missing. Another rf-sim than the one that began is another night: it says so and stops,
unless --again, which begins anew. What fails goes on in FOLDER/failures, each with the line that replays it.

Exit status, as of rf-sim: 0 nothing was violated and nothing got stuck, 3 unsafe, 4 stuck, 1 it could not be run.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PIECE = 500
# What is run, its share of --seeds in hundredths (those of the log add up to 100), and its arguments.
PARTS = [
    ("all", 40, "--faults all"),
    ("swarm", 20, "--faults default"),
    ("storm", 25, "--faults storm --ops 1100"),
    ("deposed", 5, "--faults default,depose=95,flap=5,transfer=5,loss=20 --voters 3 --hosts 3 --clients 30"),
    ("leases", 5, "--faults default,link_error=50,partition=10,stall=10 --leases on --hosts 3 --clients 20"),
    ("cut", 5, "--faults none,partition=20,flap=15,isolate=5,loss=20,effect_stall=1,transfer=10,restart=5 --hosts 5 --monitors 5"),
    ("one-sided", 20, "--one-sided --faults all"),
    ("groups", 20, "--groups --faults storm"),
    ("monitors", 2, "--actor monitor --faults default"),
    ("rdma", 10, "--actor rdma --faults storm"),
]
SUMS = ["seeds", "failed", "events", "operations", "unknown", "refused", "reads", "messages", "faults", "crashes", "restarts",
        "elections", "views", "snapshots", "expulsions", "lost_machines", "undecided", "virtual_s", "seconds"]


def pieces(seeds, first):
    for name, share, arguments in PARTS:
        n = max(1, seeds * share // 100)
        for at in range(0, n, PIECE):
            yield f"{name}:{first + at}:{min(PIECE, n - at)}", first + at, min(PIECE, n - at), arguments


def run(program, jobs, seed, n, arguments, failures):
    """The figures of one piece; None: it could not be run."""
    words = [program, "--seed", str(seed), "--seeds", str(n), "--jobs", str(jobs), "--keep-going", "--json", *arguments.split()]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    if ran.stderr:
        with open(failures, "a", encoding="utf-8") as out:
            out.write(f"## {' '.join(words[1:])}\n{ran.stderr}")
    lines = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines and ran.returncode in (0, 3, 4) else None


def summary(results):
    total = {key: 0 for key in SUMS}
    for name, _, arguments in PARTS:
        part = [r for key, r in results.items() if key.startswith(name + ":")]
        if not part:
            continue
        one = {key: sum(r.get(key, 0) for r in part) for key in SUMS}
        for key in SUMS:
            total[key] += one[key]
        print(f"{name:9} {one['seeds']:7} seeds {one['operations']:11} operations {one['events']:13} events "
              f"{one['failed']:4} failed {one['undecided']:3} undecided   {arguments}")
    print(f"{'total':9} {total['seeds']:7} seeds {total['operations']:11} operations {total['events']:13} events "
          f"{total['failed']:4} failed {total['undecided']:3} undecided")
    print(f"{total['faults']} faults, {total['crashes']} crashes, {total['restarts']} restarts, {total['elections']} elections, "
          f"{total['views']} views, {total['snapshots']} snapshots, {total['expulsions']} expulsions, {total['lost_machines']} "
          f"machines lost to a majority's death; {total['virtual_s'] / 3600:.1f} h of virtual time in "
          f"{total['seconds'] / 60:.1f} min, {total['events'] / max(total['seconds'], 1e-9) / 1e6:.2f} M events/s")
    verdicts = {r["verdict"] for r in results.values()}
    return 3 if "unsafe" in verdicts else 4 if "stuck" in verdicts else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100000)
    parser.add_argument("--first", type=int, default=10000000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--build", default=os.path.join(ROOT, "build/release"))
    parser.add_argument("--folder", default=os.path.join(ROOT, "build/nightly"))
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    program = os.path.join(options.build, "bin/rf-sim")
    try:
        with open(program, "rb") as file:
            build = hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        print(f"nightly.py: {program}: {error.strerror}", file=sys.stderr)
        return 1
    os.makedirs(options.folder, exist_ok=True)
    done_path, failures = os.path.join(options.folder, "pieces"), os.path.join(options.folder, "failures")
    if options.again:
        for path in (done_path, failures):
            if os.path.exists(path):
                os.remove(path)
    results = {}
    if os.path.exists(done_path):
        with open(done_path, encoding="utf-8") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except ValueError:  # cut short when it was stopped
                    continue
                if row["build"] != build:
                    print("nightly.py: that night was begun with another rf-sim; --again begins anew", file=sys.stderr)
                    return 1
                results[row["piece"]] = row["result"]
    todo = list(pieces(options.seeds, options.first))
    started, ran = time.monotonic(), 0
    left = sum(n for key, _, n, _ in todo if key not in results)
    for key, seed, n, arguments in todo:
        if key in results:
            continue
        result = run(program, options.jobs, seed, n, arguments, failures)
        if result is None:
            print(f"nightly.py: {key} could not be run, see {failures}", file=sys.stderr)
            return 1
        results[key] = result
        with open(done_path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"piece": key, "build": build, "result": result}) + "\n")
        ran += n
        seconds = time.monotonic() - started
        print(f"{key}: {result['verdict']}, {result['failed']} failed, {result['undecided']} undecided; {ran} of {left} seeds, "
              f"{seconds / 60:.1f} min, {seconds * (left - ran) / ran / 60:.1f} min to go", flush=True)
    return summary({key: results[key] for key, _, _, _ in todo})


if __name__ == "__main__":
    sys.exit(main())
