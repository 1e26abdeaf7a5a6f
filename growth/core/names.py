"""Names that become names of files and folders, on any file system."""

import unicodedata

LONGEST_NAME = 200  # bytes; leaves room for what is put before and behind a name
_LONGEST_IN_STUDY = 80  # characters


def fault_of_name(name: str) -> str:
    """Why a file can't be called `name`; empty if it can."""
    if not name or name != name.strip() or name.startswith("."):
        return "a name is not empty and begins neither with a point nor with a space"
    if any(not character.isprintable() or character in '/\\:*?"<>|' for character in name):
        return 'a name has no control character and none of / \\ : * ? " < > |'
    if len(name.encode()) > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} bytes"
    return ""


def fault_in_study(name: str) -> str:
    """Why no ability, series or setting of a study can be called `name`; empty if one can."""
    fault = fault_of_name(name)
    if fault or " " in name or name.startswith("-") or len(name) > _LONGEST_IN_STUDY:
        plain = f"{name!r}: expected a plain name without spaces, not - first, such as tax_law"
        return f"{plain}; {fault}" if fault else plain
    return ""


def name_key(name: str) -> str:
    """The same for names of which some file systems would make one file: case, composition."""
    return unicodedata.normalize("NFC", name.casefold())
