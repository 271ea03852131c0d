"""Runs the pipeline in a process of its own, which a test may kill: python -m tests.corpus.driver JOB.json"""

import json
import shutil
import sys
from pathlib import Path

from puna.corpus import merge
from puna.corpus.settings import CorpusSettings
from puna.corpus.sources.fetch import RawFile


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    settings = CorpusSettings.model_validate(job["settings"])
    files = {
        name: [RawFile(name, Path(path).name, str(path), "", Path(path).stat().st_size) for path in paths]
        for name, paths in job["files"].items()
    }
    out = Path(job["out"])
    shutil.rmtree(out, ignore_errors=True)  # as a build does: finished parts stay, a half-written result goes
    out.mkdir(parents=True)
    print(json.dumps(merge.documents(settings, files, Path(job["parts"]), out, lambda *_: None)))


if __name__ == "__main__":
    main()
