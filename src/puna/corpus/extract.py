"""Raw files to records: the reader takes out the texts, and leaves alone what is opted out."""

import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from puna.corpus.filters import privacy
from puna.corpus.filters.opt_out import OptOut
from puna.corpus.readers import reader
from puna.corpus.record import DAMAGED, RawDocument, Record, Refuses, SkippedRecord, TruncatedFile
from puna.corpus.settings import CorpusSettings, OptOutSettings, SourceSettings
from puna.corpus.sources.fetch import RawFile
from puna.errors import UserError

DAY = re.compile(r"[0-9]{4}-[01][0-9]-[0-3][0-9]")
ASKS_FIRST = ("warc", "wikipedia", "github")  # readers that check opt-outs before they extract a text


def records(
    files: Iterable[RawFile], source: SourceSettings, settings: CorpusSettings, root: Path
) -> Iterator[Record]:
    """One record for every record of some raw files: a text, or the reason why it is none.

    root: what paths in the settings start from.
    """
    refuses = _opt_outs(settings.opt_out, root)
    for file in files:
        yield from _records_of(file, source, settings, refuses)


def _records_of(
    file: RawFile, source: SourceSettings, settings: CorpusSettings, refuses: Refuses
) -> Iterator[Record]:
    def dropped(reason: str, detail: str = "", url: str = "", offset: int = 0) -> Record:
        place = Record(source=source.name, file=file.name, offset=offset)
        place.url, counts = privacy.scrub_url(url, settings.privacy)
        place.reason, place.detail = reason, detail or privacy.told(counts)
        return place

    if file.unreadable:
        yield dropped(DAMAGED, file.unreadable)
        return
    read, asks_first = reader(source.reader), source.reader in ASKS_FIRST
    offset, empty = 0, True
    try:
        for raw in read(file.path, refuses) if asks_first else read(file.path):
            skipped = isinstance(raw, SkippedRecord)
            asked = asks_first and not skipped
            if refuses and not asked and (reason := refuses(raw.url)):
                yield dropped(reason, "", raw.url, raw.offset)
            elif skipped:
                _stop_at_other_encodings(raw, source, settings)
                yield dropped(raw.reason, "", raw.url, raw.offset)
            else:
                yield _record(raw, file, source)
            offset, empty = raw.offset, False
    except TruncatedFile as error:
        yield dropped(DAMAGED, str(error), error.url, error.offset)
    except (UserError, OSError, EOFError) as error:
        detail = str(error)
        if isinstance(error, OSError) and error.errno:
            # The system's words without a path, which would differ from machine to machine.
            detail = f"{Path(error.filename or file.path).name}: {error.strerror}"
        yield dropped(DAMAGED, detail, offset=offset)
    else:
        if empty:
            yield dropped("nothing in the file")


@functools.cache
def _opt_outs(settings: OptOutSettings, root: Path) -> Refuses:
    """Function url -> reason or ""; None where the settings name no opt-outs."""
    if not settings.paths():
        return None
    named = (settings.patterns, settings.domains, settings.robots)
    patterns, domains, robots = (root / path if path else None for path in named)
    return OptOut(patterns, domains, robots).refuses


def _record(raw: RawDocument, file: RawFile, source: SourceSettings) -> Record:
    record = Record(
        source=source.name,
        file=file.name,
        url=raw.url,
        offset=raw.offset,
        title=raw.title,
        licence=raw.licence or source.licence,
        date=raw.date if DAY.fullmatch(raw.date) else "",
        raw_digest=raw.raw_digest,
        text=raw.text,
    )
    record.leave_out(raw.cut, raw.whole - len(raw.text))
    return record


def _stop_at_other_encodings(raw: SkippedRecord, source: SourceSettings, settings: CorpusSettings) -> None:
    """Raise UserError for a line in another encoding, where damage ends the run."""
    in_lines = source.reader in ("lines", "jsonl")
    if raw.reason == "not UTF-8" and in_lines and settings.on_damaged_file == "stop":
        raise UserError(f"not UTF-8 text at byte {raw.offset}; convert the file to UTF-8")
