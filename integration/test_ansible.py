"""Ansible's modules of community.general: what a playbook says is made so, once, and taken away again."""

import os
import subprocess
from pathlib import Path

import pytest

from integration.harness import eventually, lxc, lxc_json
from lxdpy.dev.members import Cluster

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

COLLECTIONS = Path(__file__).parents[1] / ".venv" / "ansible"  # scripts/test puts it there
PLAY = """
- hosts: localhost
  gather_facts: false
  module_defaults:
    community.general.lxd_project: &where {{url: "unix:{socket}"}}
    community.general.lxd_profile: *where
    community.general.lxd_container: {{url: "unix:{socket}", timeout: 60}}
  tasks:
"""
MAKE = """
  - community.general.lxd_project: &project
      name: blue
      description: of Ansible
      config: {features.images: "false", features.profiles: "false"}
      merge_project: true  # else the other features, which the server adds, are a difference
  - community.general.lxd_project: *project
  - community.general.lxd_profile: &profile
      name: small
      description: of Ansible
      config: {limits.memory: 64MiB}
      devices: {}
  - community.general.lxd_profile: *profile
  - community.general.lxd_container: &instance
      name: ans
      state: started
      target: n2
      profiles: [default, small]
      source: {type: image, alias: busybox}
      config: {user.by: ansible}
      wait_for_ipv4_addresses: true
  - community.general.lxd_container: *instance
"""
REMOVE = """
  - community.general.lxd_container: {name: ans, state: absent, force_stop: true}
  - community.general.lxd_profile: {name: small, state: absent}
  - community.general.lxd_project: {name: blue, state: absent}
"""


def play(cluster: Cluster, tasks: str) -> list[bool]:
    """Through a member that does not have the instance; which of the tasks changed something."""
    book, home = cluster.state / "play.yaml", cluster.state / "ansible"
    book.write_text(PLAY.format(socket=cluster.members[0].socket) + tasks)
    home.mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_NOCOLOR": "true",
        "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
        "ANSIBLE_LOCALHOST_WARNING": "false",
    }
    done = subprocess.run(
        ["/usr/bin/ansible-playbook", "-i", "localhost,", "-c", "local", str(book)],
        env=environment, cwd=home, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line.partition(": ")[0] for line in done.stdout.splitlines() if ": [localhost]" in line]
    return [word == "changed" for word in told]


def test_a_playbook_is_made_so_once_and_taken_away(cluster: Cluster) -> None:
    second = cluster.members[1]
    assert play(cluster, MAKE) == [True, False] * 3  # done again, nothing is left to do
    (row,) = lxc_json(second, "list", "ans")
    assert (row["status"], row["location"], row["profiles"]) == ("Running", "n2", ["default", "small"])
    assert (row["config"]["user.by"], row["expanded_config"]["limits.memory"]) == ("ansible", "64MiB")
    assert "of Ansible" in lxc(second, "project", "list", "--format=csv")
    assert play(cluster, REMOVE) == [True] * 3
    eventually(lambda: lxc_json(second, "list") == [], within=30)
    eventually(lambda: [row["name"] for row in lxc_json(second, "profile", "list")] == ["default"], within=30)
