"""Which proxy stands between us and a server: none on the way to this machine."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the environment variable that names it."""

    url: str
    variable: str

    @property
    def shown(self) -> str:
        """The address without a name or password."""
        scheme, _, rest = self.url.rpartition("://")
        return f"{scheme or 'http'}://{rest.rpartition('@')[2]}"


def proxy_for(root: str) -> Proxy | None:
    """The proxy that the environment names for a server at `root`; None where it is asked directly.

    A server on this machine is never asked through a proxy, which would read prompts and the key.
    """
    from urllib.request import getproxies_environment, proxy_bypass

    parts = urlsplit(root)
    host = parts.hostname or ""
    proxies = getproxies_environment()
    scheme = parts.scheme if parts.scheme in proxies else "all"
    if scheme not in proxies or is_this_machine(host) or proxy_bypass(host, proxies):
        return None
    url = proxies[scheme]
    return Proxy(url if "://" in url else f"http://{url}", _variable(f"{scheme}_proxy", url))


def is_this_machine(host: str) -> bool:
    """Whether a host is a loopback address, in any notation, or a name for one."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(name))  # 127.1, 0x7f000001
        except OSError:
            return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def _variable(name: str, url: str) -> str:
    """How the variable is written in this environment, so that a person finds it."""
    return next(
        (each for each in (name, name.upper()) if os.environ.get(each) == url), name.upper()
    )
