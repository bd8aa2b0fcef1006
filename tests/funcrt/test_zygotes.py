"""Idle code does not stay loaded without bound, and comes back when it is called."""

import asyncio
from pathlib import Path

from funcrt.sandbox import Code
from funcrt.sandbox.process import ProcessSandbox
from funcrt.zygotes import Zygotes


def test_the_longest_unused_go_and_those_with_instances_stay(tmp_path: Path) -> None:
    async def main() -> None:
        sandbox = ProcessSandbox()
        await sandbox.start()
        zygotes = Zygotes(sandbox, most_idle=2)
        codes = []
        for name in "abcd":
            (tmp_path / name).mkdir()
            (tmp_path / name / "main.py").write_text("def handler(event): ...\n")
            codes.append(Code(name=name, version="1", path=tmp_path / name))
        try:
            first = await zygotes.get(codes[0])
            await first.spawn(lambda *_: None, lambda *_: None)
            second, third, fourth = [await zygotes.get(code) for code in codes[1:]]
            assert [z.alive for z in (first, second, third, fourth)] == [True, False, True, True]
            again = await zygotes.get(codes[1])
            assert again.alive
            assert again is not second
            assert not third.alive
            assert await zygotes.get(codes[3]) is fourth
        finally:
            await sandbox.close()

    asyncio.run(main())


def test_a_version_that_comes_back_while_it_drains_stays_loaded(tmp_path: Path) -> None:
    async def main() -> None:
        sandbox = ProcessSandbox()
        await sandbox.start()
        zygotes = Zygotes(sandbox)
        (tmp_path / "main.py").write_text("def handler(event): ...\n")
        code = Code(name="a", version="1", path=tmp_path)
        again = Code(name="a", version="1", path=tmp_path)
        try:
            zygote = await zygotes.get(code)
            zygotes.use(code)
            assert await zygotes.get(again) is zygote
            zygotes.use(again)
            await zygotes.drop(code)
            assert zygote.alive
            await zygotes.drop(again)
            assert not zygote.alive
        finally:
            await sandbox.close()

    asyncio.run(main())


def test_the_same_bundle_with_another_profile_s_environment_is_loaded_anew(tmp_path: Path) -> None:
    async def main() -> None:
        sandbox = ProcessSandbox()
        await sandbox.start()
        zygotes = Zygotes(sandbox)
        source = "import os\nLEVEL = os.environ['LEVEL']\ndef handler(event): ...\n"
        (tmp_path / "main.py").write_text(source)
        plain = Code(name="a", version="1", path=tmp_path, env={"LEVEL": "plain"})
        prod = Code(name="a", version="1", path=tmp_path, env={"LEVEL": "prod"})
        try:
            first = await zygotes.get(plain)
            assert await zygotes.get(prod) is not first
            assert await zygotes.get(plain) is first
        finally:
            await sandbox.close()

    asyncio.run(main())
