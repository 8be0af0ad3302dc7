"""systemd units of a deployment: what a node or the server may do on its machine, and no more.

`systemd-analyze security --offline=true` gives both at most 3.0. What is left out, and why:

MemoryDenyWriteExecute   torch compiles kernels while it runs: oneDNN on CPUs, NVRTC on GPUs
PrivateDevices           of nodes: it hides the GPU; only NVIDIA's devices are allowed instead
ProcSubset=pid           torch reads /proc/cpuinfo, Flower's processes /proc/stat and /proc/meminfo
PrivateNetwork, IPAddressDeny   nodes call the SuperLink, whose address is a name
"""

import re
from pathlib import Path

_UNIT = """\
# Copy to /etc/systemd/system. Supposes the app's virtual environment in /opt/pluralllm-app/.venv,
# and a user "pluralllm" who owns {directory}.
[Unit]
Description=PluralLLM {what}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
User=pluralllm
Environment=PATH=/opt/pluralllm-app/.venv/bin:/usr/bin:/bin
ExecStart={start}
# A SuperNode that is refused for its clock ends with status 0.
Restart=always
# It takes the SuperLink up to a minute to notice that a node was killed.
RestartSec=60
UMask=0077
{memory}

# What it may write.
ProtectSystem=strict
ReadWritePaths={directory}
PrivateTmp=yes
ProtectHome=yes

# What it may ask of the kernel.
NoNewPrivileges=yes
CapabilityBoundingSet=
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
LockPersonality=yes
RemoveIPC=yes

# What it may see and change of the machine.
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
{devices}

[Install]
WantedBy=multi-user.target
"""
_SERVER_MEMORY = """\
# The SuperLink and the server's app take less than 600 MiB, see Sizing in docs/deployment.md.
MemoryMax=2G
# Above the connections that it keeps: 256 of strangers, 32 of each node.
LimitNOFILE=8192"""
_NODE_MEMORY = """\
# SuperNode and app take less than 600 MiB, see Sizing in docs/deployment.md, with CUDA some GB.
MemoryMax=6G"""
_NODE_DEVICES = """\
# GPUs of NVIDIA; for others, DeviceAllow= /dev/kfd and /dev/dri as well.
DevicePolicy=closed
DeviceAllow=char-nvidia* rw"""


def superlink_unit(directory: Path) -> str:
    """The systemd unit of the SuperLink, whose files are in this directory."""
    return _unit(directory, "SuperLink", memory=_SERVER_MEMORY, devices="PrivateDevices=yes")


def supernode_unit(directory: Path, slug: str) -> str:
    """The systemd unit of the SuperNode of a group with this slug, in this directory."""
    return _unit(directory, f"SuperNode {slug}", memory=_NODE_MEMORY, devices=_NODE_DEVICES)


def _unit(directory: Path, what: str, **parts: str) -> str:
    start = _unit_path(directory / "start.sh")
    return _UNIT.format(directory=_unit_path(directory), start=start, what=what, **parts)


def _unit_path(path: Path) -> str:
    """A path as systemd reads it back; it takes % for a specifier, and spaces for separators."""
    text = str(path).replace("%", "%%")
    if re.fullmatch(r"[\w/.%-]+", text):
        return text
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'
