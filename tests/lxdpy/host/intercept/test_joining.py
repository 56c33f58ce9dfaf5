from lxdpy.host.intercept.joining import quiet
from lxdpy.host.lxc.seccomp import policy


def test_a_quiet_policy_denies_what_the_whole_one_does_and_passes_nothing_on() -> None:
    whole = policy(intercept=("mknod", "setxattr"), deny="keyctl\nptrace errno 22")
    assert quiet(whole) == policy(deny="keyctl\nptrace errno 22")


def test_a_policy_that_passes_nothing_on_is_quiet() -> None:
    assert quiet(policy(deny="keyctl")) == policy(deny="keyctl")


def test_a_quiet_allow_list_allows_what_is_passed_on_and_the_filter_that_passes_it_on() -> None:
    assert quiet(policy(allow="read\nsysinfo", intercept=("sysinfo", "setxattr"))) == (
        "2\nallowlist\n[all]\nsysinfo allow\nread\n"
        "seccomp allow [1,8,SCMP_CMP_MASKED_EQ,8]\n"
        "seccomp allow [1,2146435072,SCMP_CMP_MASKED_EQ,2146435072]\n"
        "setxattr allow [3,1,SCMP_CMP_EQ]\nlsetxattr allow [3,1,SCMP_CMP_EQ]\n"
        "fsetxattr allow [3,1,SCMP_CMP_EQ]\n"
    )


def test_a_policy_of_the_users_that_only_keeps_listeners_out_stays_as_it_is() -> None:
    own = "2\ndenylist\n[all]\nseccomp errno 22 [1,8,SCMP_CMP_MASKED_EQ,8]\n"
    assert quiet(own) == own
