"""Where packages come from, as the settings of pip and uv say it: what installs them may connect to
these places, and read these files."""

import configparser
import contextlib
import os
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

__all__ = ["FILES", "Places", "passwords", "places"]

USUAL = ("pypi.org:443", "files.pythonhosted.org:443")
"""Where pip and uv look that are told nothing."""
PORTS = {"https": 443, "http": 80, "socks5": 1080, "socks5h": 1080}
FILES = ("NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PIP_CERT",
         "PIP_CLIENT_CERT", "PIP_CONFIG_FILE", "UV_CONFIG_FILE")  # fmt: skip
"""Variables that name files."""
BY_HOST = ("trusted-host", "allow-insecure-host", "insecure-host")
"""Settings that name hosts, without a scheme."""
PROXIES = ("http-proxy", "https-proxy", "all-proxy", "proxy")
BY_PATH = ("cert", "client-cert", "find-links", "constraint", "constraints", "build-constraint",
           "url", "index", "index-url", "default-index", "extra-index-url")  # fmt: skip
"""Settings that may name files of this machine."""
SYSTEM = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", f"{sys.prefix}/pip.conf", "/etc/uv/uv.toml")


class Places(NamedTuple):
    """What an installer was told."""

    hosts: tuple[str, ...]
    """As `host:port`."""
    files: tuple[str, ...]
    """Paths, absolute: wheels, certificates, constraints."""


def places(given: Mapping[str, str]) -> Places:
    """All places that an installer's environment names, and the configuration that it reads."""
    hosts: dict[str, None] = dict.fromkeys(USUAL)
    files: dict[str, None] = {}
    for key, word in _settings(given):
        if key in FILES:
            for part in word.split(":"):
                files[part] = None
            continue
        hosts |= dict.fromkeys(_hosts(key, word))
        if path := _path(key, word):
            files[path] = None
    real = [path for path in files if path.startswith("/") and os.access(path, os.R_OK)]
    return Places(tuple(hosts), (*real, *(path for path in SYSTEM if os.access(path, os.R_OK))))


def passwords(given: Mapping[str, str]) -> dict[str, str]:
    """The passwords of indexes and proxies that an installer was told, as they are written there,
    each with the variable that holds it; "" for one that is in a file."""
    found: dict[str, str] = {}
    for _, word in _of_files(given):
        found |= dict.fromkeys(_passwords(word), "")
    for name, value in given.items():
        if name.startswith("UV_INDEX_") and name.endswith(("_USERNAME", "_PASSWORD")):
            found[value] = name
        for word in _words(value):
            found |= dict.fromkeys(_passwords(word), name)
    return found


def _passwords(word: str) -> Iterator[str]:
    """Of a URL: what stands before its host, but for a name that has a password with it."""
    who = word.partition("://")[2].partition("/")[0].rpartition("@")[0]
    if secret := who.partition(":")[2] or who:
        yield secret


def _settings(given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(what it is called, one word of it), of all of them."""
    for name, value in given.items():
        if name in FILES:
            yield name, value
            continue
        key = name.removeprefix("PIP_").removeprefix("UV_").lower().replace("_", "-")
        yield from ((key, word) for word in _words(value))
    yield from _of_files(given)


def _of_files(given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for file in (given.get("PIP_CONFIG_FILE", ""), *SYSTEM[:3]):
        yield from _of_pip(file)
    for file in (given.get("UV_CONFIG_FILE", ""), SYSTEM[3]):
        yield from _of_uv(file)


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _of_pip(file: str) -> Iterator[tuple[str, str]]:
    found = configparser.RawConfigParser()
    with contextlib.suppress(OSError, UnicodeDecodeError, configparser.Error):
        found.read(file, encoding="utf-8")
    for section in found.sections():
        for key, value in found.items(section):
            yield from ((key.replace("_", "-"), word) for word in _words(value))


def _of_uv(file: str) -> Iterator[tuple[str, str]]:
    try:
        found = tomllib.loads(Path(file).read_text("utf-8")) if file else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return  # which it says itself
    for key, word in _flat("", found):
        # Relative to the file, unlike pip's.
        local = key in BY_PATH and "://" not in word
        yield key, str(Path(file).parent / word) if local else word


def _flat(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _flat(name, each)
    elif isinstance(value, list):
        for each in value:
            yield from _flat(key, each)
    elif isinstance(value, str):
        yield key, value


def _hosts(key: str, word: str) -> Iterable[str]:
    """The hosts that a word names, each with its port."""
    if "://" not in word:
        if key in PROXIES:
            return _hosts(key, f"http://{word}")
        if key in BY_HOST:
            return (*_hosts(key, f"https://{word}"), *_hosts(key, f"http://{word}"))
        return ()
    try:
        # UV_INDEX has NAME=URL.
        parts = urlsplit(word.partition("=")[2] if word.partition("://")[0].count("=") else word)
        host, port = (parts.hostname or "").rstrip("."), parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return ()  # which the installer says itself
    if not host or not port:
        return ()
    # Below it no name server is asked.
    near = host == "localhost" or host.endswith(".localhost")
    found = ["127.0.0.1", "[::1]"] if near else [f"[{host}]" if ":" in host else host]
    return [f"{each}:{port}" for each in found]


def _path(key: str, word: str) -> str:
    """The path that a word names; "" for none."""
    if word.startswith("file://"):
        return unquote(urlsplit(word).path)
    return word if key in BY_PATH and word.startswith("/") else ""
