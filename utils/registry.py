"""Keep tables from published names to the things that carry them, all by one class."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from utils.errors import RegistryError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean X?" with the known name that is most like `name`; "" where none is like it."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else ""


class Registry(Generic[T]):
    """A table of names; an unknown one raises, lists the known ones and says where to register another.

    Its type says what every entry promises: `Registry[Callable[[Path], Clip]]`. Messages say `kind`, what the entries
    are ("head", "decoder"), `home`, the file or folder that registers them, and `also`, names that are no entries, but
    stand for one of them ("auto").
    """

    def __init__(self, kind: str, home: str, also: tuple[str, ...] = ()):
        self.kind, self.home, self.also = kind, home, also
        self._entries: dict[str, T] = {}

    def register(self, *names: str) -> Callable[[T], T]:
        """Return a decorator that files an entry under each of `names`. Raises RegistryError on a taken name."""

        def file_entry(entry: T) -> T:
            for name in names:
                if name in self._entries:
                    raise RegistryError(f"{self.kind} {name!r} is registered twice")
                self._entries[name] = entry
            return entry

        return file_entry

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise RegistryError(self.unknown(name))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def unknown(self, name: str) -> str:
        """Return the message for a name that is not here, with the nearest known one."""
        known = sorted([*self._entries, *self.also])
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        return f"unknown {self.kind} {name!r}{hint}; known: {', '.join(known)} (another is registered in {self.home})"
