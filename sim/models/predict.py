#!/usr/bin/env python3
"""Compares what the simulator predicts with what is measured: sim/models/predict.py [BUILD_FOLDER [OPTION...]]

Two voters over URPC, one change outstanding. The model is made of two other benches of the same minutes: the bare slot there and
back over the same links, and a commit of three by direct calls, five steps. Nothing is fitted to what is predicted.
OPTIONs go to the benches. Prints predicted, measured and the error; exit status 1 when a bench has no figures.
"""

import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build/release")
SEND = 6  # of a one-way, what it costs the sender, and the receiver; measure.py takes it from the rate


def bench(*words):
    out = subprocess.run([os.path.join(BUILD, "bin/rf-bench"), *words, *sys.argv[2:], "--json"], capture_output=True, text=True,
                         check=False).stdout
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def predict(one_way, step):
    with tempfile.NamedTemporaryFile("w", suffix=".model") as model:
        latency = max(1, round(one_way) - 2 * SEND)
        model.write(f"shape 1 1 2\nedge same-package latency {latency}\nedge same-package send {SEND}\n"
                    f"edge same-package receive {SEND}\nedge same-package gap {SEND}\nstep {step}\npoll 0\n")
        model.flush()
        out = subprocess.run([os.path.join(BUILD, "bin/rf-sim"), "--model", model.name, "--monitors", "2", "--clients", "1",
                              "--ops", "20000", "--json"], capture_output=True, text=True, check=True).stdout
    return json.loads(out)["latency_p50_ns"]


def main():
    try:
        step = next(round(r["p50"] / 5) for r in bench("ordered", "direct") if r.get("replicas") == 3 and r.get("batch") == 1)
        urpc = next(r for r in bench("ordered", "urpc") if r["what"].startswith("urpc, 2 voters") and r.get("batch") == 1)
    except StopIteration:
        print("predict.py: the benches have no figures: ordered direct, ordered urpc", file=sys.stderr)
        return 1
    predicted, measured = predict(urpc["raw_p50"] / 2, step), urpc["p50"]
    print(f"ordered change, 2 voters over URPC ({urpc['placement']}): one way {urpc['raw_p50'] / 2:.0f} ns, step {step} ns: "
          f"predicted {predicted} ns, measured {measured:.0f} ns, error {100 * (predicted - measured) / measured:+.0f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
