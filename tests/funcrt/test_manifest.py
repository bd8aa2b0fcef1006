"""Loading `funcrt.toml`: what it may say, and the exact message of each mistake."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import funcrt.manifest as module
import triggers
from funcrt.errors import ManifestError
from funcrt.loops import could_match
from funcrt.manifest import (
    BatchSpec,
    DlqSpec,
    HttpTrigger,
    Limits,
    Manifest,
    MeshTrigger,
    OutputSpec,
    RetrySpec,
    ScaleSpec,
    check_loops,
    load_manifest,
)
from funcrt.manifest_check import Key, Section
from mesh.event import Event

MESH = '[[trigger]]\ntopic = "images"\n'
HTTP = '[[trigger]]\nkind = "http"\npath = "/a"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A function's directory named `resize`, in the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resize").mkdir()
    return Path("resize")


def load(folder: Path, text: str) -> Manifest:
    (folder / "funcrt.toml").write_text(text)
    return load_manifest(folder)


def problems(folder: Path, text: str) -> list[str]:
    """What is said of the file, without the file's name."""
    with pytest.raises(ManifestError) as caught:
        load(folder, text)
    return [line.removeprefix("resize/funcrt.toml:") for line in str(caught.value).split("\n")]


# What is right


def test_a_folder_alone_has_defaults(folder: Path) -> None:
    assert load_manifest(folder) == Manifest(name="resize", dlq=DlqSpec(topic="resize.dlq"))
    os.chdir(folder)
    assert load_manifest(Path()).name == "resize"


EVERYTHING = """
name = "resize2"
handler = "main:handler"
concurrency = 4
timeout = "1.5s"

[[trigger]]
kind = "mesh"
topic = "images"
filters = [{ exact = { type = "image.uploaded" } }]
pattern = { data = { size = [{ numeric = [">", 1000] }] } }
mode = "broadcast"
start = "earliest"
order = "key"
key = "$.customer"
batch = { size = 50, wait = "300ms" }
cap = 1000
overflow = "dead-letter"

[[trigger]]
name = "late"
topic = "images"
start = 2026-01-31T12:00:00Z

[[trigger]]
kind = "http"
path = "/resize/now"
methods = ["PUT"]
strict = true

[output]
topic = "thumbs"
topics = ["audit"]
type = "image.resized"
keep_id = true

[retry]
attempts = 3
backoff = "constant"
base = 2
max = "1h"

[dlq]
topic = "dead"

[scale]
min = 1
max = 2
target_lag = 0.5
idle = "1m"

[limits]
memory = "256MiB"
payload = "1MB"

[env]
LOG_LEVEL = "info"

[secrets]
API_KEY = "stripe/key"
DB_URL = "env:DB_URL"
"""


def test_every_key(folder: Path) -> None:
    assert load(folder, EVERYTHING) == Manifest(
        name="resize2",
        handler="main:handler",
        concurrency=4,
        timeout_s=1.5,
        triggers=[
            MeshTrigger(
                name="images",
                topic="images",
                filters=[{"exact": {"type": "image.uploaded"}}],
                pattern={"data": {"size": [{"numeric": [">", 1000]}]}},
                mode="broadcast",
                start="earliest",
                order="key",
                key="$.customer",
                batch=BatchSpec(size=50, wait_s=0.3),
                cap=1000,
                overflow="dead-letter",
            ),
            MeshTrigger(name="late", topic="images", start="2026-01-31T12:00:00+00:00"),
            HttpTrigger(name="resize-now", path="/resize/now", methods=["PUT"], strict=True),
        ],
        output=OutputSpec(topic="thumbs", topics=["audit"], type="image.resized", keep_id=True),
        retry=RetrySpec(attempts=3, backoff="constant", base_s=2.0, max_s=3600.0),
        dlq=DlqSpec(topic="dead"),
        scale=ScaleSpec(min=1, max=2, target_lag_s=0.5, idle_s=60.0),
        limits=Limits(memory_bytes=256 << 20, payload_bytes=10**6),
        env={"LOG_LEVEL": "info"},
        secrets={"API_KEY": "stripe/key", "DB_URL": "env:DB_URL"},
    )


def test_a_manifest_survives_json(folder: Path) -> None:
    manifest = load(folder, EVERYTHING)
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest) == manifest


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("dlq = false", "dlq", None),
        ("dlq = true", "dlq", DlqSpec(topic="resize.dlq")),
        ("[dlq]", "dlq", DlqSpec(topic="resize.dlq")),
        ('name = "a"\n[dlq]', "dlq", DlqSpec(topic="a.dlq")),
        ("timeout = 2", "timeout_s", 2.0),
        ('timeout = "200ms"', "timeout_s", 0.2),
        ('timeout = "5m"', "timeout_s", 300.0),
        ('timeout = "1h"', "timeout_s", 3600.0),
        ('limits.memory = "64 MiB"', "limits", Limits(memory_bytes=64 << 20)),
        ("limits.payload = 2048", "limits", Limits(payload_bytes=2048)),
        ('limits.payload = "10kB"', "limits", Limits(payload_bytes=10_000)),
        ('handler = "pkg.größe:run_1"', "handler", None),
        ("[output]", "output", OutputSpec()),
        ('env = { A = "" }', "env", {"A": ""}),
        ("\ufeffconcurrency = 2\r\n", "concurrency", 2),
    ],
)
def test_ways_to_write_a_value(folder: Path, text: str, field: str, value: object) -> None:
    if field == "handler":
        said = ['1: handler: expected "module:function" in plain letters, found "pkg.größe:run_1"']
        assert problems(folder, text) == said
    else:
        assert getattr(load(folder, text), field) == value


@pytest.mark.parametrize(
    ("path", "name"), [("/a", "a"), ("/a/b.c/", "a-b-c"), ("/", "http"), ("/~", "http")]
)
def test_a_path_made_a_name(folder: Path, path: str, name: str) -> None:
    text = f'[[trigger]]\nkind = "http"\npath = "{path}"'
    assert load(folder, text).triggers == [HttpTrigger(name=name, path=path)]


@pytest.mark.parametrize("start", ["new", "earliest", "@12", "2026-01-31T12:00:00.5+01:00"])
def test_starts(folder: Path, start: str) -> None:
    (trigger,) = load(folder, f'{MESH}start = "{start}"').triggers
    assert isinstance(trigger, MeshTrigger)
    assert trigger.start == start


def test_sections_fill_every_field() -> None:
    """So that no key of the types is forgotten in what the file may say, or the reverse."""

    def fields(section: Section) -> set[str]:
        return {key.field or name for name, key in section.items() if isinstance(key, Key)}

    def of(kind: Any) -> set[str]:
        return {field.name for field in msgspec.structs.fields(kind)}

    assert fields(module.TOP) - {"trigger"} == of(Manifest) - {"triggers"}
    assert fields(module.MESH) - {"kind"} == of(MeshTrigger)
    assert fields(module.HTTP) - {"kind"} == of(HttpTrigger)
    for section, kind in [
        (module.BATCH, BatchSpec),
        (module.OUTPUT, OutputSpec),
        (module.RETRY, RetrySpec),
        (module.SCALE, ScaleSpec),
        (module.LIMITS, Limits),
    ]:
        assert fields(section) == of(kind)


def test_reserved_paths_are_the_gateways() -> None:
    from funcrt import gateway
    from funcrt.manifest_kinds import RESERVED

    assert RESERVED == gateway.RESERVED


# What is wrong: the exact message of each


def test_all_mistakes_at_once_in_the_order_of_the_file(folder: Path) -> None:
    text = """\
nme = "x"
timeout = inf

[[trigger]]
fliters = [{ exact = { type = "image.uploaded" } }]
filters = [
  { exct = { type = "x" } },
  { all = [{ prefix = { invALID = "x" } }] },
]

[scale]
min = 10
"""
    said = 'expected a duration such as "30s" (ms, s, m, h) or a number of seconds, found inf'
    assert problems(folder, text) == [
        '1: nme: unknown key, did you mean "name"?',
        f"2: timeout: {said}",
        "4: trigger[0].topic: missing; add topic = ...",
        '5: trigger[0].fliters: unknown key, did you mean "filters"?',
        '7: trigger[0].filters[0].exct: unknown dialect, did you mean "exact"?',
        "8: trigger[0].filters[1].all[0].prefix.invALID: an attribute name is a-z0-9, "
        'did you mean "invalid"?',
        "12: scale.min: 10 is above scale.max, 8",
    ]


DURATION = 'expected a duration such as "30s" (ms, s, m, h)'
SIZE = 'expected a size such as "256MiB" (KiB, MiB, GiB)'
OWN = "names that begin with funcrt. are the host's own"
NAME = "1 to 200 characters, a-z A-Z 0-9 . _ -, starting with a letter or digit"
START = (
    'expected "new", "earliest", a time with its offset such as "2026-01-31T12:00:00Z", '
    'or "@" and a position'
)
HOSTS = 'expected "outbound", or a host and a port such as "api.example.com:443"'
SOURCE = (
    'expected a file below the host\'s secrets directory, such as "stripe/key", or a variable of'
    ' the host\'s environment, such as "env:STRIPE_KEY"'
)
NEITHER = "characters that are neither"
LATER = "not built yet; remove this key for now"
MEND = "set output.allow_loop = true if that is meant"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # Unknown keys
        ('nam = "x"', '1: nam: unknown key, did you mean "name"?'),
        ("zzz = 1", "1: zzz: unknown key; known here: concurrency, dependencies, dlq, "
         "env, handler, idempotency, limits, name, output, profile, python, retry, sandbox, "
         "scale, secrets, source_builds, timeout, trigger"),
        ("attempts = 3", "1: attempts: unknown key here; it belongs in [retry]"),
        ("[scale]\nmx = 1", '2: scale.mx: unknown key, did you mean "max"?'),
        (f"{MESH}path = '/a'", "3: trigger[0].path: unknown key here; it belongs in "
         "[[trigger]] of kind http"),
        (f"{HTTP}batch = {{ size = 1 }}",
         "4: trigger[0].batch: unknown key here; it belongs in [[trigger]] of kind mesh"),
        (f"{MESH}batch = {{ size = 1, wiat = 1 }}",
         '3: trigger[0].batch.wiat: unknown key, did you mean "wait"?'),
        # Types
        ("name = 3", "1: name: expected a function name, found 3"),
        ('name = ""', f"1: name: '' is no function name: {NAME}"),
        ('name = "a b"', f"1: name: 'a b' is no function name: {NAME}"),
        (f'name = "{"a" * 189}"', "1: name: 189 characters; at most 188"),
        ('name = "funcrt.x"', f"1: name: {OWN}, found 'funcrt.x'"),
        ('dlq.topic = "funcrt.x"', f"1: dlq.topic: {OWN}, found 'funcrt.x'"),
        ('output.topic = "funcrt.call.b"', f"1: output.topic: {OWN}, found 'funcrt.call.b'"),
        ('[[trigger]]\ntopic = "funcrt.call.b"', f"2: trigger[0].topic: {OWN}, "
         "found 'funcrt.call.b'"),
        (f'{MESH}name = "funcrt.call"', f"3: trigger[0].name: {OWN}, found 'funcrt.call'"),
        ('handler = "handler"', '1: handler: expected "module:function" in plain letters, '
         'found "handler"'),
        ('concurrency = "4"', '1: concurrency: expected a whole number, found "4"'),
        ("concurrency = 1.0", "1: concurrency: expected a whole number, found 1.0"),
        ("concurrency = true", "1: concurrency: expected a whole number, found true"),
        ("concurrency = 0", "1: concurrency: expected 1 to 1000, found 0"),
        ("output = 'x'", '1: output: expected a table, found "x"'),
        ("retry = []", "1: retry: expected a table, found an empty array"),
        ("dlq = 'x'", '1: dlq: expected true, false or a table ([dlq]), found "x"'),
        ("[trigger]\ntopic = 'x'", "1: trigger: expected an array of at most 100, found "
         "a table; write [[trigger]], with two brackets"),
        ("trigger = [1]", "1: trigger[0]: expected a table, found 1"),
        (f"{MESH}filters = {{}}", "3: trigger[0].filters: expected an array of at most 100, "
         "found a table"),
        (f"{MESH}pattern = 'x'", '3: trigger[0].pattern: expected a table, found "x"'),
        (f"{MESH}batch = 10", "3: trigger[0].batch: expected a table, found 10"),
        (f"{HTTP}strict = 1", "4: trigger[0].strict: expected true or false, found 1"),
        ("output.type = ''", '1: output.type: expected an event type, found ""'),
        ('output.type = "a\\nb"', '1: output.type: expected an event type, found "a\\nb"'),
        # Durations and sizes
        ("timeout = true",
         f"1: timeout: {DURATION} or a number of seconds, found true"),
        ("timeout = nan", f"1: timeout: {DURATION} or a number of seconds, found nan"),
        ("timeout = 30s", "1: not TOML: expected one value, found 30s; strings need quotes "
         "(column 13)"),
        ('timeout = "30"', f'1: timeout: {DURATION}, found "30"'),
        ('timeout = "3 weeks"', f'1: timeout: {DURATION}, found "3 weeks"'),
        ('timeout = "-1s"', f'1: timeout: {DURATION}, found "-1s"'),
        ("timeout = 0", '1: timeout: expected "1ms" to "24h", found 0'),
        ('timeout = "25h"', '1: timeout: expected "1ms" to "24h", found "25h"'),
        ("timeout = 1979-05-27",
         f"1: timeout: {DURATION} or a number of seconds, found 1979-05-27"),
        (f"timeout = {10**30}",
         f"1: timeout: {DURATION} or a number of seconds, found a number of more than 18 digits"),
        ('limits.memory = "256 MiBs"', f'1: limits.memory: {SIZE}, found "256 MiBs"'),
        ("limits.memory = []",
         f"1: limits.memory: {SIZE} or a number of bytes, found an empty array"),
        ("limits.memory = 1024", '1: limits.memory: expected "16MiB" to "1024GiB", found 1024'),
        ('limits.payload = "1GB"', '1: limits.payload: expected "1KiB" to "8MiB", found "1GB"'),
        ('limits.payload = "1024.5B"',
         '1: limits.payload: expected "1KiB" to "8MiB", found "1024.5B"'),
        # Names
        (f"{MESH}name = 'a/b'", f"3: trigger[0].name: 'a/b' is no trigger name: {NAME}"),
        ("[[trigger]]\ntopic = 'a/*'", f"2: trigger[0].topic: 'a/*' is no topic name: {NAME}"),
        ("output.topic = '..'", f"1: output.topic: '..' is no topic name: {NAME}"),
        ("output.topics = ['a', '']", f"1: output.topics[1]: '' is no topic name: {NAME}"),
        ("[dlq]\ntopic = 'ä'", f"2: dlq.topic: 'ä' is no topic name: {NAME}"),
        # Choices
        (f"{MESH}mode = 'brodcast'", '3: trigger[0].mode: expected "cluster" or "broadcast", '
         'found "brodcast", did you mean "broadcast"?'),
        (f"{MESH}order = true", '3: trigger[0].order: expected "none" or "key", found true'),
        (f"{MESH}overflow = 'x'",
         '3: trigger[0].overflow: expected "refuse" or "dead-letter", found "x"'),
        ("retry.backoff = 'x'",
         '1: retry.backoff: expected "exponential" or "constant", found "x"'),
        (f"{HTTP}methods = ['get']", '4: trigger[0].methods[0]: expected "GET", "POST", "PUT", '
         '"PATCH", "DELETE", "HEAD" or "OPTIONS", found "get", write "GET"'),
        (f"{HTTP}methods = []", "4: trigger[0].methods: expected an array of 1 to 7, found "
         "an empty array"),
        ("[[trigger]]\nkind = 'kafka'",
         '2: trigger[0].kind: expected "mesh", "http" or "cron", found "kafka"'),
        (f"{MESH}start = 'now'", f'3: trigger[0].start: {START}, found "now"'),
        (f"{MESH}start = '2026-01-31'", f'3: trigger[0].start: {START}, found "2026-01-31"'),
        (f"{MESH}start = 2026-01-31T12:00:00",
         f"3: trigger[0].start: {START}, found 2026-01-31T12:00:00"),
        (f"{MESH}order = 'key'\nkey = 'A b'", "4: trigger[0].key: expected an attribute's name, "
         'or a path such as "$.customer", found "A b"'),
        # Keys that go together
        ("[[trigger]]\nkind = 'http'", "1: trigger[0].path: missing; add path = ..."),
        (f"{MESH}batch = {{ wait = 1 }}", "3: trigger[0].batch.size: missing; add size = ..."),
        (f"{MESH}key = 'subject'", '3: trigger[0].key: needs order = "key" beside it'),
        ("[scale]\nmin = 3\nmax = 2", "2: scale.min: 3 is above scale.max, 2"),
        ("[scale]\nmin = 30\nmax = 'x'", '3: scale.max: expected a whole number, found "x"'),
        ("[retry]\nbase = '10m'\nmax = 'x'", f'3: retry.max: {DURATION}, found "x"'),
        ("[retry]\nbase = '10m'", '2: retry.base: "10m" is above retry.max, "5m"'),
        (f"{MESH}{MESH}", '3: trigger[1].name: "images" is the name of trigger[0] too; '
         "set another"),
        (f"{HTTP}{HTTP}name = 'b'", '6: trigger[1].path: "/a" is the path of trigger[0] too'),
        (f"{MESH}batch.size = 2\n[output]\nstream = true", "5: output.stream: goes with one event "
         "a call, and trigger[0] has batch"),
        # HTTP paths
        ("[[trigger]]\nkind = 'http'\npath = 'a'",
         '3: trigger[0].path: expected a path such as "/resize" or "/orders/{id}", found "a"'),
        ("[[trigger]]\nkind = 'http'\npath = '/a b?c'",
         '3: trigger[0].path: expected a path such as "/resize" or "/orders/{id}", found "/a b?c"'),
        ("[[trigger]]\nkind = 'http'\npath = '/a/../b'", "3: trigger[0].path: expected no empty, "
         '. or .. part in a path, found "/a/../b"'),
        ("[[trigger]]\nkind = 'http'\npath = '/a//b'", "3: trigger[0].path: expected no empty, "
         '. or .. part in a path, found "/a//b"'),
        ("[[trigger]]\nkind = 'http'\npath = '/admin/x'", "3: trigger[0].path: paths below /admin "
         'are the gateway\'s own, found "/admin/x"'),
        ("[[trigger]]\nkind = 'http'\npath = '/u/{id'",
         '3: trigger[0].path: a { without its }, or a } without its {, in "/u/{id"'),
        ("[[trigger]]\nkind = 'http'\npath = '/u/{1d}'", "3: trigger[0].path: expected {name} or "
         '{name:convertor}, found {1d}, in "/u/{1d}"'),
        ("[[trigger]]\nkind = 'http'\npath = '/u/{id:number}'", "3: trigger[0].path: no convertor "
         '\'number\'; there are str, path, int, float, uuid, in "/u/{id:number}"'),
        ("[[trigger]]\nkind = 'http'\npath = '/{a}/{a}'",
         '3: trigger[0].path: two parameters are named \'a\', in "/{a}/{a}"'),
        ("[[trigger]]\nkind = 'http'\npath = '/{a}{b}'", "3: trigger[0].path: two parameters in "
         'one part; put a / between them, in "/{a}{b}"'),
        ("[[trigger]]\nkind = 'http'\npath = '/{a:path}/{b:path}'", "3: trigger[0].path: two "
         'parameters go on over slashes; one may, in "/{a:path}/{b:path}"'),
        ("[[trigger]]\nkind = 'http'\npath = '/u/{a}'\n"
         "[[trigger]]\nkind = 'http'\npath = '/u/{b}'\nname = 'b'",
         '6: trigger[1].path: "/u/{b}" can be the same path as that of trigger[0], '
         '"/u/{a}"'),
        # The environment
        ("[env]\nPORT = 8080", '2: env.PORT: expected a string, found 8080; write "8080"'),
        ("[env]\nON = true", '2: env.ON: expected a string, found true; write "true"'),
        ("[env]\n'A B' = ''", "2: env.'A B': expected a variable's name: A-Z a-z 0-9 _"),
        ('[env]\nA = "\\u0000"',
         '2: env.A: expected a string without NUL, found "\\u0000"'),
        # Secrets: what stands there may be a value, and is not told
        ("[secrets]\nA = 'sk-live 1'", f"2: secrets.A: {SOURCE}, found 9 {NEITHER}"),
        ("[secrets]\nA = '../key'", f"2: secrets.A: {SOURCE}, found 6 {NEITHER}"),
        ("[secrets]\nA = '/etc/x'", f"2: secrets.A: {SOURCE}, found 6 {NEITHER}"),
        ("[secrets]\nA = 'a/.b'", f"2: secrets.A: {SOURCE}, found 4 {NEITHER}"),
        ("[secrets]\nA = 'env:A B'", f"2: secrets.A: {SOURCE}, found 7 {NEITHER}"),
        ("[secrets]\nA = 5", f"2: secrets.A: {SOURCE}, found 5"),
        ("[secrets]\nA = 'a'\n[env]\nA = 'b'",
         "2: secrets.A: is in [env] too; a secret is no variable: keep one"),
        # Filters
        (f"{MESH}filters = ['x']", '3: trigger[0].filters[0]: expected a table, found "x"'),
        (f"{MESH}[trigger.pattern]\n'a.b' = 1",
         "4: trigger[0].pattern.a.b: expected a list of values, or a table of fields; write [1]"),
        (f"{MESH}pattern = {{ data = {{ n = [nan] }} }}", "3: trigger[0].pattern: expected "
         "strings, booleans and numbers that JSON has too, found nan"),
        (f"{MESH}pattern = {{ data = {{ n = [{2**64}] }} }}", "3: trigger[0].pattern: expected "
         "strings, booleans and numbers that JSON has too, found a number of more than 18 digits"),
        (f"{MESH}filters = [{{ exact = {{ time = 1979-05-27 }} }}]", "3: trigger[0].filters[0]: "
         "expected strings, booleans and numbers that JSON has too, found 1979-05-27"),
        # Not built yet
        (
            "[sandbox]\nnetwork = 'all'",
            '2: sandbox.network: expected "none", "outbound" or a list of hosts with ports, '
            'found "all"',
        ),
        *(
            (f"[sandbox]\nnetwork = {listed}", f"2: sandbox.network: {told}")
            for listed, told in (
                ("[]", 'expected 1 to 100 hosts with ports ("none" for none), found an '
                 'empty array'),
                ("[5]", f"{HOSTS}, found 5"),
                ("['a.example']", f'{HOSTS}, with a port of 1 to 65535, found "a.example"'),
                ("['a.example:0']", f'{HOSTS}, with a port of 1 to 65535, found "a.example:0"'),
                ("['a.example:x']", f'{HOSTS}, with a port of 1 to 65535, found "a.example:x"'),
                ("['a.b:70000']", f'{HOSTS}, with a port of 1 to 65535, found "a.b:70000"'),
                ("['http://a.b:80']", f'{HOSTS}, found "http://a.b:80"'),
                ("['*:443']", f'{HOSTS}, found "*:443"'),
                ("['*.com:443']", "expected a wildcard below two names at least, such as "
                 '"*.example.com:443", found "*.com:443"'),
                ("['2130706433:80']", f"{HOSTS}: an address as four numbers of 0 to 255, "
                 'found "2130706433:80"'),
                ("['127.0.0x1:80']", f"{HOSTS}: an address as four numbers of 0 to 255, "
                 'found "127.0.0x1:80"'),
                ("['fd00::5:443']", "expected an address of IPv6, and none else, in brackets: "
                 '"[fd00::5]:443", found "fd00::5:443"'),
                ("['0.0.0.0:80']", 'expected the address of one host, found "0.0.0.0:80"'),
                ("['localhost:80']", 'expected an address instead of localhost: "127.0.0.1" or '
                 '"[::1]", found "localhost:80"'),
            )
        ),
        (
            "[sandbox]\nisolation = 'none'",
            '2: sandbox.isolation: expected "process", "sandbox" or "container", found "none"',
        ),
        (
            "[sandbox]\nfiles = ['/srv/../etc']",
            '2: sandbox.files[0]: expected an absolute path, without . or .., found "/srv/../etc"',
        ),
        (
            "[sandbox]\nfiles = ['/srv', '/proc/self']",
            "2: sandbox.files[1]: /proc/self shows processes, devices and settings of the kernel's;"
            " it has a /proc and /dev of its own",
        ),
        ("[limits]\ncpu = 0.001", "2: limits.cpu: expected 0.01 to 1024, found 0.001"),
        ("[limits]\ncpu = '1'", '2: limits.cpu: expected a number, found "1"'),
        # Idempotency keys
        ("[idempotency]\nkey = 'Order'", "2: idempotency.key: expected an attribute's name, or a "
         'path such as "$.customer", found "Order"'),
        ("[idempotency]\nkey = '$.a['", "2: idempotency.key: no JSONPath: Parse error near the end"
         ' of string!; e.g. "$.items[*].size"'),
        ("[idempotency]\nkey = '$..a..b'", "2: idempotency.key: not taken: .. more than once; use a"
         " plainer path"),
        ("[idempotency]\nttl = '1ms'", '2: idempotency.ttl: expected "1s" to "720h", found "1ms"'),
        ("ttl = '1h'", "1: ttl: unknown key here; it belongs in [idempotency]"),
        # Schedules
        ("[[trigger]]\nkind = 'cron'",
         "1: trigger[0].schedule: missing; add schedule = ..."),
        ("[[trigger]]\nkind = 'cron'\nschedule = '* * * *'",
         '3: trigger[0].schedule: expected a cron expression such as "*/5 * * * *", found'
         ' "* * * *": 4 fields, expected five: minute hour day month weekday'),
        ("[[trigger]]\nkind = 'cron'\nschedule = '0 0 30 2 *'",
         '3: trigger[0].schedule: expected a cron expression such as "*/5 * * * *", found'
         ' "0 0 30 2 *": bad day-of-month'),
        ("[[trigger]]\nkind = 'cron'\nschedule = '@dayly'",
         "3: trigger[0].schedule: expected one of @hourly, @daily, @midnight, @weekly, @monthly,"
         ' @yearly, @annually, found "@dayly", did you mean "@daily"?'),
        ("[[trigger]]\nkind = 'cron'\nschedule = '@daily'\ntimezone = 'Europe/Berln'",
         '4: trigger[0].timezone: expected a time zone such as "Europe/Berlin", found'
         ' "Europe/Berln", did you mean "Europe/Berlin"?'),
        ("[[trigger]]\nkind = 'cron'\nschedule = '@daily'\nmissed = 'none'",
         '4: trigger[0].missed: expected "latest", "all" or "skip", found "none"'),
        # Loops
        (f"output.topic = 'images'\n{MESH}", "1: output.topic: an output of type "
         f'"funcrt.resize.result" would call the function again by trigger[0]; {MEND}'),
        (f"output.topics = ['a', 'images']\n{MESH}", '1: output.topics[1]: an event sent to '
         f'"images" would call the function again by trigger[0]; {MEND}'),
        (f"{MESH}[dlq]\ntopic = 'images'",
         f"4: dlq.topic: a dead letter would call the function again by trigger[0]; {MEND}"),
        # TOML itself
        ("a = 1\na = 2", "2: not TOML: a key that is set already (end of document)"),
    ],
)  # fmt: skip
def test_each_mistake(folder: Path, text: str, said: str) -> None:
    assert problems(folder, text) == [said]


def test_a_folder_that_is_no_name(folder: Path) -> None:
    folder.rename("a b")
    with pytest.raises(ManifestError) as caught:
        load_manifest(Path("a b"))
    mend = "; it is the folder's name, set name to another"
    assert str(caught.value) == f"a b/funcrt.toml: name: 'a b' is no function name: {NAME}{mend}"


def test_a_folder_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        load_manifest(Path("no"))
    assert str(caught.value) == "no: no such directory"


def test_a_file_that_is_a_directory(folder: Path) -> None:
    (folder / "funcrt.toml").mkdir()
    with pytest.raises(ManifestError) as caught:
        load_manifest(folder)
    assert str(caught.value) == "resize/funcrt.toml: cannot be read: Is a directory"


def test_pyproject_may_hold_the_manifest(folder: Path) -> None:
    project = folder / "pyproject.toml"
    project.write_text("[project]\nname = 'other'\n\n[tool.funcrt]\ntimeout = '5s'\n")
    found = load_manifest(folder)
    assert (found.name, found.timeout_s) == ("resize", 5.0)
    project.write_text("[tool.funcrt]\n\n[tool.funcrt.scale]\nmaxx = 3\n")
    assert (
        refused(folder) == 'resize/pyproject.toml:4: scale.maxx: unknown key, did you mean "max"?'
    )
    project.write_text("tool.funcrt = 3\n")
    said = "resize/pyproject.toml:1: tool.funcrt: expected a table, found 3"
    assert refused(folder) == said
    for text in ("[tool.ruff]\n", "tool = 1"):
        project.write_text(text)
        assert load_manifest(folder).name == "resize"


def test_two_manifests_are_one_too_many(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.funcrt]\n")
    (folder / "funcrt.toml").write_text("")
    said = "[tool.funcrt] and resize/funcrt.toml are both there; keep one of them"
    assert refused(folder) == f"resize/pyproject.toml:1: {said}"


def test_a_broken_pyproject_is_told_of_beside_a_funcrt_toml_too(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("broken [")
    assert refused(folder).startswith("resize/pyproject.toml:1: ")
    (folder / "funcrt.toml").write_text("")
    assert refused(folder).startswith("resize/pyproject.toml:1: ")


def refused(folder: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        load_manifest(folder)
    return str(caught.value)


# Profiles

PROFILES = f"""
timeout = "30s"
{MESH}
[scale]
min = 1
max = 8
[env]
LEVEL = "info"
COLOR = "no"
[profile.prod]
timeout = "5s"
[profile.prod.scale]
max = 32
[profile.prod.env]
LEVEL = "warning"
[profile.quiet]
dlq = false
"""


def test_a_profile_changes_what_it_says_table_by_table(folder: Path) -> None:
    plain = load(folder, PROFILES)
    assert plain.profiles == ["prod", "quiet"]
    assert (plain.timeout_s, plain.scale.max, plain.env["LEVEL"]) == (30.0, 8, "info")
    prod = load_manifest(folder, "prod")
    assert (prod.timeout_s, prod.scale, prod.dlq) == (5.0, ScaleSpec(min=1, max=32), plain.dlq)
    assert prod.env == {"LEVEL": "warning", "COLOR": "no"}
    assert prod.triggers == plain.triggers
    assert load_manifest(folder, "quiet").dlq is None
    assert load_manifest(folder, "unknown") == plain


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[profile.prod.scale]\nmaxx = 3",
         ['2: profile.prod.scale.maxx: unknown key, did you mean "max"?']),
        ("[profile.prod]\nname = 'x'",
         ["2: profile.prod.name: unknown key here; it belongs before the first table"]),
        ("profile = 3", ["1: profile: expected a table, found 3"]),
        ("[profile]\nprod = 3", ["2: profile.prod: expected a table, found 3"]),
        ("[profile.'a b']", ["1: profile.'a b': expected a profile's name: a-z A-Z 0-9 _ -"]),
        ("[scale]\nmax = 4\n[profile.prod.scale]\nmin = 5",
         ["4: profile.prod.scale.min: 5 is above scale.max, 4"]),
        ("[scale]\nmin = 5\nmax = 4\n[profile.a.env]\nX = 'y'\n[profile.b]\nretries = 3",
         ["2: scale.min: 5 is above scale.max, 4",
          "7: profile.b.retries: unknown key, did you mean \"retry\"?"]),
        (f"{MESH}[profile.prod.output]\ntopic = 'images'",
         ["4: profile.prod.output.topic: an output of type \"funcrt.resize.result\" would call the"
          f" function again by trigger[0]; {MEND}"]),
    ],
)  # fmt: skip
def test_each_mistake_of_a_profile_whichever_is_chosen(
    folder: Path, text: str, said: list[str]
) -> None:
    assert problems(folder, text) == said


# Loops


def test_loops_are_named_beside_other_mistakes(folder: Path) -> None:
    text = f"timeout = 0\noutput.topic = 'images'\n{MESH}"
    what = 'an output of type "funcrt.resize.result" would call the function again by trigger[0]'
    assert problems(folder, text) == [
        '1: timeout: expected "1ms" to "24h", found 0',
        f"2: output.topic: {what}; {MEND}",
    ]


@pytest.mark.parametrize(
    ("more", "loops"),
    [
        ("", True),
        ("filters = [{ exact = { type = 'image.uploaded' } }]", False),
        ("filters = [{ exact = { type = 'image.resized' } }]", True),
        ("filters = [{ prefix = { type = 'image.' } }]", True),
        ("filters = [{ suffix = { type = '.uploaded' } }]", False),
        ("filters = [{ not = { suffix = { type = '.resized' } } }]", False),
        ("filters = [{ not = { exact = { source = '/x' } } }]", True),
        ("filters = [{ not = { not = { exact = { source = '/x' } } } }]", True),
        ("filters = [{ exact = { source = '/x' } }]", True),
        ("filters = [{ exact = { source = '/x', type = 'a' } }]", False),
        ("filters = [{ any = [{ exact = { type = 'a' } }, { exact = { subject = 'a' } }] }]", True),
        ("filters = [{ any = [{ exact = { type = 'a' } }, { exact = { type = 'b' } }] }]", False),
        (
            "filters = [{ all = [{ exact = { subject = 'a' } }, { exact = { type = 'b' } }] }]",
            False,
        ),
        ("pattern = { type = [{ prefix = 'image.' }] }", True),
        ("pattern = { type = [{ anything-but = ['image.resized'] }] }", False),
        ("pattern = { data = { a = [1] } }", True),
        ("pattern = { data = { a = [1] }, type = ['a'] }", False),
        ("pattern = { '$or' = [{ type = ['a'] }, { data = { a = [1] } }] }", True),
        ("pattern = { '$or' = [{ type = ['a'] }, { type = ['b'] }] }", False),
    ],
)
def test_loops_are_refused_where_the_filter_could_match(
    folder: Path, more: str, loops: bool
) -> None:
    output = "[output]\ntopic = 'images'\ntype = 'image.resized'\n"
    text = f"{output}{MESH}{more}"
    if loops:
        what = 'an output of type "image.resized" would call the function again by trigger[0]'
        assert problems(folder, text) == [f"2: output.topic: {what}; {MEND}"]
    else:
        assert check_loops(load(folder, text)) == []
    assert load(folder, text.replace("type = 'image.r", "allow_loop = true\ntype = 'image.r", 1))


LEAVES = st.builds(
    lambda dialect, name, value: {dialect: {name: value}},
    st.sampled_from(["exact", "prefix", "suffix"]),
    st.sampled_from(["type", "source", "subject"]),
    st.sampled_from(["a", "b", "ab"]),
)
DIALECTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda one: {"not": one}, inner)
        | st.builds(
            lambda name, some: {name: some},
            st.sampled_from(["all", "any"]),
            st.lists(inner, min_size=1, max_size=3),
        )
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(DIALECTS, max_size=3),
    st.sampled_from(["a", "b", "ab"]),
    st.sampled_from(["a", "b", "ab"]),
    st.sampled_from([None, "a", "b"]),
)
def test_what_matches_could_match(
    filters: list[dict[str, Any]], type: str, source: str, subject: str | None
) -> None:
    """The check errs on one side alone: no event of the type passes a filter it calls closed."""
    event = Event(id="1", source=source, type=type, subject=subject)
    if triggers.parse({"filters": filters}).matches(event):
        assert could_match(filters, None, type)
