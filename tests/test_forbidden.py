"""What the tree never does, with the few places that may and why: each would run somebody's input as code.

It looks at the syntax and not at the text, so that comments may name what they warn of. A place that is let
through stands here by file and name, and one that is no longer needed fails too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    path
    for package in ("broker", "client", "common", "edge", "workers", "bench", "examples", "requirements")
    for path in sorted((ROOT / package).rglob("*.py"))
]
MODULES: Final = {
    "pickle": "makes any object that its input names",
    "cPickle": "makes any object that its input names",
    "dill": "makes any object that its input names",
    "cloudpickle": "makes any object that its input names",
    "joblib": "reads by pickle",
    "shelve": "reads by pickle",
    "marshal": "crashes on, and runs, what it is given",
    "pty": "runs a shell",
    "code": "runs what it is given",
    "xml": "takes entities: a kilobyte becomes gigabytes",
}
CALLS: Final = {
    "eval": "runs its input",
    "exec": "runs its input",
    "compile": "makes code of its input",
    "__import__": "imports by name",
    "os.system": "goes through a shell",
    "os.popen": "goes through a shell",
    "subprocess.getoutput": "goes through a shell",
    "subprocess.getstatusoutput": "goes through a shell",
    "asyncio.create_subprocess_shell": "goes through a shell",
    "tempfile.mktemp": "names a file that another may make first",
    "yaml.load": "makes any object that its input names",
    "yaml.load_all": "makes any object that its input names",
    "yaml.unsafe_load": "makes any object that its input names",
    "yaml.full_load": "makes many objects that its input names",
    "yaml.safe_load": "raises whatever it stumbles over, and takes aliases without end: read_yaml",
    "hashlib.md5": "is broken",
    "hashlib.sha1": "is broken",
    "random.random": "can be guessed: secrets, or a generator that is passed in",
    "random.choice": "can be guessed: secrets, or a generator that is passed in",
    "torch.load": "reads objects unless told otherwise: coqui.load_weights",
    "shutil.unpack_archive": "writes where an archive's names lead",
}
METHODS: Final = {
    "extractall": "writes where an archive's names lead",
    "load_checkpoint": "reads objects: coqui.load_weights",
}
KEYWORDS: Final = {
    ("shell", True): "goes through a shell",
    ("allow_pickle", True): "makes any object that its input names",
    ("weights_only", False): "makes any object that its input names",
    ("verify", False): "believes any certificate",
    ("ssl", False): "believes any certificate",
    ("check_hostname", False): "believes any host's certificate",
    ("trust_remote_code", True): "runs code from a hub",
}
ALLOWED: Final = {
    ("workers/engines/kokoro/weights.py", "pickle"): "an unpickler that knows tensors alone",
    ("workers/engines/coqui.py", "pickle"): "the error that PyTorch's reader of tensors raises",
}


def found(path: Path) -> Iterator[tuple[str, int, str]]:
    """What a file does of this: its name, the line, and why not."""
    for node in ast.walk(ast.parse(path.read_text())):
        modules: list[str] = []
        if not isinstance(node, ast.Import | ast.ImportFrom | ast.Call):
            continue
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                if name in CALLS:
                    yield name, node.lineno, CALLS[name]
        for name in (module.split(".")[0] for module in modules):
            if name in MODULES:
                yield name, node.lineno, MODULES[name]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS:
                yield called, node.lineno, CALLS[called]
            if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
                yield node.func.attr, node.lineno, METHODS[node.func.attr]
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                why = KEYWORDS.get((keyword.arg, value)) if keyword.arg and isinstance(value, bool) else None
                if why is not None:
                    yield f"{keyword.arg}={value}", node.lineno, why


def test_no_input_runs_as_code() -> None:
    assert len(SOURCES) > 100
    seen: set[tuple[str, str]] = set()
    wrong: list[str] = []
    for path in SOURCES:
        file = str(path.relative_to(ROOT))
        for name, line, why in found(path):
            seen.add((file, name))
            if (file, name) not in ALLOWED:
                wrong.append(f"{file}:{line}: {name} {why}")
    assert not wrong, "\n".join(wrong)
    assert seen >= ALLOWED.keys(), "what is let through and not needed"


def test_what_is_looked_for_is_found(tmp_path: Path) -> None:
    """A check that could not fail would be none."""
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import pickle, os, yaml, subprocess\n"
        "from marshal import loads\n"
        "from os import system\n"
        "from xml.etree import ElementTree\n"
        "import xml.etree\n"
        "eval('1')\n"
        "os.system('ls')\n"
        "yaml.load('a')\n"
        "subprocess.run('ls', shell=True)\n"
        "np.load('a', allow_pickle=True)\n"
        "torch.load('a', weights_only=False)\n"
        "archive.extractall()\n"
        "hashlib.md5(b'')\n"
        "# exec('fine here')\n"
        "subprocess.run(['ls'], shell=False)\n"
    )
    lines = [line for _, line, _ in found(bad)]
    assert sorted(set(lines)) == list(range(1, 14))
