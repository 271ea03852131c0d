"""What a tuning took beside what was forecast, as one line of JSON. Run by test_forecast.

python -m tests.tune.forecasted RECIPE KEY=VALUE ...
"""

import json
import sys
import time
from pathlib import Path

from puna import recipe, stages
from puna.cli.tune import forecasts
from puna.run.build import Build, Silent
from puna.train.metrics import peak_memory_bytes


def main() -> None:
    path, changes = Path(sys.argv[1]), tuple(sys.argv[2:])
    loaded = recipe.load_tuning(path, changes)
    listed = stages.tuning_stages(loaded, path.parent, path.parent / "out")
    listed = listed[: [one.name for one in listed].index("sft") + 1]
    build = Build(path.parent / "out" / loaded.name, listed, loaded.execution)
    prepared = [one for one in listed if not one.together]
    said = forecasts(build, Build(build.folder, prepared, loaded.execution).run(Silent()))["sft"]
    started = time.process_time()
    made = build.run(Silent())["sft"]
    spent = time.process_time() - started
    print(json.dumps([said, made.metrics, {"cpu_seconds": spent, "memory_bytes": peak_memory_bytes()}]))


if __name__ == "__main__":
    main()
