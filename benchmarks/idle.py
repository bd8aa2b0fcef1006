"""What functions cost that nothing calls: memory of the whole tree, and CPU."""

import time
from collections.abc import Callable

from benchmarks.processes import Options, Run, cpu_s, pss_mb
from benchmarks.systems.funcrt import serve
from benchmarks.table import Row

CODE = "def handler(event):\n    return {'ok': True}\n"


def idle(options: Options, say: Callable[[str], None]) -> list[Row]:
    """Functions at zero instances: five, and a thousand (100 when quick)."""
    seconds = 10.0 if options.quick else 30.0
    rows = []
    for count in (5, 100 if options.quick else 1000):
        functions = {
            f"f{n}": (CODE, f'[[trigger]]\ntopic = "t{n}"\n[output]\ntopic = "out"\n')
            for n in range(count)
        }
        say(f"{count} functions")
        with Run(options) as run:
            began = time.perf_counter()
            serve(run, functions)
            ready = time.perf_counter() - began
            time.sleep(2)
            pids = run.system()
            used = cpu_s(pids)
            time.sleep(seconds)
            share = (cpu_s(pids) - used) / seconds
            rows.append(
                {
                    "name": f"{count:,} functions at zero",
                    "PSS MB": pss_mb(pids),
                    "% of a core": share * 100,
                    "processes": str(len(pids)),
                    "ready s": ready,
                }
            )
    return rows
