"""Turn a corpus as it is published into data directories: ``affgen data prepare CORPUS SRC DIR``.

Each corpus is one function that reads the folder ``SRC`` and yields (name of the part, tables); nothing is copied, the
tables point into ``SRC`` with absolute paths. Preparing again writes the same bytes. The part ``test`` holds what no
model may be trained on, by speaker where the corpus has several; each reader says which.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from affgen.corpora import acted, music, read, singing
from affgen.corpora.common import Reader
from affgen.datadir import DataDir
from affgen.errors import DataError

_NC = "not for commercial use, nor are models trained on it"
_RAVDESS = f"CC BY-NC-SA 4.0 (Livingstone and Russo 2018): {_NC}"

CORPORA: dict[str, tuple[str, Reader]] = {
    "emopia": (f"CC BY-NC-SA 4.0 (Hung et al. 2021): {_NC}", music.emopia),
    "vgmidi": (
        "no licence stated (Ferreira and Whitehead 2019): for evaluation, train nothing to share on it",
        music.vgmidi,
    ),
    "ravdess": (_RAVDESS, acted.ravdess),
    "ravdess_speech": (_RAVDESS, acted.ravdess_speech),
    "ravdess_song": (_RAVDESS, acted.ravdess_song),
    "nemo": (f"CC BY-NC-SA 4.0 (Christop 2024): {_NC}", acted.nemo),
    "emodb": ("CC0-1.0 as republished by audEERING (Burkhardt et al. 2005)", acted.emodb),
    "cremad": ("Open Database License 1.0 (Cao et al. 2014): what is derived from it is shared alike", acted.cremad),
    "esd": ("for research purposes only (Zhou et al. 2021), on signing its licence", acted.esd),
    "an4": ("free for any purpose, BSD-style (Carnegie Mellon University 1991)", read.an4),
    "ljspeech": ("public domain (Ito 2017)", read.ljspeech),
    "vctk": ("CC BY 4.0 (Yamagishi et al. 2019): name the source", read.vctk),
    "nit_song070": ("CC BY 3.0 (Nagoya Institute of Technology): name the source", singing.nit_song070),
    "opencpop": (f"CC BY-NC-ND 4.0 (Wang et al. 2022): {_NC}", singing.opencpop),
    "m4singer": (f"CC BY-NC-SA 4.0 (Zhang et al. 2022): {_NC}", singing.m4singer),
    "gtsinger": (f"CC BY-NC-SA 4.0 (Zhang et al. 2024): {_NC}", singing.gtsinger),
}


def prepare(corpus: str, source: str | Path, out: str | Path, say: Callable[[str], None] = print) -> dict[str, int]:
    """Write the data directories of ``corpus``, found in ``source``, below ``out``; return {part: utterances}.

    The licence of the corpus is told first. Raises :class:`DataError` for a corpus that is not known and for a
    ``source`` that does not hold it; then nothing is written.
    """
    if corpus not in CORPORA:
        raise DataError(f"unknown corpus {corpus!r}; accepted: {', '.join(CORPORA)}")
    licence, read_parts = CORPORA[corpus]
    source = Path(source).absolute()
    if not source.is_dir():
        raise DataError(f"{source}: is not a folder; name the folder of {corpus}")
    say(f"{corpus}: {licence}")
    directories = [DataDir(Path(out) / part, tables) for part, tables in read_parts(source)]
    for data in directories:
        data.write()
    return {data.path.name: len(data.utterances) for data in directories}
