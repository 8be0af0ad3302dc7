"""Reads a page as a browser would, without running it."""

from html.parser import HTMLParser


class PageReader(HTMLParser):
    """Collects what a browser would load, the elements, the text, and the embedded data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.data = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self._inside = given.get("id") or tag
        links = ("src", "href", "srcset", "action", "data", "poster", "style")
        self.loads += [value for key, value in attrs if key in links and value is not None]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "report-data":
            self.data += data
        elif self._inside not in ("script", "style"):
            self.text += data
