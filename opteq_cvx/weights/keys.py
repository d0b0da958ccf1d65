"""Keys: the attribute name of a weight in its module, from the name the user gave it."""

from torch import nn

PREFIX = "weight__"


def safe_key(name: str, taken: type[nn.Module]) -> str:
    """`name` where it can name a parameter of a `taken` module, else an escaped form; one to one.

    Escaped are names that are not identifiers (a dot is not allowed in a parameter's name), that begin
    with PREFIX, and attributes of the module: PREFIX, then every character but letters and digits as
    `_<hex>_`.
    """
    probe = nn.Module()
    clash = name in dir(taken) or name in probe.__dict__ or name in ("parametrizations", "original")
    if name.isidentifier() and not clash and not name.startswith(PREFIX) and not name.startswith("_"):
        return name
    return PREFIX + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}_" for c in name)
