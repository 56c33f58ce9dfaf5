"""PURE: which image a request means."""

from collections.abc import Mapping

from cluster.errors import Invalid, NotFound
from cluster.state.txn import State
from lxdpy.resources.images.model import ALIASES, IMAGES, Image
from lxdpy.resources.projects.model import home


def find_image(
    state: State,
    project: str,
    fingerprint: str = "",
    alias: str = "",
    properties: Mapping[str, str] | None = None,
) -> Image:
    """By fingerprint (or its unambiguous beginning), alias, or the newest with all the properties.

    Raises NotFound; Invalid when nothing is asked for or a beginning fits several.
    """
    own = home(state, project, "images")
    if fingerprint:
        return by_fingerprint(state, own, fingerprint)
    if alias:
        row = state.find(ALIASES, f"{own}/{alias}")
        if row is None:
            raise NotFound(f"Image alias not found: {alias}", alias=alias)
        return state.get(IMAGES, f"{own}/{row.target}")
    if properties:
        fit = [
            image
            for image in state.rows(IMAGES).values()
            if image.project == own and properties.items() <= image.properties.items()
        ]
        if fit:
            return max(fit, key=lambda image: (image.created_at, image.fingerprint))
        raise NotFound("No matching image could be found")
    raise Invalid("Must specify one of alias, fingerprint or properties for init from image", key="source")


def by_fingerprint(state: State, project: str, start: str) -> Image:
    """Raises NotFound, Invalid. `project` is the one whose images are meant."""
    exact = state.find(IMAGES, f"{project}/{start}")
    if exact is not None:
        return exact
    fit = [i for i in state.rows(IMAGES).values() if i.project == project and i.fingerprint.startswith(start)]
    if len(fit) > 1:
        raise Invalid("More than one image matches", fingerprint=start)
    if not fit or not start:
        raise NotFound("Image not found", fingerprint=start)
    return fit[0]
