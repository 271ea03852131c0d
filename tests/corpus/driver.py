"""Runs the pipeline in a process of its own, which a test may kill: python -m tests.corpus.driver JOB.json"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from puna.corpus import merge, passes, pipeline, tables
from puna.corpus.settings import CorpusSettings
from puna.corpus.sources.fetch import RawFile
from puna.run.settings import ExecutionSettings

STOPPED = 77  # exit status


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    files = {
        name: [RawFile(name, Path(path).name, str(path), "", Path(path).stat().st_size) for path in paths]
        for name, paths in job["files"].items()
    }
    out = Path(job["out"])
    shutil.rmtree(
        out, ignore_errors=True
    )  # as a build does: finished groups stay, a half-written result goes
    out.mkdir(parents=True)

    def progress(what: str, done: int, total: int) -> None:
        if [what, done] == job["stop_at"]:
            if job["is_killed"]:
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(STOPPED)

    if size := job["piece_characters"]:
        merge.PIECE_CHARACTERS = size
        passes.BATCH_CHARACTERS = tables.BATCH_CHARACTERS = size // 2
    counts = pipeline.documents(
        CorpusSettings.model_validate(job["settings"]),
        files,
        scratch=Path(job["scratch"]),
        out=out,
        root=Path(),
        execution=ExecutionSettings.model_validate(job["execution"]),
        progress=progress,
    )
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
