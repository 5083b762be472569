"""Checks of the pages that Doxygen has made: docs/api/check.py FOLDER, called by scripts/api-pages.

Doxygen 1.9.4 does not warn of values of enums without a comment, nor of links to files that are not among
the pages. Exit status: 0, or 1 if there are any.
"""

import pathlib
import re
import sys
from xml.etree import ElementTree


def undocumented(folder: pathlib.Path) -> list[str]:
    """Values of enums without a comment, as `file: name`."""
    found = []
    for path in sorted((folder / "xml").glob("*.xml")):
        for value in ElementTree.parse(path).iter("enumvalue"):
            texts = [value.find(kind) for kind in ("briefdescription", "detaileddescription")]
            if not any("".join(text.itertext()).strip() for text in texts if text is not None):
                found.append(f"{path.name}: {value.findtext('name')} is not documented")
    return found


def dead_links(folder: pathlib.Path) -> list[str]:
    """Links to files that are not there, as `page: link`."""
    found = []
    for page in sorted(folder.glob("*.html")):
        for link in re.findall(r'(?:href|src)="([^"#]+)', page.read_text()):
            if not re.match(r"\w+:", link) and (".." in link or not (folder / link).exists()):
                found.append(f"{page.name}: there is no {link}")
    return found


def main() -> int:
    """Prints what is wrong."""
    folder = pathlib.Path(sys.argv[1])
    wrong = undocumented(folder) + dead_links(folder)
    for line in wrong:
        print(f"scripts/api-pages: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
