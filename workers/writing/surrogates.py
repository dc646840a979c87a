"""Halves of characters: JSON from a provider may hold them, each in a delta of its own; UTF-8 cannot."""


def well_formed(text: str) -> str:
    """Halves of a surrogate pair joined, lone ones replaced."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def ends_in_half(text: str) -> bool:
    """Whether what comes next may be the other half of the last character."""
    return "\ud800" <= text[-1:] <= "\udbff"
