"""Which pummelo this is: its version, and whether its request path was compiled when it was installed."""

from importlib.metadata import PackageNotFoundError, version

from handlers import node

__all__ = ["build", "is_compiled"]


def is_compiled() -> bool:
    """Return whether the request path runs as compiled modules rather than from its sources."""
    return not node.__file__.endswith(".py")


def build() -> str:
    """Return the version, and in brackets how the request path runs."""
    try:
        known = version("pummelo")
    except PackageNotFoundError:
        known = "of a folder that is not installed"
    return f"{known} ({'compiled' if is_compiled() else 'not compiled'})"
