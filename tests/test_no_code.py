"""Nothing that is read is run: no loader that could, and the deepest nesting ends in a sentence."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_form import ROOT, SOURCES, parsed

# Calls that turn data into code, or data into objects of any class.
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "shelve.open"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads"),
    *("joblib.load", "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads"),
    *("subprocess.getoutput", "subprocess.getstatusoutput"),
}
# Arguments that a call must have as they stand here.
REQUIRED = {
    "np.load": ("allow_pickle", False),
    "np.savez": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
}


def dotted(node: ast.expr) -> str:
    """The name that is called, such as ``yaml.load``."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(path: Path) -> list[ast.Call]:
    """Every call of a file."""
    return [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_call_turns_data_into_code(path: Path) -> None:
    """No eval, no pickle, no unsafe YAML, no shell; arrays and weights are read without pickle."""
    for call in calls(path):
        name, line = dotted(call.func), f"{path.name}:{call.lineno}"
        assert name not in FORBIDDEN, f"{line} {name}"
        given = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
        assert given.get("shell") is not True, line
        if name == "importlib.import_module":
            assert isinstance(call.args[0], ast.Constant), f"{line}: of a name that is read"
        if name in REQUIRED:
            argument, value = REQUIRED[name]
            assert given.get(argument) is value, f"{line} {name} without {argument}={value}"
        if name.startswith("yaml."):
            loaders = [dotted(word.value) for word in call.keywords if word.arg == "Loader"]
            assert loaders in ([], ["yaml.SafeLoader"]), line


def test_no_module_that_runs_what_it_reads_is_imported() -> None:
    """Nor are they there to be called."""
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"} & set(names), path


DEPTHS = """
import sys, threading
from plexus_detect import wire
from plexus_detect.errors import ConfigError, ContractError
from plexus_detect.monitors import parse
from plexus_detect.series import SeriesTable

N = 1_000_000
wholes = [b"[" * N, b'{"a":' * N, b"[" * N + b"]" * N, b'{"a":' * N + b"1" + b"}" * N]
keys = (b"data", b"x", b"query", b"fleet", b"sources", b"monitors")
bodies = [*wholes, *(b'{"%s":%s}' % (key, whole) for key in keys for whole in wholes[2:])]
bodies += [b'{"data":[],"query":%s}' % whole for whole in wholes[2:]]
decoders = [
    wire.decode_fleet_health, wire.decode_sources, wire.decode_metric_names, wire.decode_monitors,
    lambda body: wire.decode_ingest_reply(body, 1),
    lambda body: wire.decode_telemetry(body, SeriesTable()),
]

def all_of_them():
    refused = 0
    for decode in decoders:
        for body in bodies:
            try:
                decode(body)
            except ContractError:
                refused += 1
    for body in wholes:
        try:
            parse(body.decode(), "m.json")
        except ConfigError:
            refused += 1
    return refused

counted = [all_of_them()]
threading.stack_size(512 * 1024)
thread = threading.Thread(target=lambda: counted.append(all_of_them()))
thread.start()
thread.join()
print(*counted)
"""


def test_a_million_levels_do_not_crash_the_interpreter(tmp_path: Path) -> None:
    """A process of its own, as a crash would end it: every decoder, also in a thread with a small stack."""
    done = subprocess.run(
        [sys.executable, "-c", DEPTHS],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    here, in_a_thread = map(int, done.stdout.split())
    assert here == in_a_thread > 80


def test_numpy_refuses_objects(tmp_path: Path) -> None:
    """What we rely on: an array of objects is not read."""
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(tmp_path / "a.npy", allow_pickle=False)
