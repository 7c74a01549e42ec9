"""A check file as it is written: typed structs, from which editors get their JSON schema."""

from __future__ import annotations

from typing import Annotated, Any, Union

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from emulab.expectation import ENCAPSULATIONS, PROTOCOLS
from emulab.faults import FAULTS

SCHEMA_ID = "emulab-check.schema.json"
BARE = ("heal", "repair", "fault clear")  # steps that need nothing more said

_KINDS = {"extra_json_schema": {"enum": list(PROTOCOLS)}}


def _between(least: int, most: int, description: str) -> Meta:
    """Of what `Expectation` takes: it complains in better words than msgspec would."""
    return Meta(description=description, extra_json_schema={"minimum": least, "maximum": most})


Amount = Union[str, int, float]
Texts = Union[str, list[str]]
Manifests = Union[str, dict[str, Any], list[Union[str, dict[str, Any]]]]
_POD = Annotated[Texts, Meta(description="A pod, or a list of pods: a1, shop/web.")]
_NODE = Annotated[str, Meta(description="A node's name.")]
_MANIFESTS = (
    "Kubernetes manifests: the path of a file or a folder, beside the check file, or an object written out; or a list of them."
)


class Expected(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What is expected of the flows between some ends."""

    source: Annotated[
        str, Meta(description="A pod (a1, shop/web), pods by pattern (shop/*, *) or labels (shop/app=web), a node, internet.")
    ] = field(name="from")
    destination: Annotated[str, Meta(description="The same, or a Service (svc/web).")] = field(name="to")
    reaches: Annotated[bool, Meta(description="false: the request does not even arrive.")] = True
    protocol: Annotated[str, Meta(description="icmp if not given.", **_KINDS)] = "icmp"
    port: Annotated[int, _between(1, 65535, "Of TCP or UDP; 8080 if not given, of a Service its first.")] | UnsetType = UNSET
    family: (
        Annotated[int, Meta(description="Each that both ends have, if not given.", extra_json_schema={"enum": [4, 6]})]
        | UnsetType
    ) = UNSET
    size: Annotated[int, _between(60, 65000, "Bytes of the IP packet, for ICMP and UDP.")] | UnsetType = UNSET
    nat: Annotated[bool, Meta(description="false: nothing is rewritten, there or back; true: something is.")] | UnsetType = UNSET
    encapsulation: (
        Annotated[
            str,
            Meta(description="Of what crosses the underlay.", extra_json_schema={"enum": list(ENCAPSULATIONS)}),
        ]
        | UnsetType
    ) = UNSET
    vni: Annotated[int, Meta(ge=0, le=2**24 - 1, description="With encapsulation vxlan.")] | UnsetType = UNSET
    hops: Annotated[int, _between(0, 64, "Routers passed: what the packet loses of its TTL.")] | UnsetType = UNSET
    mtu: Annotated[int, _between(68, 65000, "Bytes of the largest IP packet that passes.")] | UnsetType = UNSET
    seen_as: Annotated[str, Meta(description="The source address that the destination sees.")] | UnsetType = UNSET
    dropped_at: Annotated[str, Meta(description="A node, a pod or node:interface: where a packet was seen last.")] | UnsetType = (
        UNSET
    )
    within: (
        Annotated[Amount, Meta(description="A time in which it comes to hold, e.g. 5s; at once if not given.")] | UnsetType
    ) = UNSET


Sentence = Annotated[
    str,
    Meta(
        description="FROM reaches|cannot reach TO [tcp/80] [over IPv6] [without NAT] [encapsulated vxlan] [in 2 hops] "
        "[with MTU 1450] [seen as 10.1.1.1] [dropped at node-c] [within 5s]",
        examples=["a1 reaches c2 tcp/80 without NAT", "x/* cannot reach y/* tcp/80"],
        extra_json_schema={"pattern": r"^\s*\S+\s+([Rr]eaches|REACHES|[Cc]annot\s+reach|CANNOT\s+REACH)\s+\S+"},
    ),
]
Expectations = Union[Sentence, Expected, list[Union[Sentence, Expected]]]
_EXPECT = Annotated[
    Expectations, Meta(description="What holds now: sentences, or mappings with from, to and what is expected of the packets.")
]


class PodAdd(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(description="NAME or NAMESPACE/NAME.")]
    node: _NODE
    ip: Annotated[Texts, Meta(description="A fixed address; at most one per family.")] | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET


class NodeAdd(Struct, forbid_unknown_fields=True):
    name: _NODE
    segment: Annotated[str, Meta(description="The switch that it is linked to; the first if not given.")] | UnsetType = UNSET
    ip: Annotated[Texts, Meta(description="Its underlay address; at most one per family.")] | UnsetType = UNSET


class LinkSet(Struct, forbid_unknown_fields=True):
    node: _NODE
    rate: Annotated[Amount, Meta(description="e.g. 10mbit; 0: unshaped.")] | UnsetType = UNSET
    delay: Annotated[Amount, Meta(description="e.g. 50ms; needs sch_netem.")] | UnsetType = UNSET
    loss: Annotated[Amount, Meta(description="e.g. 1%; needs sch_netem.")] | UnsetType = UNSET


_FAULT = Annotated[str, Meta(description="See `emulab fault list`.", extra_json_schema={"enum": list(FAULTS)})]


class Fault(Struct, forbid_unknown_fields=True):
    name: _FAULT
    at: Annotated[str, Meta(description="A node or a pod; the first where it applies, if not given.")] | UnsetType = UNSET


class Step(Struct, forbid_unknown_fields=True):
    """One of these; they are called like emulab's commands."""

    expect: _EXPECT | UnsetType = UNSET
    apply: Annotated[Manifests, Meta(description=f"Create or replace objects.  {_MANIFESTS}")] | UnsetType = UNSET
    delete: (
        Annotated[
            Texts,
            Meta(description="KIND/NAME, KIND/NAMESPACE/NAME, or a manifest's path; or a list.", examples=["netpol/deny-all"]),
        ]
        | UnsetType
    ) = UNSET
    pod_add: Annotated[PodAdd, Meta(description="Add a pod.")] | UnsetType = field(default=UNSET, name="pod add")
    pod_rm: _POD | UnsetType = field(default=UNSET, name="pod rm")
    pod_ready: _POD | UnsetType = field(default=UNSET, name="pod ready")
    pod_unready: _POD | UnsetType = field(default=UNSET, name="pod unready")
    node_add: Annotated[Union[str, NodeAdd], Meta(description="Add a node: its name, or more.")] | UnsetType = field(
        default=UNSET, name="node add"
    )
    node_rm: _NODE | UnsetType = field(default=UNSET, name="node rm")
    node_stop: _NODE | UnsetType = field(default=UNSET, name="node stop")
    node_start: _NODE | UnsetType = field(default=UNSET, name="node start")
    link_down: _NODE | UnsetType = field(default=UNSET, name="link down")
    link_up: _NODE | UnsetType = field(default=UNSET, name="link up")
    link_set: Annotated[LinkSet, Meta(description="Shape a node's uplink.")] | UnsetType = field(default=UNSET, name="link set")
    partition: (
        Annotated[
            Union[str, list[Union[str, list[str]]]],
            Meta(
                description="Sides that the underlay parts; a single one is parted from all other nodes.",
                examples=["node-a,node-b | node-c", [["node-a", "node-b"], ["node-c"]]],
            ),
        ]
        | UnsetType
    ) = UNSET
    heal: Annotated[None, Meta(description="Undo all partitions.")] | UnsetType = UNSET
    fault_inject: Annotated[Union[_FAULT, Fault], Meta(description="Break the lab in a known way.")] | UnsetType = field(
        default=UNSET, name="fault inject"
    )
    fault_clear: Annotated[None, Meta(description="Undo all faults.")] | UnsetType = field(default=UNSET, name="fault clear")
    repair: (
        Annotated[Union[str, list[str], None], Meta(description="Put back what is not as planned, everywhere or in some nodes.")]
        | UnsetType
    ) = UNSET


Scalar = Union[str, int, float, bool, None]


class File(Struct, forbid_unknown_fields=True):
    """A check of emulab: what is done to a lab, and expected of it."""

    name: Annotated[str, Meta(description="What the check is called; the file's name if not given.")] | UnsetType = UNSET
    description: Annotated[str, Meta(description="What is checked, and why.")] = ""
    topology: (
        Annotated[
            str,
            Meta(
                description="A name of `emulab topologies`, such as flat or fleet,10,5, or the path of a file beside this one.",
                examples=["flat", "two-racks", "fleet,10,5", "./mine.yaml"],
            ),
        ]
        | UnsetType
    ) = UNSET
    plugin: Annotated[
        Texts,
        Meta(description="The data plane, or a list: the check runs once with each.", examples=["calico", ["flannel", "weave"]]),
    ] = "flannel"
    set: Annotated[
        dict[str, Union[Scalar, dict[str, Scalar]]],
        Meta(description="Options of the plugin, as of --set; with several plugins {calico: {encap: vxlan}, …}."),
    ] = {}
    manifests: Annotated[Manifests, Meta(description=f"What is there at the start.  {_MANIFESTS}")] | UnsetType = UNSET
    expect: _EXPECT | UnsetType = UNSET
    steps: (
        Annotated[
            list[
                Union[
                    Step,
                    Annotated[str, Meta(description="A step that needs no more said.", extra_json_schema={"enum": list(BARE)})],
                ]
            ],
            Meta(description="What is done, and expected, one after the other; instead of expect."),
        ]
        | UnsetType
    ) = UNSET


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a check file."""
    (root,), found = msgspec.json.schema_components([File], ref_template="#/$defs/{name}")
    one = {"minProperties": 1, "maxProperties": 1}
    found["Step"] = {**found["Step"], **one}
    found["File"] = {**found["File"], "oneOf": [{"required": ["expect"]}, {"required": ["steps"]}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "A check of emulab",
        **root,
        "$defs": found,
    }
