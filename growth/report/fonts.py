"""Fonts for titles and names of any script, of those that the machine has.

matplotlib's own font has no Chinese; what no font has is drawn as code points.
"""

import logging
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.font_manager import FontProperties, fontManager, get_font

# Looked at first, so that simplified Chinese gets its own forms where several fonts have the
# characters. Any other font of the machine that has them will do.
_PREFERRED = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("PingFang SC", "Microsoft YaHei", "Hiragino Sans GB", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "SimHei", "Noto Serif CJK SC", "SimSun", "Arial Unicode MS"),
)
_SHOWN = 8  # characters that a note names
_NONE = "\ufffe\uffff"  # not characters, says Unicode
_LAST_RESORT = "Last Resort"  # matplotlib's own, whose glyphs are boxes


@dataclass(frozen=True)
class Fonts:
    """What the texts of some figures are drawn with.

    Attributes:
        families: matplotlib's own, and those that have what it lacks.
        missing: the characters that no font has, and controls.
    """

    families: tuple[str, ...] = ()
    missing: frozenset[str] = frozenset()

    def title(self, title: str, name: str) -> str:
        """A title if it can be drawn, or else the name."""
        return title if self.missing.isdisjoint(title) else self.drawable(name)

    def drawable(self, text: str) -> str:
        """A text in which code points stand for the characters that are missing: \\u901a, \\x1b."""
        return "".join(
            c.encode("unicode_escape").decode() if c in self.missing else c for c in text
        )

    def notes(self) -> list[str]:
        """What is missing, what becomes of it, and the remedy; nothing where nothing is."""
        without_font = sorted(c for c in self.missing if not _is_control(c))
        if not without_font:
            return []
        return [
            f"no font of this machine has {' '.join(without_font[:_SHOWN])}; abilities "
            "whose titles need it go by their names, and elsewhere its code point is drawn, "
            f"{self.drawable(without_font[0])}. Install a font that has it (fonts-noto-cjk, say) "
            f"and remove matplotlib's list of fonts, {matplotlib.get_cachedir()}/fontlist-*.json"
        ]

    @contextmanager
    def used(self) -> Iterator[None]:
        """Draw with these fonts; of what is missing `notes` has said so."""
        families = list(self.families or matplotlib.rcParams["font.family"])
        logger = logging.getLogger("matplotlib.font_manager")
        level = logger.level
        with matplotlib.rc_context({"font.family": families}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            logger.setLevel(logging.ERROR)  # a font without a bold form is drawn as it is
            try:
                yield
            finally:
                logger.setLevel(level)


DEFAULT_FONTS = Fonts()


def fonts_for(texts: Iterable[str]) -> Fonts:
    """The fonts of this machine that `texts` need."""
    default = get_font(fontManager.findfont(FontProperties()))
    characters = set("".join(texts))
    missing = {c for c in characters if c.isprintable() and not c.isspace()}
    missing -= _characters(default)
    families = list(matplotlib.rcParams["font.family"])
    for name, path in _others() if missing else ():
        if has := missing & _characters(get_font(path)):
            families.append(name)
            missing -= has
        if not missing:
            break
    return Fonts(tuple(families), frozenset(missing | set(filter(_is_control, characters))))


def _is_control(character: str) -> bool:
    """Whether it is one that no SVG may hold; a line feed is drawn as such."""
    return (unicodedata.category(character) == "Cc" and character != "\n") or character in _NONE


def _characters(font: object) -> set[str]:
    return set(map(chr, font.get_charmap()))  # type: ignore[attr-defined] # compiled


def _others() -> list[tuple[str, str]]:
    """Upright fonts, one file a family, those preferred first: name and path."""
    found = {
        entry.name: entry.fname
        for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, entry.fname))
        if entry.style == "normal" and not entry.name.startswith(_LAST_RESORT)
    }
    places = {name: place for place, name in enumerate(_PREFERRED)}
    return sorted(found.items(), key=lambda font: (places.get(font[0], len(places)), font[0]))
