"""Surrogate halves. JSON from a provider can contain them, even in separate deltas; UTF-8 cannot."""


def well_formed(text: str) -> str:
    """Join the halves of surrogate pairs and replace lone ones."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def ends_in_half(text: str) -> bool:
    """Return True if the last character is the first half of a surrogate pair."""
    return "\ud800" <= text[-1:] <= "\udbff"
