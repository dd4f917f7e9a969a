"""Makes .venv from requirements/cpu.lock, and writes that lock. `make install` and `make lock`.

It needs the standard library alone, and runs on an old Python far enough to say that it is old.

The CPU build of PyTorch is not on the default package index. It is looked for where pip is
configured to look (find-links and extra indexes, which uv does not read by itself), and else on
PyTorch's own index for CPUs, whose address uv knows. Nothing but torch is taken from there.

What is installed must have a hash that the lock names, and nothing is built on the way. Torch alone
has none in its lock: only PyTorch's index knows the hashes of all its builds for CPUs, and a lock
with those of one folder would refuse the same build from elsewhere.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Mapping, NoReturn, Sequence  # noqa: UP035

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)

# What pip and uv call the same setting, and what uv puts between several values.
UV_NAMES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
}
PYTORCH_INDEX = ["--torch-backend=cpu"]
TORCH_HEADER = """\
# Written by `make lock`. It has no hashes: of PyTorch's builds for CPUs there is one for each
# version of Python and each processor, and only PyTorch's own index knows them all.
"""


class InstallError(Exception):
    """Something a person has to do first; the text says what."""


class Environment:
    """The virtual environment of a checkout, and what it is made from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".venv"
        self.python = self.folder / "bin" / "python"
        self.lock = root / "requirements" / "cpu.lock"
        self.torch_lock = root / "requirements" / "torch.lock"
        self.stamp = self.folder / ".installed"
        self.unfinished = self.folder / ".installing"

    @property
    def fingerprint(self) -> str:
        """Changes when a lock or the project's metadata do, or when the checkout is moved."""
        sources = (self.torch_lock, self.lock, self.root / "pyproject.toml")
        parts = [source.read_bytes() for source in sources]
        parts.append(str(self.folder).encode())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    @property
    def current(self) -> bool:
        """Whether there is nothing to do."""
        return (
            not self.unfinished.exists()
            and self.stamp.is_file()
            and self.stamp.read_text() == self.fingerprint
            and (self.folder / "bin" / "llmtagger").exists()
        )

    @property
    def usable(self) -> bool:
        """Whether there is an environment that can be added to."""
        if self.unfinished.exists() or not self.python.exists():
            return False
        too_old = f"import pip, sys; sys.exit(sys.version_info < {OLDEST})"
        return subprocess.run([self.python, "-c", too_old], capture_output=True).returncode == 0

    @property
    def torch(self) -> str:
        """The requirement for torch as its lock has it.

        >>> Environment(ROOT).torch
        'torch==2.13.0+cpu'
        """
        return self._find(self.torch_lock, r"torch==[\w.]+\+cpu")

    @property
    def uv(self) -> str:
        """The requirement for uv as the lock has it, with its hashes."""
        return self._find(self.lock, r"uv==[\w.]+(?: \\\n +--hash=\S+)+")

    @staticmethod
    def _find(lock: Path, pattern: str) -> str:
        found = re.search(f"^{pattern}", lock.read_text(), re.MULTILINE)
        if found is None:
            package = pattern.partition("=")[0]
            raise InstallError(f"{lock} does not name {package}. Update it: make lock")
        return found.group()


def install(environment: Environment) -> None:
    """Bring the environment up to the lock; does nothing if it is."""
    if environment.current:
        return
    begun = time.monotonic()
    if not environment.usable:
        with step(f"creating {environment.folder.name}"):
            create(environment)
    environment.unfinished.touch()
    environment.stamp.unlink(missing_ok=True)
    with step("installing uv"):
        install_uv(environment)
    uv = Uv(environment)
    source = torch_source(uv)
    with step(f"installing {environment.torch}"):
        uv.install(*source, "--only-binary", ":all:", environment.torch)
    with step(f"installing {environment.lock.relative_to(environment.root)}"):
        uv.install("--require-hashes", "--only-binary", ":all:", "-r", str(environment.lock))
    with step("installing llmtagger"):
        uv.install("--no-build-isolation", "-e", str(environment.root))
    environment.stamp.write_text(environment.fingerprint)
    environment.unfinished.unlink()
    say(f"Ready in {time.monotonic() - begun:.0f} s: .venv/bin/llmtagger --help")


def install_uv(environment: Environment) -> None:
    """By pip, which reads hashes from a file only."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "uv.lock"
        wanted.write_text(environment.uv + "\n")
        pip: list[str | Path] = [environment.python, "-m", "pip", "install", "-q", "--no-deps"]
        run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", wanted], quiet=True)


def create(environment: Environment) -> None:
    """An empty environment, in place of an unfinished or broken one."""
    check_python(sys.version_info[:2])
    try:
        run([sys.executable, "-m", "venv", "--clear", str(environment.folder)], quiet=True)
    except InstallError as error:
        remedy = "On Debian and Ubuntu: apt install python3-venv"
        raise InstallError(f"python -m venv failed.\n{error}\n{remedy}") from None


def check_python(version: tuple[int, ...]) -> None:
    """Refuse a Python that is too old."""
    if version >= OLDEST:
        return
    have, need = (".".join(map(str, each)) for each in (version, OLDEST))
    raise InstallError(
        f"This is Python {have}; llmtagger needs {need} or newer.\n"
        "Name one that you have: make install PYTHON=python3.12"
    )


class Uv:
    """uv, working on one environment, with pip's settings translated."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.command = str(environment.folder / "bin" / "uv")
        listing = run([environment.python, "-m", "pip", "config", "list"], quiet=True)
        self.settings = {**uv_settings(pip_settings(listing)), **os.environ}

    def install(self, *arguments: str) -> None:
        """Install just what is named, without dependencies."""
        quiet = [] if sys.stderr.isatty() else ["--quiet"]
        self._run(["pip", "install", *quiet, *self._target, *arguments])

    def finds(self, source: Sequence[str], requirement: str) -> str | None:
        """Why a requirement cannot be had from a source; None if it can."""
        try:
            self._run(
                ["pip", "install", "--dry-run", *self._target, *source, requirement], quiet=True
            )
        except InstallError as error:
            return str(error)
        return None

    def compile(self, *arguments: str | Path, own_sources: bool = True) -> None:
        """Resolve requirements into a lock; without `own_sources`, from the default index alone."""
        version = ".".join(map(str, OLDEST))
        command = ["pip", "compile", "--quiet", "--universal", "--python-version", version]
        dropped = () if own_sources else ("UV_INDEX", "UV_FIND_LINKS")
        kept = {name: value for name, value in self.settings.items() if name not in dropped}
        self._run([*command, "--no-annotate", *map(str, arguments)], variables=kept)

    @property
    def _target(self) -> list[str]:
        return ["--no-deps", "--python", str(self.environment.python)]

    def _run(
        self,
        arguments: Sequence[str],
        *,
        quiet: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        run(
            [self.command, *arguments],
            quiet=quiet,
            variables=variables or self.settings,
            folder=self.environment.root,
        )


def torch_source(uv: Uv) -> list[str]:
    """The options with which uv finds the CPU build of torch."""
    torch = uv.environment.torch
    reasons = []
    for name, source in (("pip's sources", []), ("PyTorch's index for CPUs", PYTORCH_INDEX)):
        reason = uv.finds(source, torch)
        if reason is None:
            say(f"→ {torch} comes from {name}")
            return source
        reasons.append(f"- {name}: {reason.strip()}")
    raise InstallError(
        f"{torch} was not found.\n" + "\n".join(reasons) + "\n"
        "Check the network and proxy, or fetch that wheel on another machine and name its folder:\n"
        "  PIP_FIND_LINKS=/folder/with/the/wheel make install"
    )


def pip_settings(listing: str) -> dict[str, str]:
    """pip's settings by name, read off `pip config list`; the environment goes before files.

    >>> pip_settings("global.cert='/a.pem'\\n:env:.cert='/b.pem'")
    {'cert': '/b.pem'}
    """
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        match = re.fullmatch(r"(global|install|:env:)\.([\w-]+)=(.+)", line)
        if match:
            section, name, value = match.groups()
            found[section][name] = str(ast.literal_eval(value))
    return {**found["global"], **found["install"], **found[":env:"]}


def uv_settings(pip: Mapping[str, str]) -> dict[str, str]:
    """The same settings as environment variables of uv.

    >>> uv_settings({"find-links": "/a /b"})
    {'UV_FIND_LINKS': '/a,/b'}
    """
    settings = {
        variable: separator.join(pip[name].split())
        for name, (variable, separator) in UV_NAMES.items()
        if pip.get(name)
    }
    if "UV_INDEX" in settings:  # pip looks at all indexes alike, uv would stop at the first
        settings["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return settings


def write_lock(environment: Environment, options: Sequence[str]) -> None:
    """Resolve again; versions in the locks are kept where they can be. `--upgrade` renews them.

    Hashes are those of all files that the default index has of a version: a folder or an index of
    one's own may hold a part of them.
    """
    uv = Uv(environment)
    locks = (environment.torch_lock, environment.lock)
    with tempfile.TemporaryDirectory() as folder:
        versions, others, hashed = (
            Path(folder) / name for name in ("all.txt", "in.txt", "out.txt")
        )
        versions.write_text("".join(lock.read_text() for lock in locks))
        extras = ["--extra", "cpu", "--extra", "dev"]
        source = torch_source(uv)
        uv.compile(*extras, *source, *options, "--output-file", versions, "pyproject.toml")
        torch, rest = split_torch(versions.read_text())
        others.write_text(rest)
        said = ["--custom-compile-command", "make lock"]
        hashing: list[str | Path] = [
            "--no-deps",
            "--generate-hashes",
            *said,
            "--output-file",
            hashed,
        ]
        uv.compile(*hashing, others, own_sources=False)
        environment.torch_lock.write_text(f"{TORCH_HEADER}{torch}")
        environment.lock.write_text(hashed.read_text())


def split_torch(lock: str) -> tuple[str, str]:
    """The lines of a lock that name torch's build for CPUs, and those that do not name torch.

    >>> split_torch("six==1.17.0\\ntorch==2.13.0+cpu\\ntorch==2.13.0 ; platform == 'a'\\n")
    ('torch==2.13.0+cpu\\n', 'six==1.17.0\\n')
    """
    lines = [line for line in lock.splitlines(keepends=True) if not line.startswith("#")]
    torch = [line for line in lines if line.startswith("torch==")]
    cpu = [line for line in torch if re.match(r"torch==[\w.]+\+cpu", line)]
    return "".join(cpu), "".join(line for line in lines if line not in torch)


def run(
    command: Sequence[str | Path],
    *,
    quiet: bool = False,
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """A command's output; its last words as an error if it fails."""
    pipe = subprocess.PIPE if quiet else None
    done = subprocess.run(
        [str(part) for part in command],
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=variables,
        cwd=folder,
        check=False,
    )
    if done.returncode:
        words = (done.stderr or done.stdout or "").strip()
        raise InstallError(words or f"failed: {' '.join(map(str, command))}")
    return done.stdout or ""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce a step, and say how long it took."""
    begun = time.monotonic()
    say(f"→ {what} …")
    yield
    say(f"  {time.monotonic() - begun:.1f} s")


def say(text: str) -> None:
    """Progress is for a person: it goes to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str]) -> NoReturn:
    """`install.py` installs; `install.py lock [uv options]` writes the lock."""
    environment = Environment(ROOT)
    try:
        if arguments[:1] == ["lock"]:
            write_lock(environment, arguments[1:])
        else:
            install(environment)
    except InstallError as error:
        say(f"\n{error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("\nInterrupted; the next run starts with a clean .venv.")
        sys.exit(130)
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
