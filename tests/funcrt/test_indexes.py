"""Where packages come from is read as pip and uv read it."""

from pathlib import Path

from funcrt.indexes import USUAL, passwords, places


def hosts(environ: dict[str, str]) -> set[str]:
    return set(places(environ).hosts) - set(USUAL)


def test_where_nothing_is_said_they_look_where_they_usually_do() -> None:
    assert places({"PATH": "/bin:/https://x", "HOME": "/h"}).hosts == USUAL


def test_settings_of_the_environment() -> None:
    cases = {
        ("PIP_INDEX_URL", "https://user:word@Index.Test/simple"): {"index.test:443"},
        ("PIP_INDEX_URL", "http://127.0.0.1:3141/root"): {"127.0.0.1:3141"},
        ("PIP_INDEX_URL", "http://[fd00::5]:81/"): {"[fd00::5]:81"},
        ("PIP_EXTRA_INDEX_URL", "http://a.test https://b.test:8443/x"): {
            "a.test:80", "b.test:8443"
        },
        ("PIP_FIND_LINKS", "https://files.test/w.html /srv/wheels"): {"files.test:443"},
        ("PIP_PROXY", "proxy.test:3128"): {"proxy.test:3128"},
        ("PIP_TRUSTED_HOST", "old.test odd.test:81"): {
            "old.test:443", "old.test:80", "odd.test:81"
        },
        ("UV_DEFAULT_INDEX", "https://index.test"): {"index.test:443"},
        ("UV_INDEX", "mine=https://a.test/x?y=z https://b.test"): {"a.test:443", "b.test:443"},
        ("UV_FIND_LINKS", "https://a.test,https://b.test"): {"a.test:443", "b.test:443"},
        ("UV_INSECURE_HOST", "old.test"): {"old.test:443", "old.test:80"},
        ("HTTPS_PROXY", "http://user:word@proxy.test:3128"): {"proxy.test:3128"},
        ("all_proxy", "socks5://proxy.test"): {"proxy.test:1080"},
        ("http_proxy", "proxy.test:8080"): {"proxy.test:8080"},
        ("NO_PROXY", "near.test,10.0.0.1"): set(),
        ("PIP_INDEX_URL", "http://localhost:8080/simple"): {"127.0.0.1:8080", "[::1]:8080"},
        ("PIP_INDEX_URL", "https://index.test:port/"): set(),
        ("PIP_INDEX_URL", "https://[::/"): set(),
        ("PIP_DEFAULT_TIMEOUT", "15"): set(),
    }  # fmt: skip
    assert {case: hosts(dict([case])) for case in cases} == cases


def test_passwords_are_known_with_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://u:filed@a.test/simple\n")
    given = {
        "PIP_CONFIG_FILE": f"{tmp_path}/pip.conf", "UV_INDEX": "mine=https://u:p%40ss@b.test/x",
        "UV_INDEX_MINE_PASSWORD": "word", "HTTPS_PROXY": "http://token@proxy.test:1/",
        "UV_FIND_LINKS": "https://c.test/@d", "PIP_INDEX_URL": "https://c.test",
    }  # fmt: skip
    assert passwords(given) == {
        "filed": "", "p%40ss": "UV_INDEX", "word": "UV_INDEX_MINE_PASSWORD", "token": "HTTPS_PROXY"
    }  # fmt: skip


def test_settings_of_files(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "ca.pem").write_text("")
    (tmp_path / "hidden").write_text("")
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://a.test/simple\nextra-index-url =\n  http://b.test:81\n"
        f"  https://c.test\nproxy = d.test:3128\ncert = {tmp_path}/ca.pem\n"
        f"log = {tmp_path}/hidden\n[install]\nfind_links = {tmp_path}/wheels %(x)s\n"
    )
    found = places({"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")})
    assert set(found.hosts) - set(USUAL) == {"a.test:443", "b.test:81", "c.test:443", "d.test:3128"}
    assert set(found.files) >= {str(tmp_path / each) for each in ("pip.conf", "ca.pem", "wheels")}
    assert str(tmp_path / "hidden") not in found.files
    (tmp_path / "uv.toml").write_text(
        'find-links = ["./wheels"]\nindex-url = "https://a.test"\n[[index]]\nname = "b"\n'
        'url = "http://b.test:81/x"\n[pip]\nextra-index-url = ["https://c.test"]\n'
    )
    found = places({"UV_CONFIG_FILE": str(tmp_path / "uv.toml")})
    assert set(found.hosts) - set(USUAL) == {"a.test:443", "b.test:81", "c.test:443"}
    assert {str(tmp_path / "uv.toml"), str(tmp_path / "wheels")} <= set(found.files)


def test_files_that_variables_name(tmp_path: Path) -> None:
    for name in ("ca.pem", "netrc", "constraints.txt", "more"):
        (tmp_path / name).write_text("")
    found = places({
        "SSL_CERT_FILE": f"{tmp_path}/ca.pem", "NETRC": f"{tmp_path}/netrc",
        "PIP_CONSTRAINT": f"{tmp_path}/constraints.txt", "SSL_CERT_DIR": f"{tmp_path}:/nowhere",
        "PIP_FIND_LINKS": f"file://{tmp_path}/more relative", "HOME": str(tmp_path / "more"),
    })  # fmt: skip
    wanted = {f"{tmp_path}/{name}" for name in ("ca.pem", "netrc", "constraints.txt", "more")}
    assert wanted | {str(tmp_path)} <= set(found.files)
    assert not {"/nowhere", "relative"} & set(found.files)


def test_files_that_say_nonsense_are_the_installers_to_tell_of(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"\xff\xfe = [")
    odd = str(tmp_path / "odd")
    assert places({"PIP_CONFIG_FILE": odd, "UV_CONFIG_FILE": odd}).hosts == USUAL
    assert places({"PIP_CONFIG_FILE": "/nowhere", "UV_CONFIG_FILE": "/dev/null"}).hosts == USUAL
