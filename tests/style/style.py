#!/usr/bin/env python3
"""Style as a test: what a reader of this tree may rely on, checked by reading it.

Every check is a function named check_*; it yields (place, what is wrong and how to mend it). `style.py --list` names them,
`style.py NAME...` runs some. Exceptions stand in tables below, each with its reason, and an exception that nothing needs
any more is an error itself.
"""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# What each folder may include, besides itself (ARCHITECTURE.md, "Folders"). "*": anything.
EDGES = {
    "base": [],
    "wire": ["base"],
    "consensus": ["base"],
    "sim": ["base", "wire", "consensus", "monitor"],
    "transport": ["base"],
    "transport/shm": ["base", "transport"],
    "transport/tcp": ["base", "transport"],
    "transport/sim": ["base", "transport"],
    "transport/path": ["base", "transport", "transport/tcp"],  # control links
    "transport/rdma": ["base", "transport", "transport/path"],
    "transport/dpdk": ["base", "transport", "transport/path", "transport/shm"],  # links to the driver
    "cluster-config": ["base"],
    "cpudriver": ["base", "wire", "transport", "transport/shm"],
    "monitor": ["base", "wire", "consensus", "transport"],
    "node": ["*"],
    "lib": ["base", "wire", "transport"],
    "lab": ["base"],
    "cli": ["base", "transport", "cluster-config", "node"],
    "bench": ["base", "consensus", "transport", "lib"],
    "examples": ["lib"],
    "tests": ["*"],
}

# Single includes beyond those arrows: (file, included): why.
EDGE_EXCEPTIONS = {
    ("monitor/main.c", "transport/shm/shm.h"): "the program names the medium that is linked into it; the rest of monitor/ "
    "finds media by name",
    ("lib/life.c", "transport/shm/shm.h"): "composition, as above",
    ("bench/link.c", "transport/shm/shm.h"): "composition, as above",
    ("bench/agree_hosts.c", "transport/shm/shm.h"): "composition, as above",
    ("bench/flow.c", "transport/dpdk/flow.h"): "measures a flow by itself, without a port",
    ("bench/wire_driver.c", "transport/dpdk/driver/loop.h"): "measures the link driver's own loop",
    ("bench/bounce.c", "transport/dpdk/seal.h"): "measures the link driver, by seal",
    ("bench/shm_pair.h", "transport/shm/shm.h"): "measures that medium itself, down to its ring",
    ("sim/rdma.h", "transport/rdma/sleep.h"): "runs what that medium decides of sleeping, without its devices",
}

# Calls that are not to be made, and what to use.
BANNED = {
    "strcpy": "snprintf",
    "strcat": "snprintf",
    "strncpy": "snprintf",
    "strncat": "snprintf",
    "sprintf": "snprintf",
    "vsprintf": "vsnprintf",
    "gets": "fgets",
    "strtok": "strtok_r",
    "atoi": "strtoul with checks",
    "atol": "strtoul with checks",
    "atof": "strtod with checks",
    "alloca": "a bounded array",
    "system": "posix_spawn or fork and exec",
    "popen": "posix_spawn or fork and exec",
    "rand": "base/prng.h",
    "srand": "base/prng.h",
    "random": "base/prng.h",
    "tmpnam": "mkstemp",
    "mktemp": "mkstemp",
    "usleep": "a wait that something can end (transport/wait.h, poll), or rf_clock_sleep_ms in a loop with an end",
    "sleep": "a wait that something can end (transport/wait.h, poll), or rf_clock_sleep_ms in a loop with an end",
    "ctime": "strftime",
    "asctime": "strftime",
    "localtime": "localtime_r",
    "gmtime": "gmtime_r",
    "inet_ntoa": "inet_ntop",
    "gethostbyname": "getaddrinfo",
    "select": "poll or epoll",
    "signal": "sigaction",
    "setjmp": "return codes",
    "longjmp": "return codes",
    "assert": "rf_assert or rf_debug (base/assert.h)",
}

# Tests may pace themselves, start programs, and read arguments they chose themselves.
BANNED_NOT_IN_TESTS = {"usleep", "sleep", "popen", "system", "atoi", "signal", "setjmp", "longjmp"}

# (file, call): why it may.
BANNED_EXCEPTIONS = {}

FILE_LINES_MAX = 900
FILE_LINES_LONG = 600
FUNCTION_LINES_MAX = 120

SKIP_FOLDERS = {".git", "build", ".cache"}


def tree_files():
    """Every file of the tree that belongs to it: what git knows, or would add."""
    try:
        out = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"], capture_output=True,
                             text=True, check=True).stdout
        names = out.splitlines()
    except (OSError, subprocess.CalledProcessError):
        names = []
        for folder, folders, files in os.walk(ROOT):
            folders[:] = [f for f in folders if f not in SKIP_FOLDERS and not f.startswith("build")]
            names += [os.path.relpath(os.path.join(folder, f), ROOT) for f in files]
    return sorted(n for n in set(names) if os.path.isfile(os.path.join(ROOT, n)))


FILES = tree_files()
C_FILES = [f for f in FILES if f.endswith((".c", ".h"))]
_texts = {}


def text(name):
    if name not in _texts:
        with open(os.path.join(ROOT, name), encoding="utf-8", errors="replace") as file:
            _texts[name] = file.read()
    return _texts[name]


def blank_out(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def code_only(name):
    """The C text with comments and the insides of strings blanked out, line numbers kept."""
    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    return re.sub(pattern, blank_out, text(name), flags=re.S)


def line_of(whole, offset):
    return whole.count("\n", 0, offset) + 1


def folder_of(name):
    """The folder of EDGES in which a file lives."""
    folder = os.path.dirname(name)
    while folder and folder not in EDGES:
        folder = os.path.dirname(folder)
    return folder


def check_include_edges():
    """Includes follow the arrows of ARCHITECTURE.md."""
    used = set()
    for name in C_FILES:
        here = folder_of(name)
        if not here:
            yield name, "is in no folder of ARCHITECTURE.md; put it into one, or add the folder there and here"
            continue
        for match in re.finditer(r'^\s*#\s*include\s+"([^"]+)"', text(name), re.M):
            target = match.group(1)
            there = folder_of(target)
            if not there or target.startswith("rackfish/") or target.endswith(".pb-c.h"):
                continue
            if there == here or "*" in EDGES[here] or there in EDGES[here]:
                continue
            if (name, target) in EDGE_EXCEPTIONS:
                used.add((name, target))
                continue
            yield f"{name}:{line_of(text(name), match.start())}", \
                f"{here}/ may not include {target}; it may include {', '.join(EDGES[here]) or 'libc only'}"
        for match in re.finditer(r'^\s*#\s*include\s+[<"](rackfish(?:/[a-z_]+)?\.h)[>"]', text(name), re.M):
            if here not in ("lib", "examples", "bench", "tests", "cli"):
                yield f"{name}:{line_of(text(name), match.start())}", \
                    f"{here}/ may not include librackfish's {match.group(1)}"
    for exception in sorted(set(EDGE_EXCEPTIONS) - used):
        yield exception[0], f"the exception for {exception[1]} is not needed any more; remove it from style.py"


def check_include_form():
    """Includes name folder and file, so that a reader sees the arrow; only a folder's private header goes without."""
    for name in C_FILES:
        for match in re.finditer(r'^\s*#\s*include\s+"([^"/]+)"', text(name), re.M):
            beside = os.path.join(ROOT, os.path.dirname(name), match.group(1))
            if match.group(1) == "rackfish.h" or match.group(1).endswith(".pb-c.h") or os.path.exists(beside):
                continue
            if not name.startswith("tests/"):  # which may look into a folder's private headers
                yield f"{name}:{line_of(text(name), match.start())}", f'write #include "folder/{match.group(1)}"'


def check_include_guards():
    """Headers have a guard, named after their path."""
    for name in C_FILES:
        if name.endswith(".h") and not re.search(r"^#ifndef (\w+)\n#define \1\n", text(name), re.M):
            yield name, "has no include guard; add #ifndef RF_FOLDER_FILE_H"


def check_banned_calls():
    """No calls that cannot be used safely, or for which base/ has something."""
    used = set()
    pattern = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")
    for name in C_FILES:
        code = code_only(name)
        for match in pattern.finditer(code):
            call = match.group(1)
            if name.startswith("tests/") and call in BANNED_NOT_IN_TESTS:
                continue
            if call == "signal" and re.match(r"\([^;]*SIG_(IGN|DFL)\)", code[match.end() - 1:]):
                continue  # says exactly what it does
            if (name, call) in BANNED_EXCEPTIONS:
                used.add((name, call))
                continue
            yield f"{name}:{line_of(code, match.start())}", f"{call}() is banned; use {BANNED[call]}"
    for exception in sorted(set(BANNED_EXCEPTIONS) - used):
        yield exception[0], f"the exception for {exception[1]} is not needed any more; remove it from style.py"


def check_dead_files():
    """Every source is built, every header included, every script and test file used."""
    build = "\n".join(text(f) for f in FILES if f.endswith("CMakeLists.txt") or f.endswith(".cmake"))
    named = set(re.findall(r"[\w.+-]+\.(?:c|S|sh|py|proto)\b", build))
    # foreach(test channel stream) ... ${test}_test.c
    for variable, items in re.findall(r"foreach\(\s*(\w+)\s+([^)]*)\)", build):
        for before, after in re.findall(r"([\w.-]*)\$\{" + variable + r"\}([\w-]*\.(?:c|S|sh|py))\b", build):
            named |= {before + item + after for item in items.split()}
    included = set()
    for name in FILES:
        if name.endswith((".c", ".h", ".S")):
            for target in re.findall(r'#\s*include\s+[<"]([^">]+)[">]', text(name)):
                included.add(target)
                included.add(os.path.join(os.path.dirname(name), target))
    included_names = {os.path.basename(i) for i in included}
    words = "\n".join(text(f) for f in FILES if not f.endswith((".c", ".h")))
    for name in FILES:
        base = os.path.basename(name)
        if name.endswith((".c", ".S")) and base not in named and base not in included_names:
            yield name, "is in no CMakeLists.txt; add it there or remove it"
        if name.endswith(".proto") and base not in named:
            yield name, "is in no CMakeLists.txt; add it there or remove it"
        if name.endswith(".h"):
            # lib/include/rackfish/x.h is included as rackfish/x.h; anything else by its path from the root
            path = name[len("lib/include/"):] if name.startswith("lib/include/") else name
            if path not in included and not name.endswith("rackfish.h"):
                yield name, "is included nowhere; remove it"
        if name.endswith((".sh", ".py")) and words.count(base) < 2 and base not in named:
            yield name, "is mentioned nowhere; use it or remove it"


def check_format():
    """clang-format agrees."""
    try:
        run = subprocess.run(["clang-format", "--dry-run", "-Werror"] + C_FILES, cwd=ROOT, capture_output=True,
                             text=True)
    except OSError:
        print("style: skipped check_format: clang-format is not installed")
        return
    seen = set()
    for match in re.finditer(r"^(\S+?):(\d+):\d+: error", run.stderr, re.M):
        if match.group(1) not in seen:
            seen.add(match.group(1))
            yield f"{match.group(1)}:{match.group(2)}", "is not formatted; run clang-format -i on it"
    if run.returncode != 0 and not seen:
        yield ".clang-format", f"clang-format failed: {run.stderr.strip().splitlines()[:1]}"


def check_headers_explain():
    """Every C file starts by saying what it is for; a folder's purpose is in its README.md or its header files."""
    for name in C_FILES:
        if name.endswith(".h") and not text(name).lstrip().startswith("/*"):
            yield name, "does not start with a comment that says what it is for"
    folders = {}
    for name in FILES:
        folders.setdefault(os.path.dirname(name), []).append(name)
    for folder, names in sorted(folders.items()):
        if not folder or folder.startswith("."):
            continue
        sources = [n for n in names if n.endswith((".c", ".h", ".py", ".sh", ".proto"))]
        if not sources or any(os.path.basename(n) == "README.md" for n in names):
            continue
        if not any(re.match(r"\s*(/\*|#|//|\"\"\")", text(n)) for n in sources):
            yield folder + "/", "has neither a README.md nor a file that starts with a comment"


def check_leftovers():
    """No notes to self, no code that is switched off."""
    pattern = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|^\s*#\s*if\s+0\b|^\s*//\s*\w+\(.*\);\s*$", re.M)
    for name in FILES:
        if name == "tests/style/style.py" or not name.endswith((".c", ".h", ".S", ".py", ".sh", ".md", ".txt", ".cmake",
                                                                 ".proto", ".yaml")):
            continue
        for match in pattern.finditer(text(name)):
            yield f"{name}:{line_of(text(name), match.start())}", \
                f"'{match.group(0).strip()[:40]}': finish it or remove it"


def check_whitespace():
    """No tabs, no spaces at line ends, a newline at the end of every file."""
    binary = (".png", ".key")
    allowed = ("tests/config/bad/",)  # malformed on purpose
    for name in FILES:
        if name.endswith(binary) or name.startswith(allowed):
            continue
        whole = text(name)
        for number, line in enumerate(whole.split("\n"), 1):
            if "\t" in line:
                yield f"{name}:{number}", "a tab; use spaces"
            elif line != line.rstrip():
                yield f"{name}:{number}", "spaces at the end of the line; remove them"
        if whole and not whole.endswith("\n"):
            yield name, "no newline at its end; add one"


def check_lengths():
    """Files and functions that can be read once."""
    for name in C_FILES:
        lines = text(name).count("\n")
        if lines > FILE_LINES_MAX:
            yield name, f"has {lines} lines, more than {FILE_LINES_MAX}; split it"
        code = code_only(name)
        start = None
        for number, line in enumerate(code.split("\n"), 1):
            if line.startswith("{"):
                start = number
            elif line.startswith("}") and start:
                if number - start > FUNCTION_LINES_MAX and not name.startswith("tests/"):
                    yield f"{name}:{start}", \
                        f"a function of {number - start} lines, more than {FUNCTION_LINES_MAX}; split it"
                start = None


def check_local_paths():
    """Nothing of the place where it was written."""
    pattern = re.compile(r"/(?:home/\w+|root|Users/\w+)/[\w.]+")
    allowed = re.compile(r"^/root/\.ssh|^/home/user/")
    for name in FILES:
        if name == "tests/style/style.py" or name.startswith("tests/config/bad/"):
            continue
        for match in pattern.finditer(text(name)):
            if not allowed.match(match.group(0)):
                yield f"{name}:{line_of(text(name), match.start())}", f"{match.group(0)}: a local path; remove it"


def anchor(title):
    """The anchor that a heading gets."""
    title = re.sub(r"[`*]", "", title.strip().lower())
    return re.sub(r"[^\w\- ]", "", title).replace(" ", "-")


def check_links():
    """Links between documents resolve, and files named in them in `code` exist."""
    for name in FILES:
        if not name.endswith(".md"):
            continue
        whole = re.sub(r"```.*?```", blank_out, text(name), flags=re.S)
        for match in re.finditer(r"\]\(([^)\s]+)\)", whole):
            target = match.group(1)
            if re.match(r"[a-z]+:", target):
                continue
            path, _, fragment = target.partition("#")
            full = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
            if not os.path.exists(os.path.join(ROOT, full)):
                yield f"{name}:{line_of(whole, match.start())}", f"link to {target}: there is no such file"
            elif fragment and full.endswith(".md"):
                headings = re.findall(r"^#+ (.*)$", text(full), re.M)
                if fragment not in {anchor(h) for h in headings}:
                    yield f"{name}:{line_of(whole, match.start())}", f"link to {target}: there is no such heading"
        tops = {f.split("/")[0] for f in FILES if "/" in f}
        for match in re.finditer(r"`((?:[\w.-]+/)+[\w.-]+\.(?:c|h|md|proto|yaml|cmake|sh|py))`", whole):
            path = match.group(1)
            if path.split("/")[0] not in tops:
                continue
            if not os.path.exists(os.path.join(ROOT, path)) and \
               not os.path.exists(os.path.join(ROOT, os.path.dirname(name), path)):
                yield f"{name}:{line_of(whole, match.start())}", f"`{path}`: there is no such file"


def check_executable_scripts():
    """Scripts that start with #! can be started, and bash scripts stop at errors."""
    for name in FILES:
        whole = text(name) if not name.endswith((".png", ".key")) else ""
        if whole.startswith("#!") and not os.access(os.path.join(ROOT, name), os.X_OK):
            yield name, "starts with #! and is not executable; chmod +x"
        if whole.startswith("#!/usr/bin/env bash") and not re.search(r"^set -[a-z]*u", whole, re.M):
            yield name, "does not set -u; add 'set -euo pipefail'"


def report_lengths():
    long_files = sorted(((text(f).count("\n"), f) for f in C_FILES), reverse=True)
    total = sum(n for n, _ in long_files)
    print(f"style: {len(C_FILES)} C files, {total} lines; longest: " +
          ", ".join(f"{f} {n}" for n, f in long_files[:5]))
    for lines, name in long_files:
        if lines > FILE_LINES_LONG:
            print(f"style: note: {name} has {lines} lines; think of splitting it")


def main():
    checks = {n[len("check_"):]: f for n, f in globals().items() if n.startswith("check_")}
    if sys.argv[1:] == ["--list"]:
        for name, check in checks.items():
            print(f"{name:20} {check.__doc__}")
        return 0
    wanted = sys.argv[1:] or list(checks)
    failures = 0
    for name in wanted:
        if name not in checks:
            print(f"style: no check '{name}'; see --list")
            return 2
        for place, what in checks[name]():
            print(f"{place}: {what} [{name}]")
            failures += 1
    if not sys.argv[1:]:
        report_lengths()
    print(f"style: {len(wanted)} checks, {failures} finding(s)")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
