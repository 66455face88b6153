"""What matplotlib writes as SVG, made smaller and fit to stand with others in one page."""

import re
from html import escape

_ROOT = re.compile(r"<svg\b[^>]*>")
_VIEW = re.compile(r'\bviewBox="[-0-9. ]+"')
_TAG = re.compile(r"<[^<>]*>")
_ID = re.compile(r'\s+id="([^"]*)"')
_USED = re.compile(r'(?:url\(#|href="#)([^")]*)')
# Comments, and a style that would act on the whole page around the drawing.
_EXTRA = re.compile(r"<!--.*?-->|<style\b.*?</style>|<metadata\b.*?</metadata>", re.DOTALL)
_EMPTY = re.compile(r"\s*(?:<defs>\s*</defs>|<g/>)")
_PLACES = re.compile(r'\b(?:d|x|y|x1|x2|y1|y2|points)="[^"]*"')
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_ROTATION = re.compile(r' transform="rotate\(-?0 [^"]*\)"')
_SPACE = re.compile(r">\s*\n\s*<")
_BREAK = re.compile(r"\s*\n")


def tidy(text: str, width: int, height: int, title: str) -> str:
    """The drawing without what nothing refers to.

    Args:
        text: As matplotlib writes it.
        width: In pixels of a page.
        height: The same.
        title: What the drawing is called; plain text.

    Returns:
        SVG that begins with its root element. It has no ids but those it uses itself, which come
        from what they name and the picture's salt; places have two decimals, a hundredth of a
        point.
    """
    root = _ROOT.search(text)
    assert root is not None
    view = _VIEW.search(root[0])
    assert view is not None
    body = _EMPTY.sub("", _EXTRA.sub("", text[root.end() :]))
    used = set(_USED.findall(body))

    def shorter(tag: re.Match[str]) -> str:
        kept = _ID.sub(lambda found: found[0] if found[1] in used else "", tag[0])
        kept = _ROTATION.sub("", kept)
        return _PLACES.sub(lambda place: _DECIMALS.sub(r"\1", _BREAK.sub(" ", place[0])), kept)

    body = _SPACE.sub(">\n<", _TAG.sub(shorter, body))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" {view[0]} '
        f'stroke-linejoin="round" stroke-linecap="butt" role="img">'
        f"<title>{escape(title)}</title>{body}"
    )
