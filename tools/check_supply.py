"""What llmtagger is made of: licences, known holes, and a bill of materials.

    python tools/check_supply.py licences      every locked package has a licence that may be used
    python tools/check_supply.py audit         no locked version has a known hole; asks osv.dev
    python tools/check_supply.py sbom FILE     a bill of materials, as CycloneDX 1.6 in JSON

Versions and hashes are the locks', licences and dependencies what is installed from them says.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("torch.lock", "cpu.lock")
OSV = "https://api.osv.dev/v1/querybatch"

# By which a package may be used and passed on beside ours. The Mozilla licence binds those who
# change its files; we change none.
ALLOWED = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause"),
    *("BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0"),
    *("PSF-2.0", "Unlicense"),
}
NAMES = {  # what metadata says in other words
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "DFSG approved": "",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "OSI Approved": "",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
EXCEPTIONS = {  # package: its licence, and why it may be used all the same
    "atheris": ("Apache-2.0", "says nothing in its metadata; its LICENSE file does"),
    "docutils": (
        "Public Domain AND BSD-2-Clause",
        "the GPL in it is of an Emacs mode, not shipped",
    ),
    "intel-openmp": (
        "Intel EULA",
        "vLLM for CPUs needs it; its terms allow use and redistribution",
    ),
    "oss-harmony": ("Apache-2.0", "says nothing in its metadata; its LICENSE file does"),
    "pyahocorasick": ("BSD-3-Clause", "and parts in the public domain"),
    "pycountry": ("LGPL-2.1-only", "vLLM needs it; it is used unchanged, as a library"),
    "setuptools": ("MIT", "says nothing in its metadata; its LICENSE file does"),
    "supervisor": ("BSD-3-Clause", "by its LICENSES.txt, which names the Repoze licence"),
}


class SupplyError(Exception):
    """Something about what llmtagger is made of that a person has to decide; the text says what."""


@dataclass(frozen=True, slots=True)
class Locked:
    """A package as a lock has it; `installed` is its metadata, None where it is not for here."""

    name: str
    version: str
    hashes: tuple[str, ...]
    installed: Message | None

    @property
    def purl(self) -> str:
        """Its name in every package world; the build after a + is not part of a release."""
        return f"pkg:pypi/{self.name}@{self.version.partition('+')[0]}"


def read_locks(folder: Path) -> list[Locked]:
    """All locked packages, by name and version, with what is installed of them here."""
    found = []
    for lock in LOCKS:
        text = (folder / lock).read_text(encoding="utf-8").replace("\\\n", " ")
        for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
            wanted, *hashes = re.split(r"\s--hash=sha256:", line)
            requirement = Requirement(wanted.strip())
            version = str(requirement.specifier).removeprefix("==")
            name = canonicalize_name(requirement.name)
            hashed = tuple(each.strip() for each in hashes)
            found.append(Locked(name, version, hashed, _installed(name, version)))
    return sorted(found, key=lambda package: (package.name, package.version))


def _installed(name: str, version: str) -> Message | None:
    try:
        found = metadata(name)
    except PackageNotFoundError:
        return None
    return found if found["Version"] == version else None  # type: ignore[return-value]


def licence_of(package: Message) -> str:
    """The licence in its metadata, as an SPDX expression as far as it can be read as one."""
    expression = package.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [
        each.rpartition("::")[2].strip()
        for each in package.get_all("Classifier") or []
        if each.startswith("License ::")
    ]
    known = list(filter(None, (NAMES.get(each, each) for each in classifiers)))
    if not known:
        first = (package.get("License") or "").strip().split("\n")[0]
        known = [NAMES.get(first, first)]
    return " AND ".join(known)


def check_licences(
    packages: Iterable[Locked], exceptions: Mapping[str, tuple[str, str]] = EXCEPTIONS
) -> int:
    """How many licences were looked at; `SupplyError` names those that are not allowed."""
    here = {each.name: licence_of(each.installed) for each in packages if each.installed}
    unknown = {name: said for name, said in here.items() if not _is_allowed(said)}
    faults = [
        f"{name}: {said or 'no licence'} is not allowed"
        for name, said in unknown.items()
        if name not in exceptions
    ]
    faults += [f"{name}: needs no exception any more" for name in exceptions if name not in unknown]
    if faults:
        raise SupplyError(
            "\n".join(faults) + "\nRead the licence; then ALLOWED, NAMES or EXCEPTIONS in"
            " tools/check_supply.py is the place to say why it may be used, or leave the package."
        )
    return len(here)


def _is_allowed(expression: str) -> bool:
    """Whether every licence in an expression is, which is more than an OR asks for."""
    names = re.split(r"\s+(?:AND|OR)\s+|[()]", expression)
    return bool(expression) and all(name.strip() in ALLOWED for name in names if name.strip())


def audit(packages: Sequence[Locked], address: str = OSV) -> int | None:
    """How many versions were looked up in the database of known holes; None where it is not there.

    `SupplyError` names the holes.
    """
    queries = [{"package": {"purl": package.purl}} for package in packages]
    request = urllib.request.Request(
        address, json.dumps({"queries": queries}).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            results = json.load(answer)["results"]
    except OSError:
        return None
    faults = [
        f"{package.name} {package.version}: {', '.join(hole['id'] for hole in result['vulns'])}"
        for package, result in zip(packages, results, strict=True)
        if result and result.get("vulns")
    ]
    if faults:
        raise SupplyError(
            "Known holes (https://osv.dev/vulnerability/ID says more):\n"
            + "\n".join(faults)
            + "\nRenew the package: make lock LOCK='--upgrade-package NAME'"
        )
    return len(packages)


def bill_of_materials(packages: Sequence[Locked], project: Mapping[str, Any]) -> dict[str, Any]:
    """A CycloneDX 1.6 document of the locked packages; the same for the same locks and metadata."""
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    refs = {package.name: _ref(package) for package in packages if package.installed}
    direct = [Requirement(each).name for each in project["dependencies"]]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": project["name"],
                "version": project["version"],
                "purl": own,
                "licenses": [{"expression": project["license"]}],
            }
        },
        "components": [_component(package) for package in packages],
        "dependencies": [
            {"ref": own, "dependsOn": _known(direct, refs)},
            *(
                {"ref": _ref(package), "dependsOn": _known(_required(package.installed), refs)}
                for package in packages
                if package.installed
            ),
        ],
    }


def _ref(package: Locked) -> str:
    return f"{package.name}=={package.version}"


def _component(package: Locked) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": _ref(package),
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
    }
    if package.installed is not None:
        exception = EXCEPTIONS.get(package.name)
        licence = exception[0] if exception else licence_of(package.installed)
        said = {"expression": licence} if _is_allowed(licence) else {"license": {"name": licence}}
        found["licenses"] = [said]
    if package.hashes:  # of all files of the version: a component has one of each kind
        found["externalReferences"] = [
            {
                "type": "distribution",
                "url": package.purl,
                "hashes": [{"alg": "SHA-256", "content": each}],
            }
            for each in package.hashes
        ]
    return found


def _required(package: Message) -> Iterator[str]:
    """What a package needs where it is installed, its extras aside."""
    for text in package.get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name


def _known(names: Iterable[str], refs: Mapping[str, str]) -> list[str]:
    canonical = map(canonicalize_name, names)
    return sorted({refs[name] for name in canonical if name in refs})


def main(arguments: Sequence[str]) -> None:
    """One of the three commands; exits with what is wrong, if something is."""
    packages = read_locks(ROOT / "requirements")
    try:
        match arguments:
            case ["licences"]:
                count = check_licences(packages)
                sys.stderr.write(f"The licences of {count} packages may be used.\n")
            case ["audit"]:
                asked = audit(packages)
                said = "NOT AUDITED: osv.dev cannot be reached from here.\n"
                if asked is not None:
                    said = f"No known hole in {asked} locked versions.\n"
                sys.stderr.write(said)
            case ["sbom", file]:
                project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
                record = bill_of_materials(packages, project["project"])
                Path(file).parent.mkdir(parents=True, exist_ok=True)
                Path(file).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
                sys.stderr.write(f"Wrote {file}: {len(packages)} packages.\n")
            case _:
                sys.exit(__doc__)
    except SupplyError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
