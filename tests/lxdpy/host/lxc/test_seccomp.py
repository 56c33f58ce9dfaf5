from lxdpy.host.lxc.seccomp import asks, policy


def test_the_default_denies_modules_handles_and_kexec() -> None:
    assert policy() == (
        "2\ndenylist\nreject_force_umount\n[all]\nkexec_load errno 38\nopen_by_handle_at errno 38\n"
        "init_module errno 38\nfinit_module errno 38\ndelete_module errno 38\n"
    )


def test_more_can_be_denied_with_an_answer_of_its_own() -> None:
    found = policy(deny="\n mount errno 1\nkeyctl\n")
    assert found.endswith("delete_module errno 38\nmount errno 1\nkeyctl errno 38\n")


def test_only_what_the_user_denies_when_the_default_is_off() -> None:
    assert policy(deny_default=False, deny="keyctl") == "2\ndenylist\n[all]\nkeyctl errno 38\n"
    assert policy(deny_default=False) == ""


def test_what_is_intercepted_comes_before_what_is_denied_and_nobody_else_may_listen() -> None:
    found = policy(deny_default=False, intercept=("mknod",), deny="keyctl").splitlines()
    assert found[:4] == ["2", "denylist", "[all]", "seccomp errno 22 [1,8,SCMP_CMP_MASKED_EQ,8]"]
    assert found[5:] == [
        "mknod notify [1,8192,SCMP_CMP_MASKED_EQ,61440]",
        "mknod notify [1,24576,SCMP_CMP_MASKED_EQ,61440]",
        "mknodat notify [2,8192,SCMP_CMP_MASKED_EQ,61440]",
        "mknodat notify [2,24576,SCMP_CMP_MASKED_EQ,61440]",
        "keyctl errno 38",
    ]
    assert "setxattr notify [3,1,SCMP_CMP_EQ]\n" in policy(allow="read", intercept=("setxattr",))


def test_an_allow_list_stands_alone() -> None:
    assert policy(allow="read\nwrite\n", deny="keyctl") == "2\nallowlist\n[all]\nread\nwrite\n"


def test_all_of_a_call_that_is_allowed_is_passed_on() -> None:
    found = policy(allow="read\nmknod\nseccomp", intercept=("mknod",)).splitlines()[3:]
    assert found == [
        "mknod notify",
        "read",
        "seccomp",
        "mknodat notify [2,8192,SCMP_CMP_MASKED_EQ,61440]",
        "mknodat notify [2,24576,SCMP_CMP_MASKED_EQ,61440]",
    ]


def test_what_is_denied_is_not_passed_on() -> None:
    denied = "sysinfo errno 1\nmknod [1,8192,SCMP_CMP_MASKED_EQ,61440]"
    found = policy(deny_default=False, deny=denied, intercept=("sysinfo", "mknod"))
    assert "sysinfo notify" not in found
    assert "mknod notify" in found
    assert policy(deny="sysinfo", intercept=("sysinfo",)) == policy(deny="sysinfo")


def test_a_line_that_passes_a_call_on_is_found() -> None:
    assert asks("2\ndenylist\n[all]\n  sethostname  notify [0,1,SCMP_CMP_EQ]\n").startswith("sethostname")
    assert not asks("2\ndenylist\n# notify\n[all]\nmknod errno 1\n")
