"""Songs in MusicXML: what is read of the files of others, and what our own say when they are read again."""

from __future__ import annotations

import io
import zipfile

import pytest

from affgen.errors import AffgenError
from affgen.musicxml import read_musicxml
from affgen.score import Dynamic, Marker, Meter, Note, Score, Tempo

FOUR_FOUR = "<time><beats>4</beats><beat-type>4</beat-type></time>"
BACK = '<barline location="right"><repeat direction="backward"/></barline>'
FORWARD = '<barline location="left"><repeat direction="forward"/></barline>'


def note(pitch: str = "C4", length: int = 4, lyric: str = "", inside: str = "", after: str = "") -> str:
    """A note of ``length`` sixteenths; ``la-`` is a syllable whose word goes on."""
    kind = "begin" if lyric.endswith("-") else "single"
    text = f"<lyric><syllabic>{kind}</syllabic><text>{lyric.strip('-')}</text></lyric>" if lyric else ""
    sign = f"<pitch><step>{pitch[0]}</step><octave>{pitch[1]}</octave></pitch>" if pitch else "<rest/>"
    return f"<note>{inside}{sign}<duration>{length}</duration>{after}{text}</note>"


def song(*parts: list[str], head: str = FOUR_FOUR, divisions: int = 4) -> bytes:
    """A file of parts, each a list of the contents of its bars."""
    attributes = f"<attributes><divisions>{divisions}</divisions>{head}</attributes>"
    bars = [[attributes + bar if index == 0 else bar for index, bar in enumerate(part)] for part in parts]
    body = "".join(f"<part>{''.join(f'<measure>{bar}</measure>' for bar in part)}</part>" for part in bars)
    return f"<score-partwise>{body}</score-partwise>".encode()


def direction(kind: str, sound: str = "") -> str:
    return f"<direction><direction-type>{kind}</direction-type>{sound}</direction>"


def placed(score: Score) -> list[tuple[float, float, int, str]]:
    return [(n.onset, n.duration, n.pitch, n.lyric) for n in score.notes]


def lyrics(score: Score) -> list[str]:
    return [n.lyric for n in score.notes]


# --- notes and syllables ---------------------------------------------------------------------------------------------


def test_notes_rests_and_pitches_are_placed_in_beats():
    bars = [note("C4", 2) + note("", 2) + note("A0", 12), note("B5", 16)]
    assert placed(read_musicxml(song(bars))) == [(0, 0.5, 60, ""), (1, 3, 21, ""), (4, 4, 83, "")]
    altered = note().replace("</step>", "</step><alter>-1</alter>")
    assert read_musicxml(song([altered])).notes[0].pitch == 59
    quarter_tone = note().replace("</step>", "</step><alter>0.4</alter>")
    assert read_musicxml(song([quarter_tone])).notes == (Note(0, 1, 60),)


def test_words_are_put_together_from_syllabics():
    def lyric(kind: str, text: str) -> str:
        return note(after=f"<lyric><syllabic>{kind}</syllabic><text>{text}</text></lyric>")

    syllables = [("begin", "sin"), ("middle", "gu"), ("end", " lar\n"), ("single", "be-"), ("begin", "hand-")]
    score = read_musicxml(song(["".join(lyric(*syllable) for syllable in syllables)]))
    assert lyrics(score) == ["sin-", "gu-", "lar", "be-", "hand-"]


def test_a_melisma_has_one_syllable_and_an_elision_joins_two():
    slurs = ('<notations><slur type="start"/></notations>', '<notations><slur type="stop"/></notations>')
    extend = "<lyric><extend type='stop'/></lyric>"
    elision = "<lyric><text>la</text><elision>‿</elision><syllabic>begin</syllabic><text>mo</text></lyric>"
    bar = note(lyric="ah", after=slurs[0]) + note("D4", after=slurs[1] + extend) + note(after=elision)
    assert lyrics(read_musicxml(song([bar]))) == ["ah", "", "la mo-"]


def test_the_first_verse_is_read_whatever_its_number():
    def verses(*numbers: str) -> bytes:
        found = "".join(f'<lyric number="{n}"><text>v{n}</text></lyric>' for n in numbers)
        return song([note(after=found) + note(after='<lyric number="2"><text>two</text></lyric>')])

    assert lyrics(read_musicxml(verses("2", "1"))) == ["v1", ""]
    assert lyrics(read_musicxml(verses("part1verse2", "part1verse1"))) == ["vpart1verse1", ""]
    assert lyrics(read_musicxml(verses("3", "2"))) == ["v2", "two"]


def test_grace_and_cue_notes_are_left_out_and_a_grace_note_hands_its_syllable_on():
    grace = note("D4", 0, "oh", inside="<grace/>").replace("<duration>0</duration>", "")
    assert placed(read_musicxml(song([grace + note() + note("E4", inside="<cue/>") + note(lyric="la")]))) == [
        (0, 1, 60, "oh"),
        (2, 1, 60, "la"),
    ]


START, STOP = '<tie type="start"/>', '<tie type="stop"/>'


def test_tied_notes_become_one():
    both = note(after=STOP + START)
    bars = [note("", 8) + note(after=START, lyric="a") + both, both + note(after=STOP) + note()]
    assert placed(read_musicxml(song(bars))) == [(2, 4, 60, "a"), (6, 1, 60, "")]
    unlike = [note(after=START) + note("D4", after=STOP), note(after=START) + note("", 4) + note(after=STOP)]
    assert len(read_musicxml(song(unlike)).notes) == 4
    tied = "<notations><tied type='start'/></notations>"
    assert placed(read_musicxml(song([note(after=tied) + note() + note(after=START) + note(lyric="b")]))) == [
        (0, 2, 60, ""),
        (2, 1, 60, ""),
        (3, 1, 60, "b"),
    ]


def test_a_chord_is_refused_by_bar_and_note_where_it_is_sung_only():
    chord = note() + note("E4") + note("G4", inside="<chord/>")
    with pytest.raises(AffgenError, match=r"^MusicXML data: bar 2, note 3 sounds together.*; accepted: one note at a"):
        read_musicxml(song([note(length=16), chord]))
    backup = "<backup><duration>16</duration></backup>"
    piano = backup + chord.replace("</duration>", "</duration><voice>2</voice>")
    assert placed(read_musicxml(song([note(length=16, lyric="la") + piano]))) == [(0, 4, 60, "la")]
    with pytest.raises(AffgenError, match="bar 1, note 2 sounds together"):
        read_musicxml(song([note(length=16) + backup + note()]))
    with pytest.raises(AffgenError, match="bar 1, note 2 sounds together"):
        read_musicxml(song([note(length=1) + "<backup><duration>1</duration></backup>" + note()], divisions=1000))


def test_the_first_voice_with_lyrics_of_the_first_part_with_lyrics_is_read():
    second = (note("E4", 12, "so") + note("F4", 4)).replace("</duration>", "</duration><voice>2</voice>")
    two = note(length=16) + "<backup><duration>16</duration></backup>" + second
    later = "<forward><duration>8</duration></forward>" + note("G4", lyric="la")
    data = song([note("D4", 16)], [two], [later])
    assert placed(read_musicxml(data)) == [(0, 3, 64, "so"), (3, 1, 65, "")]
    assert placed(read_musicxml(data, part=1)) == [(0, 4, 62, "")]
    assert placed(read_musicxml(data, part=3)) == [(2, 1, 67, "la")]
    assert placed(read_musicxml(song([note("", 4)], [note("D4")], [note("E4")]))) == [(0, 1, 62, "")]
    for part in (0, 4):
        with pytest.raises(AffgenError, match=f"part {part} is not among its 3; accepted: parts 1 to 3"):
            read_musicxml(data, part=part)


def test_notes_that_overlap_by_a_rounding_error_follow_each_other():
    bar = note(length=403) + "<backup><duration>3</duration></backup>" + note(length=400)
    assert placed(read_musicxml(song([bar], divisions=400))) == [(0, 1, 60, ""), (1, 1, 60, "")]


def test_transposing_parts_sound_as_they_sound():
    horn = "<transpose><diatonic>-1</diatonic><chromatic>-2</chromatic><octave-change>-1</octave-change></transpose>"
    assert read_musicxml(song([note()], head=FOUR_FOUR + horn)).notes[0].pitch == 46


def test_the_velocity_of_a_note_is_its_loudness_in_percent():
    loud = note().replace("<note>", '<note dynamics="100">') + note().replace("<note>", '<note dynamics="-1">')
    assert [n.velocity for n in read_musicxml(song([loud + note()])).notes] == [90, 80, 80]


# --- tempo, meter, dynamics ------------------------------------------------------------------------------------------


def test_tempo_comes_from_sound_or_metronome_of_any_part():
    metronome = "<metronome><beat-unit>quarter</beat-unit><beat-unit-dot/><per-minute>c. 60</per-minute></metronome>"
    swing = "<metronome><beat-unit>quarter</beat-unit><beat-unit>eighth</beat-unit></metronome>"
    top = [direction(metronome) + note() + direction(swing) + direction(metronome, '<sound tempo="50.5"/>') + note()]
    sung = [note(length=8, lyric="la") + '<sound tempo="70"/>' + note(length=8)]
    assert read_musicxml(song(top, sung)).tempos == (Tempo(0, 90), Tempo(1, 50.5), Tempo(2, 70))
    late = direction("<words>slow</words>", '<offset sound="yes">2</offset><sound tempo="40"/>')
    assert read_musicxml(song([late + note(length=8)])).tempos[-1] == Tempo(0.5, 40)
    shown_late = late.replace(' sound="yes"', "")  # an offset is for the eye unless it says otherwise
    assert read_musicxml(song([shown_late + note(length=8)])).tempos[-1] == Tempo(0, 40)


def test_a_pick_up_bar_and_new_meters_begin_bars():
    three = "<attributes><time><beats>2+1</beats><beat-type>4</beat-type></time></attributes>"
    mixed = "<beats>3</beats><beat-type>8</beat-type><beats>1</beats><beat-type>4</beat-type>"
    bars = [note(), note(length=16), "", three + note(length=12), f"<attributes><time>{mixed}</time></attributes>"]
    score = read_musicxml(song([*bars, note()]))
    assert score.meters == (Meter(0, 4, 4), Meter(1, 4, 4), Meter(9, 3, 4), Meter(12, 5, 8))
    assert [n.onset for n in score.notes] == [0, 1, 9, 14.5]


def test_rests_longer_than_their_bar_do_not_lengthen_it():
    assert [n.onset for n in read_musicxml(song([note("", 32), note("", 32)], [note("", 16), note()])).notes] == [4]
    assert [n.onset for n in read_musicxml(song([note("", 16), note()], [note(), note()]), part=1).notes] == [1]


def wedge(kind: str) -> str:
    return direction(f'<wedge type="{kind}"/>')


def mark(name: str, sound: str = "") -> str:
    return direction(f"<dynamics><{name}/></dynamics>", sound)


@pytest.mark.parametrize(
    ("bar", "points"),
    [
        pytest.param("{p} 1 {f} 1", [(0, 49), (1, 49), (1, 96)], id="a mark is a step"),
        pytest.param("1 {f} 1", [(1, 80), (1, 96)], id="mf before the first mark"),
        pytest.param("{p} 1 {<} 1 {.} {f} 1", [(0, 49), (1, 49), (2, 96)], id="a wedge leads to its mark"),
        pytest.param("{p} {<} 1 {.} 1 {f} 1", [(0, 49), (1, 96), (2, 96)], id="a mark close behind"),
        pytest.param("{f} {<} 1 {.} {p} 1", [(0, 96), (1, 112), (1, 49)], id="a mark of the other direction"),
        pytest.param("{p} {>} 1 {.} 1 1 1", [(0, 49), (1, 33)], id="a wedge alone"),
        pytest.param("{p} {<} 1 {>} 1 {.} 1", [(0, 49), (1, 65), (2, 49)], id="wedge after wedge"),
        pytest.param("{p} {<} 1 {f} 1 {<} 1 {.}", [(0, 49), (1, 96), (2, 96), (3, 112)], id="a wedge without end"),
        pytest.param("{p} {<} 1 {mf} 1 {.} {f} 1", [(0, 49), (1, 80), (2, 96)], id="a mark on the way"),
        pytest.param("{p} {<} 1 {.} 1 1 {f} 1", [(0, 49), (1, 65), (3, 65), (3, 96)], id="a mark too far behind"),
        pytest.param("{.} {p} 1", [(0, 49)], id="an end without wedge"),
        pytest.param("{loud} 1 {sf} 1 {none}", [(0, 90), (2, 90), (2, 49)], id="sound counts, but not for accents"),
        pytest.param("{fp} 1", [(0, 49)], id="fp is p"),
    ],
)
def test_marks_and_wedges_become_dynamics(bar, points):
    signs = {name: mark(name) for name in ("p", "mf", "f", "fp")}
    signs |= {"<": wedge("crescendo"), ">": wedge("diminuendo"), ".": wedge("stop"), "1": note()}
    signs |= {"sf": mark("sf", '<sound dynamics="140"/>'), "loud": mark("f", '<sound dynamics="100"/>')}
    signs |= {"none": mark("p", '<sound dynamics="-1.11"/>')}
    score = read_musicxml(song(["".join(signs[word.strip("{}")] for word in bar.split())]))
    assert score.dynamics == tuple(Dynamic(*point) for point in points)


def test_rehearsal_marks_become_markers_once():
    letter = direction("<rehearsal>A</rehearsal>")
    assert read_musicxml(song([letter + note()], [note() + letter, letter + note()])).markers == (
        Marker(0, "A"),
        Marker(1, "A"),
        Marker(1, "A"),
    )


# --- repeats ---------------------------------------------------------------------------------------------------------


def ending(numbers: str) -> str:
    return f'<barline location="left"><ending number="{numbers}" type="start"/></barline>'


END = '<barline location="right"><ending type="stop"/></barline>'
END_BACK = '<barline location="right"><ending type="stop"/><repeat direction="backward"/></barline>'


@pytest.mark.parametrize(
    ("signs", "order"),
    [
        pytest.param({}, "0123456", id="none"),
        pytest.param({2: BACK}, "0120123456", id="from the start"),
        pytest.param({1: FORWARD, 2: BACK}, "012123456", id="between two signs"),
        pytest.param({1: BACK, 3: BACK}, "01012323456", id="the second from the end of the first"),
        pytest.param({1: BACK.replace("/></b", ' times="3"/></b')}, "01010123456", id="three times"),
        pytest.param({1: ending("1") + END_BACK, 2: ending("2") + END}, "01023456", id="two endings"),
        pytest.param({1: ending("1, 2") + END_BACK, 2: ending("3") + END}, "0101023456", id="three passes"),
        pytest.param({1: ending("1") + END_BACK, 4: BACK}, "010234234 56".replace(" ", ""), id="one ending"),
        pytest.param({1: ending("1") + BACK}, "01023456", id="an ending without end"),
        pytest.param({2: ending("1"), 3: END_BACK, 4: ending("2") + END}, "0123" + "01456", id="a longer ending"),
        pytest.param({1: '<sound fine="yes"/>', 4: '<sound dacapo="yes"/>'}, "0123401", id="D.C. al fine"),
        pytest.param(
            {1: '<sound segno="s"/>', 2: '<sound tocoda="c"/>', 4: '<sound dalsegno="s"/>', 5: '<sound coda="c"/>'},
            "01234" + "12" + "56",
            id="D.S. al coda",
        ),
        pytest.param(
            {1: BACK, 2: ending("1") + END, 3: ending("2") + END, 5: '<sound dacapo="yes"/>'},
            "0101" + "245" + "01" + "3456",
            id="no repeats after D.C., the last ending",
        ),
    ],
)
def test_repeats_are_sung_out(signs, order):
    bars = [signs.get(index, "") + note(length=16, lyric=str(index)) for index in range(7)]
    score = read_musicxml(song(bars))
    assert "".join(lyrics(score)) == order
    assert [n.onset for n in score.notes] == [4 * index for index in range(len(order))]
    accompanied = read_musicxml(song(bars, [note(length=16, lyric="x")] * 7), part=2)
    assert len(accompanied.notes) == len(order)


def test_a_repeat_brings_back_tempo_and_meter():
    three = "<attributes><time><beats>3</beats><beat-type>4</beat-type></time></attributes>"
    score = read_musicxml(song([note(length=16), three + '<sound tempo="60"/>' + note(length=12) + BACK]))
    assert score.tempos == (Tempo(0, 120), Tempo(4, 60), Tempo(7, 120), Tempo(11, 60))
    assert score.meters == (Meter(0, 4, 4), Meter(4, 3, 4), Meter(7, 4, 4), Meter(11, 3, 4))


# --- files -----------------------------------------------------------------------------------------------------------


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def container(path: str) -> bytes:
    other = '<rootfile full-path="song.pdf" media-type="application/pdf"/>'
    return f'<container><rootfiles>{other}<rootfile full-path="{path}"/></rootfiles></container>'.encode()


def test_all_kinds_of_files_are_read_alike(tmp_path):
    data = song([note(lyric="Ä")])
    score = read_musicxml(data)
    heads = (
        '<?xml version="1.0" encoding="{}"?><!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 4.0 '
        'Partwise//EN" "http://www.musicxml.org/dtds/partwise.dtd">'
    )
    for encoding in ("UTF-8", "UTF-16", "ISO-8859-1"):
        assert read_musicxml((heads.format(encoding) + data.decode()).encode(encoding)) == score
    (tmp_path / "a.musicxml").write_bytes(data)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        files = {"META-INF/container.xml": container("in/s.xml"), "song.pdf": b"%PDF", "in/s.xml": data}
        (tmp_path / "a.mxl").write_bytes(packed(files, method))
        assert read_musicxml(tmp_path / "a.mxl") == read_musicxml(str(tmp_path / "a.musicxml")) == score


ONE = song([note()])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b"C D E", "not well-formed XML"),
        (b"<html/>", r"its root is 'html'; accepted: score-partwise"),
        (b"<score-timewise/>", r"its root is 'score-timewise'; accepted: score-partwise, a score by parts"),
        (b"<score-partwise/>", "it has no notes to sing"),
        (song([note("", 16)]), "it has no notes to sing"),
        (ONE[:-20], "not well-formed XML"),
        (ONE.replace(b"<divisions>4</divisions>", b""), "bar 1, note 1: its duration comes before any <divisions>"),
        (ONE.replace(b">4</div", b">0</div"), r"bar 1: its divisions is '0'; accepted: 0.001 to 1,000,000"),
        (song([note(), note() + note(length="x")]), r"bar 2, note 2: its duration is 'x'; accepted: 0 to"),
        (song([note(length=-1)]), "bar 1, note 1: its duration is '-1'"),
        (song([note(length=999_999_999)]), "its duration is 250,000,000 beats; accepted: up to 100,000 beats"),
        (song([note("H4")]), "bar 1, note 1: its step is 'H'; accepted: A to G"),
        (song([note("G9").replace("</step>", "</step><alter>1</alter>")]), "note 1: its pitch is 128; accepted: 0"),
        (ONE.replace(b">4</beat-", b">3</beat-"), r"bar 1: its time signature is '\[4\]/\[3\]'; accepted: 1..255"),
        (song(['<sound tempo="0"/>' + note()]), "bar 1: its tempo is '0'; accepted: 1 to 10,000"),
        (song(['<sound tempo="nan"/>' + note()]), "bar 1: its tempo is 'nan'"),
        (song(['<sound tempo="1"/>' + note(length=16)] * 120), r"it lasts 8\.0 hours; accepted: up to 6 hours"),
        (packed({"song.xml": ONE}), "it holds no 'META-INF/container.xml'"),
        (packed({"META-INF/container.xml": container("s.xml")}), "it holds no 's.xml'"),
        (packed({"META-INF/container.xml": b"<container/>"}), "names no score"),
        (packed({"META-INF/container.xml": container("s.xml"), "s.xml": ONE}, zipfile.ZIP_BZIP2), "unusual way"),
        (packed({"META-INF/container.xml": container("s.xml"), "s.xml": ONE})[:-30], "damaged as a compressed"),
    ],
)
def test_errors_name_file_place_and_what_is_accepted_in_one_line(tmp_path, data, words):
    (tmp_path / "bad.xml").write_bytes(data)
    with pytest.raises(AffgenError, match=words) as caught:
        read_musicxml(tmp_path / "bad.xml")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'bad.xml'}: ") and "; accepted: " in message and "\n" not in message


@pytest.mark.parametrize(("path", "words"), [("absent.xml", "no such file"), (".", "cannot be read"), ("\0", "cannot")])
def test_paths_that_are_no_files_are_refused(tmp_path, path, words):
    with pytest.raises(AffgenError, match=words):
        read_musicxml(f"{tmp_path}/{path}")
