"""A cluster as a drawing: what there is (`nouns`, made by `draw` from a design), and where it stands (`layout`).  Pure.

The formats are in `emulab.report`: `drawing_svg`, `drawing_mermaid`, `drawing_dot`.
"""

from emulab.drawing.designed import draw
from emulab.drawing.nouns import Device, Drawing, Host, Node, Overlay, Pod, Segment

__all__ = ["Device", "Drawing", "Host", "Node", "Overlay", "Pod", "Segment", "draw"]
