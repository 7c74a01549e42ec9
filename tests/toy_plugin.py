"""A small CNI plugin that does all that the specification demands, and others that differ from it in one thing each.

It joins a container to the host by a pair of interfaces, with an address that it manages itself.

They are called a thousand times, so little is imported, and what is not in `START` is compiled once for each.
"""

from __future__ import annotations

START = """#!/usr/bin/python3 -ISE
import sys
sys.path.insert(0, "/opt")
import made
"""
GOOD = r"""
import fcntl, os, sys, time
from _json import encode_basestring_ascii, make_encoder, make_scanner  # `json` takes as long to import as Python to start
from zlib import crc32

SUPPORTED = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
STATE = "/run/toy"
spoken = "1.1.0"


class Plain:
    strict, object_hook, object_pairs_hook, parse_float, parse_int, parse_constant = True, None, None, float, int, None


read = make_scanner(Plain)
shown = make_encoder(None, None, encode_basestring_ascii, None, ": ", ", ", False, False, True)


def end(code=0, document=None):
    if document is not None:
        print("".join(shown(document, 0)), flush=True)
    os._exit(code)  # Python's own way to end takes a tenth of a call


def fail(code, msg):
    end(1, {"cniVersion": spoken, "code": code, "msg": msg})


# What `ip` prints, or None when it fails.  Lines are carried out by one process, until the first that fails.
def ip(words, *lines):
    feed, fed = os.pipe()
    out, printed = os.pipe()
    os.write(fed, "\n".join(lines).encode())
    os.close(fed)
    to = [(os.POSIX_SPAWN_DUP2, feed, 0), (os.POSIX_SPAWN_DUP2, printed, 1)]
    child = os.posix_spawn("/sbin/ip", ["ip", *words.split(), *(["-batch", "-"] if lines else [])], {}, file_actions=to)
    os.close(feed)
    os.close(printed)
    with open(out) as told:
        text = told.read()
    return None if os.waitpid(child, 0)[1] else text


def named(name):
    return bool(name) and name[0].isalnum() and name.isascii() and all(one.isalnum() or one in "_.-" for one in name)


def link(container, ifname):
    return f"toy{crc32(f'{container} {ifname}'.encode()):08x}"


def lease(container, ifname):
    return f"{STATE}/{conf['name']}/{container},{ifname}"


def release(container, ifname):
    with open("/proc/net/dev") as devices:
        if f"{link(container, ifname)}:" in devices.read():
            ip(f"link del {link(container, ifname)}")
    try:
        os.unlink(lease(container, ifname))
    except FileNotFoundError:
        pass


command = os.environ.get("CNI_COMMAND", "")
if command not in ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"):
    fail(4, f"CNI_COMMAND is {command!r}")
try:
    conf = read(sys.stdin.buffer.read().decode(), 0)[0]
except (ValueError, StopIteration) as error:
    fail(6, f"stdin: {error}")
if command == "VERSION":
    end(0, {"cniVersion": conf.get("cniVersion"), "supportedVersions": SUPPORTED})
if conf.get("cniVersion") not in SUPPORTED:
    fail(1, f"version {conf.get('cniVersion')}")
spoken = conf["cniVersion"]
if not named(conf.get("name")):
    fail(7, "name")
os.makedirs(f"{STATE}/{conf['name']}", exist_ok=True)
lock = open(f"{STATE}/lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)

if command == "STATUS":
    end()
if command == "GC":
    valid = {f"{one['containerID']},{one['ifname']}" for one in conf.get("cni.dev/valid-attachments", [])}
    for name in os.listdir(f"{STATE}/{conf['name']}"):
        if name not in valid:
            release(*name.split(","))
    end()

container, netns, ifname = (os.environ.get(f"CNI_{name}", "") for name in ("CONTAINERID", "NETNS", "IFNAME"))
if not named(container):
    fail(4, f"CNI_CONTAINERID is {container!r}")
if not 0 < len(ifname) < 16 or set(ifname) & set("/: ") or ifname in (".", ".."):
    fail(4, f"CNI_IFNAME is {ifname!r}")
if command == "DEL":
    release(container, ifname)
    end()
if not netns:
    fail(4, "CNI_NETNS is missing")
if not os.path.exists(netns):
    fail(3, f"{netns} is not there")
box = os.path.basename(netns)

if command == "CHECK":
    links = read(ip(f"-n {box} -j addr"), 0)[0]
    found = next((one for one in links if one["ifname"] == ifname), None)
    if found is None:
        fail(101, "the interface is gone")
    if "UP" not in found["flags"]:
        fail(101, "the interface is down")
    if conf["prevResult"]["ips"][0]["address"].split("/")[0] not in [one.get("local") for one in found["addr_info"]]:
        fail(101, "the address is gone")
    if "default" not in ip(f"-n {box} route"):
        fail(101, "the route is gone")
    end()

taken = set()
for name in os.listdir(f"{STATE}/{conf['name']}"):
    with open(f"{STATE}/{conf['name']}/{name}") as file:
        taken.add(file.read())
number = next(one for one in map(str, range(2, 250)) if one not in taken)
address, host = f"10.99.0.{number}", link(container, ifname)
mac, beyond = (f"02:{one}:{host[3:5]}:{host[5:7]}:{host[7:9]}:{host[9:11]}" for one in ("0a", "0b"))
pair = f"link add {host} address {beyond} mtu 1400 type veth peer {ifname} address {mac} mtu 1400 netns {box}"
if ip("", pair, f"link set {host} up", f"route add {address}/32 dev {host}") is None:
    fail(102, f"{ifname} is there already")
with open(lease(container, ifname), "w") as file:
    file.write(number)
default = f"route add default via 10.99.0.1 dev {ifname} metric {10 if ifname == 'eth0' else 20}"
if ip(f"-n {box}", f"link set {ifname} up", f"addr add {address}/24 dev {ifname}", default) is None:
    fail(100, "ip fails")
result = {
    "cniVersion": spoken,
    "interfaces": [{"name": host, "mac": beyond}, {"name": ifname, "mac": mac, "sandbox": netns}],
    "ips": [{"address": f"{address}/24", "interface": 1}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.99.0.1"}],
}
if spoken < "1.0.0":
    result["ips"][0]["version"] = "4"
if spoken >= "1.1.0":
    result["interfaces"][1]["mtu"] = 1400
end(0, result)
"""

_DEL = "    release(container, ifname)\n    end()"
_HALF = "f'{STATE}/half'"
_RACY = "fcntl.flock(lock, fcntl.LOCK_UN)\nif len(os.listdir('/run/netns')) > 4:\n    time.sleep(0.5)\n"  # others shall get there
# What is another in it -> the checks that have to find it, and no others.
BAD: dict[str, tuple[tuple[str, str], set[str]]] = {
    "no table": (('"supportedVersions": SUPPORTED', '"supported": SUPPORTED'), {"version-table"}),
    "no echo": (('"cniVersion": conf.get("cniVersion"), "supp', '"cniVersion": "1.1.0", "supp'), {"version-echo"}),
    "any version": (('if conf.get("cniVersion") not in SUPPORTED:', 'if not conf.get("cniVersion"):'), {"version-unsupported"}),
    "one version": (('"cniVersion": spoken,\n    "interfaces"', '"cniVersion": "1.1.0",\n    "interfaces"'), {"version-each"}),
    "any command": (('    fail(4, f"CNI_COMMAND', '    fail(7, f"CNI_COMMAND'), {"env-command"}),
    "wrong code": (('fail(4, "CNI_NETNS is missing")', 'fail(3, "CNI_NETNS is missing")'), {"env-missing"}),
    "no name of it": (('fail(4, "CNI_NETNS is missing")', 'fail(4, "something is missing")'), {"env-missing"}),
    "any id": (("named(container)", "container"), {"env-invalid"}),
    "any interface": (('or ifname in (".", "..")', ""), {"env-invalid"}),
    "undecoded": (('fail(6, f"stdin', 'fail(100, f"stdin'), {"stdin-undecodable"}),
    "any network": (('named(conf.get("name"))', 'conf.get("name")'), {"config-invalid"}),
    "picky": (("spoken = conf", 'if "x-unknown-field" in conf:\n    fail(7, "no")\nspoken = conf'), {"unknown-fields"}),
    "picky, silent": (("spoken = conf", 'if "x-unknown-field" in conf:\n    fail(2, "no")\nspoken = conf'), {"unknown-fields"}),
    "talkative": (("end(0, result)", 'print("done")\nend(0, result)'), {"add-result", "version-each"}),
    "nobody's": (('"sandbox": netns', '"sandbox": "/run/netns/other"'), {"add-result"}),
    "wrong address": (('{"address": f"{address}/24", "int', '{"address": f"{address}/25", "int'), {"add-true"}),
    "wrong mac": (('"mac": mac,', '"mac": "02:00:00:00:00:01",'), {"add-true"}),
    "wrong mtu": (('["mtu"] = 1400', '["mtu"] = 1500'), {"add-true"}),
    "wrong gateway": (('"gw": "10.99.0.1"}', '"gw": "10.99.0.3"}'), {"add-true"}),
    "careless": (('fail(102, f"{ifname} is', 'end(0, f"{ifname} is'), {"add-existing", "add-twice"}),
    "destructive": (
        ('    fail(102, f"{ifname}', "    ip(f'-n {box} link del {ifname}')\n    fail(102, f\"{ifname}"),
        {"add-existing", "add-twice"},
    ),
    "no namespace": (('    fail(3, f"{netns} is not there")', "    end(0, {})"), {"add-no-netns"}),
    "worried": (("    links = ", '    fail(101, "who knows")\n    links = '), {"check-passes"}),
    "address unseen": (('fail(101, "the address is gone")', "end()"), {"check-address"}),
    "route unseen": (('fail(101, "the route is gone")', "pass"), {"check-route"}),
    "state unseen": (('fail(101, "the interface is down")', "end()"), {"check-link-down"}),
    "absence unseen": (('fail(101, "the interface is gone")', "end()"), {"check-link-gone"}),
    "strict": (("NotFoundError:\n        pass", 'NotFoundError:\n        fail(3, "unknown")'), {"del-twice", "del-unknown"}),
    "forgetful": (
        ("        os.unlink(lease(", "        open(lease("),
        {"del-removes", "del-no-netns", "del-netns-gone", "gc"},
    ),
    "needs a namespace": ((_DEL, f'    if not netns:\n        fail(4, "CNI_NETNS is missing")\n{_DEL}'), {"del-no-netns"}),
    "needs it to be there": (
        (_DEL, f'    if netns and not os.path.exists(netns):\n        fail(3, "gone")\n{_DEL}'),
        {"del-netns-gone"},
    ),
    "greedy": (
        (_DEL, "    for one in os.listdir(f\"{STATE}/{conf['name']}\"):\n        release(*one.split(','))\n" + _DEL),
        {"del-others", "second-interface"},
    ),
    "whole container": ((_DEL, f'    release(container, "eth0")\n{_DEL}'), {"second-interface"}),
    "racy": (("number = next(", _RACY + "number = next("), {"add-many"}),
    "lazy": (
        (
            "with open(lease(container, ifname), ",
            f"open({_HALF}, 'w').close()\ntime.sleep(0.3)\nos.unlink({_HALF})\nwith open(lease(container, ifname), ",
        ),
        {"add-killed"},
    ),
    "leaks": (("        if name not in valid:", "        if False:"), {"gc"}),
    "collects all": (("        if name not in valid:", "        if True:"), {"gc"}),
    "never ready": (('"STATUS":\n    end()', '"STATUS":\n    fail(50, "not yet")'), {"status"}),
    "terse": (('end(1, {"cniVersion": spoken, "code"', 'end(1, {"code"'), {"error-form"}),
}


# These are in one plugin: no check has to find two of them, and none keeps the check of another from being made.
TOGETHER: tuple[tuple[str, ...], ...] = (
    ("no echo", "any version", "one version"),
    ("any command", "wrong code", "any id"),
    ("no name of it", "any interface"),
    ("undecoded", "any network", "picky"),
    ("wrong address", "careless", "no namespace"),
    ("wrong mac", "destructive"),
    ("wrong mtu", "never ready", "picky, silent"),
    ("wrong gateway", "whole container"),
    ("address unseen", "route unseen", "state unseen", "absence unseen"),
    ("strict", "leaks"),
    ("needs a namespace", "needs it to be there"),
    ("greedy", "collects all"),
)


def bad(*names: str) -> str:
    """The plugin with these things another."""
    made = GOOD
    for name in names:
        (old, new), _ = BAD[name]
        assert old in made, name
        made = made.replace(old, new)
    return made
